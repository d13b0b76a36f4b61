"""What the tiny models of several backbones share."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase, Qwen2Config

from distime.model.tokens import FRAME_TIME_REF, TIME_STAMP


def qwen2_config(
    tokenizer: PreTrainedTokenizerBase, hidden_size: int, num_layers: int
) -> Qwen2Config:
    """A small Qwen2 with tied embeddings."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        # Sequences are short: with the usual 10,000 most rotary angles hardly change over them, and
        # looking things up by time is learned far more slowly.
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=hidden_size**-0.5,
    )


def time_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The ids of the time tokens, as fields of a configuration."""
    return {
        "time_token_id": tokenizer.convert_tokens_to_ids(TIME_STAMP),
        "frame_time_token_id": tokenizer.convert_tokens_to_ids(FRAME_TIME_REF),
    }
