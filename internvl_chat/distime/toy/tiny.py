"""A DisTime of about half a million parameters, with random weights: for the quickstart and tests.

Everything but its size is the real thing: a folder with model and processor that every command of
the repository accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, set_seed

from distime.backbones import BACKBONES
from distime.errors import DisTimeError
from distime.model.heads import DEFAULT_HEAD
from distime.model.tokens import IM_END, IM_START, SPECIAL_TOKENS
from distime.processing.processor import DisTimeProcessor

PAD, UNKNOWN = "<pad>", "<unk>"


class TinyError(DisTimeError):
    """A tiny model cannot be written as asked; the message says why."""


def word_tokenizer(
    texts: Iterable[str], added: Sequence[str] = SPECIAL_TOKENS
) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word and punctuation mark of some texts, and those
    `added`."""
    splitter = pre_tokenizers.Whitespace()
    seen = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    seen |= {"system", "user", "assistant", ":"}
    vocabulary = {word: index for index, word in enumerate([PAD, UNKNOWN, *sorted(seen)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    # Tokens are words with blanks between them, but a decimal number is one word to readers.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"\z"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=\d) \. (?=\d)"), "."),
            decoders.Strip(" ", 0, 1),
        ]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=IM_END
    )
    wrapped.add_tokens([IM_START, IM_END, *added], special_tokens=True)
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
    backbone: str = "internvl",
    time_head: str = DEFAULT_HEAD,
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
        backbone: one of `distime.backbones.BACKBONES`.
        time_head: one of `distime.model.heads.HEAD_NAMES`.

    Raises:
        TinyError: there is no such backbone.
    """
    if backbone not in BACKBONES:
        raise TinyError(f"{backbone}: no such backbone; there are {', '.join(BACKBONES)}")
    one = BACKBONES[backbone]
    tokenizer = word_tokenizer(texts, one.template_class.added_tokens)
    set_seed(seed)
    model, settings = one.tiny(
        tokenizer,
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_frames=num_frames,
    )
    if time_head != model.config.time_head:
        model.config.time_head = time_head
        set_seed(seed)
        model, settings = type(model)(model.config), replace(settings, time_head=time_head)
    processor = DisTimeProcessor(tokenizer, settings)
    model.generation_config.eos_token_id = processor.token_ids.im_end
    model.generation_config.pad_token_id = processor.token_ids.pad
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
