"""Writing a tokenizer as published checkpoints have it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from distime.backbones.sentence_pieces import SentencePieceTokenizer
from distime.model.tokens import SPECIAL_TOKENS

logger = logging.getLogger(__name__)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as published checkpoints have it, over what `save_pretrained` wrote.

    Qwen2: ``vocab.json``, ``merges.txt``; InternLM2: ``tokenizer.model``; both with
    ``added_tokens.json``, ``special_tokens_map.json`` and ``tokenizer_config.json``. The published
    code reads InternLM2's with ``tokenization_internlm2.py`` of the InternVL2.5 release beside it.
    Any other tokenizer stays ``tokenizer.json``, which we read and the published code does not.
    """
    added = dict(sorted(tokenizer.added_tokens_decoder.items()))
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    named = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {
        "additional_special_tokens": list(
            dict.fromkeys([*tokenizer.extra_special_tokens, *SPECIAL_TOKENS])
        ),
        **{name: getattr(tokenizer, name) for name in named},
    }
    config = {
        "added_tokens_decoder": {
            str(index): {flag: getattr(token, flag) for flag in flags}
            for index, token in added.items()
        },
        **special,
        "clean_up_tokenization_spaces": False,
        "model_max_length": tokenizer.model_max_length,
    }
    if tokenizer.chat_template:
        config["chat_template"] = tokenizer.chat_template
    if _is_qwen2(tokenizer):
        model = _backend(tokenizer)["model"]
        _write_json(folder / "vocab.json", model["vocab"])
        merges = "".join(" ".join(pair) + "\n" for pair in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
        (folder / "tokenizer.json").unlink()
        config |= {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_prefix_space": False,
            "errors": "replace",
            "split_special_tokens": False,
        }
        ids = {token.content: index for index, token in added.items()}
    elif isinstance(tokenizer, SentencePieceTokenizer):
        config |= {
            "tokenizer_class": "InternLM2Tokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
            "add_bos_token": tokenizer.starts_with_bos,
            "add_eos_token": False,
        }
        # Tokens that stand in for pieces of the sentencepiece model are not in this file.
        pieces = tokenizer.sp_model.get_piece_size()
        ids = {token.content: index for index, token in added.items() if index >= pieces}
    else:
        logger.warning(
            "%s is neither Qwen2's nor InternLM2's tokenizer: written as tokenizer.json",
            type(tokenizer).__name__,
        )
        return
    _write_json(folder / "added_tokens.json", ids)
    _write_json(folder / "special_tokens_map.json", {k: v for k, v in special.items() if v})
    _write_json(folder / "tokenizer_config.json", config)


def _backend(tokenizer: PreTrainedTokenizerBase) -> dict:
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _is_qwen2(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer treats text as Qwen2's; saved and loaded again it has no class."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    ours, theirs = _backend(tokenizer), _backend(Qwen2Tokenizer())
    return all(ours[part] == theirs[part] for part in ("normalizer", "pre_tokenizer", "decoder"))


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
