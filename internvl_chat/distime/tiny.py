"""A DisTime of about half a million parameters, with random weights: for the quickstart and tests.

Everything but its size is the real thing: a folder with model and processor that every command of
the repository accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, set_seed

from distime.model.config import DisTimeConfig
from distime.model.modeling import DisTimeForConditionalGeneration
from distime.model.tokens import (
    FRAME_TIME_REF,
    IM_END,
    IM_START,
    IMG_CONTEXT,
    SPECIAL_TOKENS,
    TIME_STAMP,
)
from distime.processing.processor import DisTimeProcessor, ProcessorSettings

PAD, UNKNOWN = "<pad>", "<unk>"


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word and punctuation mark of some texts."""
    splitter = pre_tokenizers.Whitespace()
    seen = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    seen |= {"system", "user", "assistant", ":"}
    vocabulary = {word: index for index, word in enumerate([PAD, UNKNOWN, *sorted(seen)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=IM_END
    )
    wrapped.add_tokens([IM_START, IM_END, *SPECIAL_TOKENS], special_tokens=True)
    return wrapped


def write_tiny_checkpoint(
    folder: Path,
    texts: Iterable[str],
    *,
    seed: int = 0,
    image_size: int = 56,
    patch_size: int = 28,
    hidden_size: int = 96,
    num_layers: int = 3,
    num_frames: int = 16,
) -> None:
    """Write a random model and its processor.

    Args:
        folder: where to.
        texts: their words are the vocabulary.
        seed: of the weights.
        image_size: pixels of a frame's side; one token per 2 x 2 patches.
        patch_size: pixels of a patch's side.
        hidden_size: width of the language model; the vision tower has half of it.
        num_layers: of the language model.
        num_frames: of a video.
    """
    settings = ProcessorSettings(
        image_size=image_size,
        patch_size=patch_size,
        num_frames=num_frames,
        system_message=None,
        max_tiles=1,
    )
    processor = DisTimeProcessor(word_tokenizer(texts), settings)
    ids = processor.token_ids
    text = Qwen2Config(
        vocab_size=len(processor.tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        # Sequences are short: with the usual 10,000 most rotary angles hardly change over them, and
        # looking things up by time is learned far more slowly.
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        pad_token_id=ids.pad,
        initializer_range=hidden_size**-0.5,
    )
    vision = {
        "model_type": "internvl_vision",
        "hidden_size": hidden_size // 2,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": patch_size,
        "attention_bias": True,
        # The defaults (0.02 and layers scaled by 0.1) suit wide pretrained towers; at this width
        # they start so close to zero that hundreds of steps pass before anything is seen.
        "initializer_range": hidden_size**-0.5,
        "layer_scale_init_value": 1.0,
    }
    config = DisTimeConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        image_token_id=processor.tokenizer.convert_tokens_to_ids(IMG_CONTEXT),
        image_seq_length=settings.tokens_per_image,
        time_token_id=processor.tokenizer.convert_tokens_to_ids(TIME_STAMP),
        frame_time_token_id=processor.tokenizer.convert_tokens_to_ids(FRAME_TIME_REF),
        tie_word_embeddings=True,
    )
    set_seed(seed)
    model = DisTimeForConditionalGeneration(config)
    with torch.no_grad():
        # Positions start at zero in InternVL, where pretraining fills them.
        model.model.vision_tower.embeddings.position_embeddings.normal_(0, 0.02)
    model.generation_config.eos_token_id = ids.im_end
    model.generation_config.pad_token_id = ids.pad
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
