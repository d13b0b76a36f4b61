"""Making a start for DisTime of a backbone's base model: rows for new tokens, fresh time modules.

A base model knows nothing of time. What it lacks is drawn here, as the published recipe does: the
rows of new tokens in the output head are the mean of the old ones, those in the embedding are drawn
from N(0, initializer_range), and the time modules start anew. Where head and embedding are one
matrix its new rows are the mean: what the input has for a time token is the embedding of a time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig

from distime.model.heads import head_class
from distime.model.tokens import FRAME_TIME_REF, IM_END, TIME_STAMP
from distime.model.tying import same_matrix, set_tied
from distime.model.weights import Checkpoint, CheckpointError, listed, read_json, read_tensors

logger = logging.getLogger(__name__)

EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


def read_base(
    path: Path,
    config_class: type[PreTrainedConfig],
    *,
    placeholders: Mapping[str, str],
    added_tokens: Sequence[str],
    overrides: Mapping[str, Any],
    renaming: Sequence[tuple[str, str]] = (),
) -> Checkpoint:
    """Read a base model that is laid out as transformers writes it.

    Args:
        path: folder with config.json, tokenizer files and weights.
        config_class: our configuration, a subclass of the base's.
        placeholders: field of the configuration -> the token whose id it holds.
        added_tokens: what the tokenizer must have, in the order in which missing ones are added.
        overrides: fields of our configuration to set.
        renaming: (regular expression, replacement) for names of tensors that older versions of
            transformers wrote otherwise; the first that matches is applied.

    Raises:
        CheckpointError: files or tokens are missing or contradict each other.
    """
    source = read_json(path / "config.json")
    own = ("model_type", "architectures", "transformers_version", "dtype", "torch_dtype")
    config = config_class(**{k: v for k, v in source.items() if k not in own} | dict(overrides))
    tensors = {_renamed(name, renaming): one for name, one in read_tensors(path).items()}
    set_tied(config, settle_head(path, _says_tied(source, tensors), tensors))
    required = [IM_END, *placeholders.values()]
    ids, length = special_token_ids(path, [IM_END, *added_tokens], required)
    check_rows(path, ids, len(tensors[EMBEDDING]), config.get_text_config().vocab_size)
    new = [token for token in added_tokens if token not in ids]
    ids |= {token: length + index for index, token in enumerate(new)}
    draw_rows(path, tensors, [ids[token] for token in new], length, config)
    fresh = time_modules(config)
    logger.info("%s: a base checkpoint; %s", path, how_times_start(fresh))
    for field, token in (*placeholders.items(), ("time_token_id", TIME_STAMP)):
        setattr(config, field, ids[token])
    config.frame_time_token_id = ids[FRAME_TIME_REF]
    end = ids[IM_END]
    generation = GenerationConfig(eos_token_id=end, pad_token_id=ids.get("<|endoftext|>", end))
    return Checkpoint(config, tensors, tensors[HEAD].dtype, fresh, generation)


def _says_tied(source: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """What a plain folder says of head and embedding: transformers omits the key where it is
    true, and older releases had it in the text configuration alone."""
    said = source.get("tie_word_embeddings")
    if said is None and HEAD in tensors:
        said = source.get("text_config", {}).get("tie_word_embeddings", False)
    return said is None or bool(said)


def how_times_start(fresh: Sequence[str]) -> str:
    """Say for the log what becomes of `time_modules`."""
    return "time encoder and time decoder start fresh" if fresh else "times are words"


def time_modules(config: PreTrainedConfig) -> list[str]:
    """Names of the tensors of both time modules; none where times are words."""
    head = head_class(config.time_head)(config)
    with torch.device("meta"):
        modules = {"time_encoder": head.encoder(1), "time_decoder": head.decoder(1)}
    return [
        f"{name}.{tensor}"
        for name, module in modules.items()
        if module is not None
        for tensor in module.state_dict()
    ]


def settle_head(path: Path, says_tied: bool, tensors: dict[str, Tensor]) -> bool:
    """Fill in a head or embedding that the other stands for; tell whether they are one matrix.

    The numbers count: a head that differs from the embedding is its own, whatever config.json says.

    Args:
        path: named in messages.
        says_tied: what config.json says.
        tensors: changed in place.

    Raises:
        CheckpointError: one is missing and the other does not stand for it.
    """
    if missing := [name for name in (HEAD, EMBEDDING) if name not in tensors]:
        if len(missing) == 2 or not says_tied:
            raise CheckpointError(f"{path}: missing tensors: {listed(missing)}")
        tensors[missing[0]] = tensors[EMBEDDING if missing[0] == HEAD else HEAD]
    if not says_tied:
        return False
    if same_matrix(tensors[HEAD], tensors[EMBEDDING]):
        tensors[HEAD] = tensors[EMBEDDING]
        return True
    logger.warning(
        "%s: config.json says tie_word_embeddings, but the output head differs from the embedding: "
        "they are read as two matrices",
        path,
    )
    return False


def special_token_ids(
    path: Path, tokens: Sequence[str], required: Sequence[str]
) -> tuple[dict[str, int], int]:
    """Ids of the added tokens, and the number of tokens, from whichever tokenizer file says so.

    Args:
        path: folder.
        tokens: of which the files must not say different things.
        required: which some file must name.

    Raises:
        CheckpointError: they do, or none does.
    """
    ids: dict[str, int] = {}
    for name, found in _added_tokens(path):
        for token in tokens:
            if token in found and ids.get(token, found[token]) != found[token]:
                raise CheckpointError(
                    f"{path / name}: {token} is {found[token]}, but another tokenizer file there "
                    f"says {ids[token]}: they are of two checkpoints; download them again"
                )
        ids |= found
    if missing := [token for token in required if token not in ids]:
        raise CheckpointError(
            f"{path}: no tokenizer file there names {missing[0]}; looked in added_tokens.json, "
            "tokenizer_config.json and tokenizer.json"
        )
    return ids, max(ids.values()) + 1


def _added_tokens(path: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the name of every tokenizer file that lists added tokens, and their ids."""
    if (path / (name := "tokenizer.json")).is_file():
        listing = read_json(path / name).get("added_tokens", [])
        yield name, {token["content"]: token["id"] for token in listing}
    if (path / (name := "added_tokens.json")).is_file():
        yield name, read_json(path / name)
    if (path / (name := "tokenizer_config.json")).is_file():
        decoder = read_json(path / name).get("added_tokens_decoder", {})
        yield name, {token["content"]: int(index) for index, token in decoder.items()}


def check_rows(path: Path, token_ids: Mapping[str, int], rows: int, vocab_size: int) -> None:
    """Raise unless tokenizer, configuration and embedding are of one size.

    Args:
        path: named in the message.
        token_ids: of the added tokens, which are the last.
        rows: of the embedding.
        vocab_size: what the configuration says of them.

    Raises:
        CheckpointError: they are not.
    """
    last = max(token_ids, key=token_ids.__getitem__)
    if token_ids[last] >= rows:
        raise CheckpointError(
            f"{path}: its tokenizer has ids up to {token_ids[last]} ({last}), but its embedding "
            f"has {rows} rows; the tokenizer files or the weights are another checkpoint's: "
            "download both again"
        )
    if vocab_size != rows:
        raise CheckpointError(
            f"{path}: config.json says vocab_size {vocab_size}, but the embedding has {rows} rows; "
            "one of them is another checkpoint's: download both again"
        )


def draw_rows(
    path: Path,
    tensors: dict[str, Tensor],
    new: Sequence[int],
    length: int,
    config: PreTrainedConfig,
) -> None:
    """Give new tokens their rows: those that the matrices have to spare, or more of them.

    Args:
        path: named in messages.
        tensors: by our names; changed in place.
        new: ids of the new tokens.
        length: of the tokenizer without them.
        config: whose `vocab_size` follows.
    """
    text = config.get_text_config()
    is_tied = tensors[HEAD] is tensors[EMBEDDING]
    rows = tensors[EMBEDDING].shape[0]
    if not new:
        return
    for name in {HEAD} if is_tied else {EMBEDDING, HEAD}:
        old = tensors[name]
        grown = old.new_empty(max(rows, max(new) + 1), old.shape[1])
        grown[:rows] = old
        if name == HEAD:
            drawn = old[:length].float().mean(0).expand(len(new), -1)
        else:
            drawn = torch.randn(len(new), old.shape[1]) * text.initializer_range
        grown[new] = drawn.to(old.dtype)
        tensors[name] = grown
    if is_tied:
        tensors[EMBEDDING] = tensors[HEAD]
    text.vocab_size = len(tensors[EMBEDDING])
    logger.info(
        "%s: %d new token rows: output rows the mean of the %d old ones, input rows %s",
        path, len(new), length,
        "the same" if is_tied else f"drawn from N(0, {text.initializer_range:g})",
    )  # fmt: skip


def _renamed(name: str, renaming: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in renaming:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return name
