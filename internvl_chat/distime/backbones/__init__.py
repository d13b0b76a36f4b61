"""Backbones: the models that DisTime is put on, each whole in a module or folder of its own.

The first use of a name below imports all of them, which makes them known to
`DisTimeForConditionalGeneration` and to transformers. `docs/BACKBONES.md` says how one is added.
"""

import importlib

_EXPORTS = {
    "BACKBONES": "distime.backbones.registry",
    "add": "distime.backbones.registry",
    "backbone_of": "distime.backbones.registry",
    "DisTimeForConditionalGeneration": "distime.model.loading",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str):
    # What needs no model, such as `template`, must not wait for torch.
    if name not in _EXPORTS:
        raise AttributeError(f"module 'distime.backbones' has no attribute {name!r}")
    importlib.import_module("distime.backbones.registry")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
