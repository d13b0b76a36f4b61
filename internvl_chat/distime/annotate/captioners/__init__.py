"""The kinds of captioners, one a file; see `distime.annotate.captioner`."""
