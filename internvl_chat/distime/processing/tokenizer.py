"""Tokenizers of every checkpoint that DisTime reads, without running code from a checkpoint.

``load_tokenizer(folder)`` looks at the files in the folder:

===================================  =======================================================
``tokenizer.model``                  sentencepiece (published InternLM2), `SentencePieceTokenizer`
``tokenizer.json``                   any saved fast tokenizer, our own saved Qwen2 layout included
``vocab.json`` and ``merges.txt``    byte-level BPE (published Qwen2)
===================================  =======================================================

The ids are those of the published slow tokenizers: added tokens are cut out of the text
first (also where a user wrote them, so ``<TIME_STAMP>`` in a question is the token), and each
piece of text between them is tokenised on its own.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from distime.backbones.sentence_pieces import SentencePieceTokenizer
from distime.backbones.template import ChatTemplate
from distime.errors import DisTimeError
from distime.files import not_downloaded
from distime.model.tokens import FRAME_TIME_REF, IM_END, IM_START, SPECIAL_TOKENS, TIME_STAMP


class TokenizerError(DisTimeError):
    """A tokenizer's files or tokens are missing or unreadable; the message says which."""


def load_tokenizer(path: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a checkpoint folder, published or saved by us.

    Raises:
        TokenizerError: the folder or its tokenizer files are missing or cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise TokenizerError(
            f"{folder} is not a folder: give the local folder of a checkpoint (download it first)"
        )

    def has(*names: str) -> bool:
        return all((folder / name).is_file() for name in names)

    if has("tokenizer.model"):
        kind = SentencePieceTokenizer
    elif has("tokenizer.json"):
        kind = PreTrainedTokenizerFast
    elif has("vocab.json", "merges.txt"):
        kind = Qwen2Tokenizer
    else:
        present = sorted(p.name for p in folder.iterdir() if "token" in p.name or "vocab" in p.name)
        raise TokenizerError(
            f"{folder} holds no tokenizer: looked for tokenizer.model (InternLM2), tokenizer.json, "
            f"or vocab.json with merges.txt (Qwen2); found {', '.join(present) or 'none of them'}. "
            "Copy the tokenizer files of the checkpoint there"
        )
    for file in sorted(folder.glob("*token*")) + sorted(folder.glob("vocab.json")):
        if file.is_file() and (reason := not_downloaded(file)):
            raise TokenizerError(f"{file} {reason}")
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the libraries raise anything from OSError to bare Exception
        raise TokenizerError(f"cannot read the tokenizer in {folder}: {error}") from error


def add_special_tokens(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str] = SPECIAL_TOKENS
) -> int:
    """Add those tokens that are missing, in order; return how many were new."""
    missing = [token for token in tokens if _id(tokenizer, token) is None]
    return tokenizer.add_tokens(missing, special_tokens=True) if missing else 0


@dataclasses.dataclass(frozen=True)
class TokenIds:
    """Ids of the tokens that the model and the processor treat specially."""

    time_stamp: int
    frame_time_ref: int
    im_start: int
    im_end: int
    placeholders: tuple[int, ...]
    pad: int

    @property
    def img_context(self) -> int:
        """The token that the features of a picture replace (the first, if there are several)."""
        return self.placeholders[0]

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate = ChatTemplate(),  # noqa: B008 - it is frozen
    ) -> TokenIds:
        """Look the tokens up in a tokenizer.

        Raises:
            TokenizerError: a token is missing; the message names all that are.
        """
        names = (TIME_STAMP, FRAME_TIME_REF, IM_START, IM_END, *template.placeholders)
        ids = [_id(tokenizer, name) for name in names]
        missing = [name for name, index in zip(names, ids, strict=True) if index is None]
        if missing:
            raise TokenizerError(
                f"the tokenizer{_where(tokenizer)} lacks {', '.join(missing)}: "
                "call add_special_tokens(tokenizer) for the image and time tokens of a base "
                "checkpoint; <|im_start|> and <|im_end|> come with every tokenizer of a chat model"
            )
        if tokenizer.pad_token_id is None:
            raise TokenizerError(
                f"the tokenizer{_where(tokenizer)} has no padding token: "
                'set "pad_token" in its tokenizer_config.json'
            )
        return cls(*ids[:4], placeholders=tuple(ids[4:]), pad=tokenizer.pad_token_id)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise if a tokenizer has tokens beyond an embedding.

    Args:
        tokenizer: of a checkpoint.
        rows: of its embedding, `vocab_size` in its configuration. More rows than tokens are usual.

    Raises:
        TokenizerError: names both numbers.
    """
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary, key=vocabulary.get)
    if vocabulary[last] >= rows:
        raise TokenizerError(
            f"the tokenizer{_where(tokenizer)} has ids up to {vocabulary[last]} ({last!r}), but "
            f"the model's embedding has {rows} rows (vocab_size): they are of two checkpoints; "
            "copy the tokenizer files that belong to the weights"
        )


def _id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Return a token's id, or None; unlike ``get_vocab`` this copies no vocabulary."""
    index = tokenizer.convert_tokens_to_ids(token)
    return index if index is not None and tokenizer.convert_ids_to_tokens(index) == token else None


def _where(tokenizer: PreTrainedTokenizerBase) -> str:
    return f" of {tokenizer.name_or_path}" if tokenizer.name_or_path else ""


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text alone: nothing is put before or after it."""
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what stands before every sequence: ``[bos]`` for InternLM2, nothing for Qwen2."""
    return tokenizer("", verbose=False).input_ids


def text_lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return the lengths of `encode` of many texts; what several have in common is counted once."""
    cut = _added_tokens(tokenizer)
    pieces_of = [cut.split(text) for text in texts]
    unique = list({piece: None for pieces in pieces_of for piece in pieces if piece})
    length_of = dict(zip(unique, _piece_lengths(tokenizer, unique), strict=True)) | {"": 0}
    return [len(pieces) - 1 + sum(map(length_of.__getitem__, pieces)) for pieces in pieces_of]


@functools.lru_cache(maxsize=16)
def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    """Match the tokens at which text is cut before it is tokenised, and that take nothing of it."""
    added = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if not (token.lstrip or token.rstrip or token.single_word or token.normalized)
    ]
    return re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")


def _piece_lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    if not tokenizer.is_fast:
        return [len(encode(tokenizer, text)) for text in texts]
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    # Its threads would have to be given up when workers are forked.
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return [len(one) for one in backend.encode_batch_fast(texts, add_special_tokens=False)]
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before
