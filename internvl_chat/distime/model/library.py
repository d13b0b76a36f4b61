"""Names that transformers changed between the releases this package runs on, in one place."""

from __future__ import annotations

from dataclasses import fields

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = (
    "cache"
    if "cache" in {field.name for field in fields(CausalLMOutputWithPast)}
    else "past_key_values"
)
"""How outputs, `forward` and `generate` call the key-value cache: `cache` since 5.24."""
