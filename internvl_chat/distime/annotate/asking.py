"""Asking a DisTime checkpoint about clips, through its engine: one pass over each video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distime.annotate.annotator import Clip
from distime.annotate.precision import dtype_of
from distime.api import DisTime
from distime.evaluate.answering import FAILURES
from distime.processing.answers import Answer

if TYPE_CHECKING:
    from distime.annotate.annotation_settings import AnnotationSettings


def load(folder: Path, settings: AnnotationSettings, device: torch.device) -> DisTime:
    """Load a checkpoint as the settings of a run say."""
    model = DisTime.from_pretrained(folder, dtype=dtype_of(settings.dtype, device), device=device)
    model.batch_size = settings.batch_size
    model.engine.workers = settings.workers
    return model


def ask(
    model: DisTime, asked: Iterable[tuple[Clip, Sequence[str]]], max_new_tokens: int
) -> Iterator[tuple[Clip, list[Answer | Exception]]]:
    """Ask questions about clips.

    Yields:
        a clip with the answer to each question, or what stood in its way; in any order. Events are
        in order of time and on the clock that starts with the video's first frame, in seconds.
    """
    jobs = (
        model.job(clip.path, questions, tag=clip, max_new_tokens=max_new_tokens)
        for clip, questions in asked
    )
    for finished in model.engine.run(jobs):
        if finished.error is not None and not isinstance(finished.error, FAILURES):
            raise finished.error
        results = model.results(finished)
        yield (
            finished.job.tag[1],
            [one.on_clock(0.0) if isinstance(one, Answer) else one for one in results],
        )
