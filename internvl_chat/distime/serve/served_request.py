"""From a request to the engine and back: the job, what it counts, and the text as it grows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from distime.api import DisTime
from distime.errors import DisTimeError
from distime.model.tokens import TIME_STAMP
from distime.processing.answers import Answer, Event, read_words
from distime.processing.processor import PrefixInputs
from distime.serve.serve_settings import ServeSettings
from distime.serve.videos import video_file


class ServedRequest:
    """One request on its way.

    Args:
        model: answers.
        settings: say which videos may be read.
        url: of the video.
        questions: about it.
        options: for `DisTime.job`.
        on_text: called with a sample's number, its text so far and its events so far, from the
            engine's thread.

    Attributes:
        prompt_tokens: of all questions, once the video is loaded.
        completion_tokens: of all answers so far.
    """

    def __init__(
        self,
        model: DisTime,
        settings: ServeSettings,
        url: str,
        questions: Sequence[str],
        *,
        on_text: Callable[[int, str, list[Event]], None] | None = None,
        **options: Any,
    ):
        self.model, self.settings, self.url, self.on_text = model, settings, url, on_text
        self.prompt_tokens = 0
        self.ids: dict[tuple[int, int], Sequence[int]] = {}
        self.inputs: PrefixInputs | None = None
        self.cleanup = contextlib.ExitStack()
        self._lock = threading.Lock()
        # The path is known when the request's video is written, in a background thread.
        self.job = model.job(Path(), questions, **options)
        self._load, self.job.load, self.job.on_token = self.job.load, self.load, self.hear

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(map(len, self.ids.values()))

    def load(self) -> PrefixInputs:
        """Get the video, and read it."""
        with video_file(self.url, self.settings) as path:
            self.url = ""  # an upload is large
            self.job.tag[0].video = path
            try:
                inputs = self._load()
            except DisTimeError as error:
                # The package names files by their path, which is nobody's business.
                raise type(error)(str(error).replace(str(path), "the video")) from None
        mask = inputs.suffixes["attention_mask"]
        prefix = inputs.prefix["input_ids"].shape[1]
        self.prompt_tokens = (prefix * len(mask) + int(mask.sum())) * self.job.samples
        self.inputs = inputs
        return inputs

    def hear(
        self, question: int, sample: int, ids: Sequence[int], intervals: Sequence[Tensor]
    ) -> None:
        """Keep what was generated, and tell it on."""
        self.ids[question, sample] = list(ids)
        if self.on_text is None or not ids:
            return
        text = self.model.processor.decode(ids)
        if text.endswith("\ufffd"):
            return  # half a character
        processor, duration = self.model.processor, self.inputs.duration
        spans = [(start * duration, end * duration) for start, end in map(Tensor.tolist, intervals)]
        if processor.time_head.in_words:
            answer = read_words(processor, processor.time_head.settled(text), duration)
            text, spans = answer.text, [(event.start, event.end) for event in answer.events]
        origin = self.job.tag[0].origin
        events = [Event(origin + start, origin + end).ordered for start, end in spans]
        self.on_text(sample, text, events)

    def finish_reason(self, sample: int) -> str:
        """Why an answer ended, as OpenAI calls it."""
        ids = self.ids.get((0, sample), ())
        is_full = len(ids) >= self.job.decoding.max_new_tokens
        return "length" if is_full and ids[-1] != self.model.processor.token_ids.im_end else "stop"


class Growing:
    """A text that is sent piece by piece: what was sent is never sent again or taken back."""

    def __init__(self):
        self.sent = ""
        self.events = 0

    def piece(self, text: str, events: Sequence[Event]) -> tuple[str, list[Event]]:
        """Return what is new of a text and its events."""
        readable = Answer(text, tuple(events)).readable
        if len(readable) <= len(self.sent) or TIME_STAMP in readable:
            return "", []
        new, fresh = readable[len(self.sent) :], list(events[self.events :])
        self.sent, self.events = readable, len(events)
        return new, fresh


def event_dict(event: Event, *, distributions: bool = False) -> dict[str, Any]:
    """Return an event in plain JSON types, its distributions only if they were asked for."""
    values = event.to_dict()
    if not distributions:
        values.pop("distribution", None)
    return values
