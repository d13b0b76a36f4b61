"""The published layout of InternVL and DisTime (`vision_model.* / mlp1.* / language_model.*`).

Reads a base InternVL 2.5, 3 or 3.5, a published DisTime checkpoint, and one still wrapped in LoRA;
with Qwen2, Qwen3 or InternLM2 as language model and either style of InternViT. Nothing here runs
remote code: the layout is a table of names and two packed projections (`names`) and a configuration
(`config`).
"""

from distime.backbones.internvl.published.added_tokens import write_tokenizer
from distime.backbones.internvl.published.reading import is_published, read
from distime.backbones.internvl.published.writing import write

__all__ = ["is_published", "read", "write", "write_tokenizer"]
