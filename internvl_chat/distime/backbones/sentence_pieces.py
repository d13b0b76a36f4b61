"""InternLM2's tokenizer, without running code from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from transformers.tokenization_utils_sentencepiece import SentencePieceBackend


class SentencePieceTokenizer(SentencePieceBackend):
    """A sentencepiece model with added tokens, as InternLM2's slow tokenizer computes ids.

    Each piece of text between added tokens goes through the sentencepiece model on its own, with
    the model's own rules for white space. Decoding is the exact inverse: pieces of text are
    decoded one by one, added tokens stand verbatim between them, no blank is put in or lost.
    """

    def __init__(
        self,
        vocab_file: str,
        add_bos_token: bool = True,
        starts_with_bos: bool | None = None,
        **kwargs,
    ):
        # `add_bos_token` is the name in published files; save_pretrained drops that key, so the
        # choice is saved again under a name of our own.
        self.starts_with_bos = add_bos_token if starts_with_bos is None else starts_with_bos
        kwargs.update(
            vocab_file=vocab_file,
            starts_with_bos=self.starts_with_bos,
            special_tokens_pattern="bos" if self.starts_with_bos else "none",
            legacy=True,
        )
        for key in ("auto_map", "add_eos_token"):
            kwargs.pop(key, None)
        super().__init__(**kwargs)

    def _decode(
        self, token_ids: int | Iterable[int], skip_special_tokens: bool = False, **_
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else [int(index) for index in token_ids]
        added = self._added_tokens_decoder
        text = []
        for is_added, run in groupby(ids, key=added.__contains__):
            if is_added:
                tokens = (added[index] for index in run)
                text += [t.content for t in tokens if not (skip_special_tokens and t.special)]
            else:
                text.append(self.sp_model.decode(list(run)))
        return "".join(text)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of a list of tokens (strings), special tokens kept."""
        return self._decode(self.convert_tokens_to_ids(tokens))
