"""DisTime: distribution-based time representation for video large language models.

The names below are imported on first use, so that a command which needs no model waits for none.
"""

import importlib

from distime.versions import warn_about_untested

__version__ = "0.1.0"

_EXPORTS = {
    "DisTimeConfig": "distime.backbones.internvl.config",
    "DisTimeForConditionalGeneration": "distime.registration",
    "DisTimeProcessor": "distime.registration",
    "DisTime": "distime.api",
    "Event": "distime.processing.answers",
    "Events": "distime.processing.answers",
    "Answer": "distime.processing.answers",
}
__all__ = list(_EXPORTS)

warn_about_untested()


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'distime' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
