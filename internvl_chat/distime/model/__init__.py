"""The model and its time parts; the first import here refuses libraries that are too old."""

from distime.versions import refuse_too_old

refuse_too_old()
