"""Sentence encoders: a folder of a model whose mean hidden state says what a sentence means.

Such as all-MiniLM-L6-v2, which E.T. Bench compares options and captions by. A folder in the layout
of sentence-transformers, or of transformers alone; no other package is needed and no code of the
folder's is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from distime.files import FileError, read_json
from distime.model.hub import LOCAL
from distime.values import expect

MODULES = ("Transformer", "Pooling", "Normalize")
"""What a folder of sentence-transformers may be made of."""

BATCH = 64


class SentenceEncoder:
    """Texts -> unit vectors, on the CPU in float32.

    Raises:
        FileError: the folder holds no encoder, or one that does more than take the mean.
    """

    def __init__(self, folder: Path):
        expect(folder.is_dir(), str(folder), "no such folder; give that of a sentence encoder.")
        expect(
            (folder / "config.json").is_file(), str(folder), "it holds no config.json of a model."
        )
        self.length = _longest(folder)
        self._known: dict[str, np.ndarray] = {}
        disable_progress_bar()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
            self.model = AutoModel.from_pretrained(folder, **LOCAL).float().eval()
        except (OSError, ValueError, KeyError) as error:
            raise FileError(f"{folder}: no sentence encoder can be loaded ({error}).") from None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return ``(texts, d)``; a text that was met before is not encoded again."""
        new = sorted(set(texts) - self._known.keys(), key=lambda text: (len(text), text))
        for first in range(0, len(new), BATCH):
            batch = new[first : first + BATCH]
            self._known |= dict(zip(batch, self._encode(batch), strict=True))
        return np.stack([self._known[text] for text in texts])

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> np.ndarray:
        inputs = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        hidden = self.model(**inputs).last_hidden_state
        counts = inputs["attention_mask"].unsqueeze(-1).float()
        means = (hidden * counts).sum(dim=1) / counts.sum(dim=1)
        return torch.nn.functional.normalize(means).numpy()


def _longest(folder: Path) -> int:
    """Most tokens of a sentence; also checks what the folder is made of."""
    modules = folder / "modules.json"
    if modules.is_file():
        for module in read_json(modules, "list of modules")[0]:
            kind = module["type"].rsplit(".")[-1]
            expect(kind in MODULES, str(folder), f"its module {kind} is not known here.")
            pooling = folder / module["path"] / "config.json"
            if kind == "Pooling" and pooling.is_file():
                ways = read_json(pooling, "configuration of pooling")[0]
                chosen = [name for name, value in ways.items() if value is True]
                chosen = [name for name in chosen if name.startswith("pooling_mode")]
                fits = chosen == ["pooling_mode_mean_tokens"]
                expect(fits, str(folder), "its pooling is not the mean of the tokens.")
    config = read_json(folder / "config.json", "configuration")[0]
    sentence = folder / "sentence_bert_config.json"
    own = read_json(sentence, "configuration")[0] if sentence.is_file() else {}
    return own.get("max_seq_length") or config.get("max_position_embeddings") or 512
