"""A page on which people accept, correct or reject events: `distime annotate review DIR`."""
