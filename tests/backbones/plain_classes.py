"""How the plain class of transformers is called with the inputs of a backbone's processor.

One function for every backbone: the model and the inputs (`input_ids`, `attention_mask`, and what
`Backbone.video` and `Backbone.images` make) -> keyword arguments of the plain class's base model.
"""

from __future__ import annotations

from transformers import InternVLForConditionalGeneration

PLAIN_CLASS = {"internvl": InternVLForConditionalGeneration}


def internvl(model, inputs):
    """The same names."""
    return inputs


PLAIN_INPUTS = {"internvl": internvl}
