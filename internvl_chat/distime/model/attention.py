"""Attention kernels that can be asked for by name; no import, so that a typo is told at once."""

ATTENTION = ("sdpa", "eager", "flash_attention_2")
