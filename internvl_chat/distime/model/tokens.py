"""The names of the tokens that carry images and times, in one place."""

from __future__ import annotations

TIME_STAMP, FRAME_TIME_REF = "<TIME_STAMP>", "<FRAME_TIME_REF>"
IMG_START, IMG_END, IMG_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"

NEW_TOKENS = [TIME_STAMP, FRAME_TIME_REF]
"""The tokens that DisTime adds to an InternVL2.5 tokenizer."""

SPECIAL_TOKENS = [
    IMG_START,
    IMG_END,
    IMG_CONTEXT,
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    *NEW_TOKENS,
]
"""Every added token in the published order; an InternVL2.5 tokenizer has the first nine."""
