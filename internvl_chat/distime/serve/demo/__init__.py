"""A page to try a checkpoint on: `distime demo --checkpoint PATH`."""
