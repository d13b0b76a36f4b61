"""What a generated answer says: its text, and its events in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from distime.model.tokens import TIME_STAMP
from distime.show.timeline import timeline_svg

if TYPE_CHECKING:
    from torch import Tensor

    from distime.processing.processor import DisTimeProcessor


@dataclass(frozen=True)
class Event:
    """An interval that the model named.

    Attributes:
        start: seconds, as decoded: nothing orders start and end.
        end: seconds.
        confidence: the IoU that the answer expects of itself, 0 to 1: see `confidence`; NaN
            without distributions.
        distribution: `(2, reg_max + 1)` probabilities of start and end; bin `k` is the time
            `origin + k / reg_max * duration`. None of a model that has none.
        text: what the answer says right after the time (dense captioning), stripped.
        origin: when the first picture is shown, in seconds on the clock of `start` and `end`.
    """

    start: float
    end: float
    confidence: float = math.nan
    distribution: np.ndarray | None = field(default=None, repr=False, compare=False)
    text: str = ""
    origin: float = 0.0

    @property
    def ordered(self) -> Event:
        """This event with start <= end: a reversed pair swaps its times and distributions."""
        if self.start <= self.end:
            return self
        distribution = None if self.distribution is None else self.distribution[::-1]
        return replace(self, start=self.end, end=self.start, distribution=distribution)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        sure = self.confidence if math.isfinite(self.confidence) else None
        values = {"start": self.start, "end": self.end, "confidence": sure}
        if self.text:
            values["text"] = self.text
        if self.distribution is not None:
            values["distribution"] = self.distribution.tolist()
        return values


@dataclass(frozen=True)
class Answer:
    """An answer in words and events.

    Attributes:
        text: the words, with `<TIME_STAMP>` where an event was named.
        events: one per `<TIME_STAMP>` of the text, in order.
        duration: of the video, in seconds.
        origin: when its first picture is shown, in seconds on the clock of the events.
    """

    text: str
    events: tuple[Event, ...] = ()
    duration: float = math.nan
    origin: float = 0.0

    @property
    def end(self) -> float:
        """When the last picture ends, in seconds on the clock of the events."""
        return self.origin + self.duration

    def on_clock(self, origin: float) -> Answer:
        """This answer on a clock on which the first picture is shown at `origin` seconds.

        Published arithmetic has the first picture at 0; what people are told is on the clock of
        players: see `VideoSample.start`.
        """
        moved = origin - self.origin
        events = tuple(
            replace(event, start=event.start + moved, end=event.end + moved, origin=origin)
            for event in self.events
        )
        return replace(self, events=events, origin=origin)

    @property
    def readable(self) -> str:
        """The text with each time written out, as in "1.2 - 3.4 s"."""
        return self.with_times("s")

    def with_times(self, seconds: str) -> str:
        """The text with each time written out, behind it the word for `seconds`."""
        pieces = self.text.split(TIME_STAMP)
        spans = [f"{event.start:.1f} - {event.end:.1f} {seconds}" for event in self.events]
        spans += [TIME_STAMP] * (len(pieces) - 1 - len(spans))
        return "".join(a + b for a, b in zip(pieces, [*spans, ""], strict=False))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        events = [event.to_dict() for event in self.events]
        return {"text": self.text, "events": events, "duration": self.duration}

    def _repr_html_(self) -> str:
        """The words, and a timeline where there are events; notebooks show it."""
        timeline = timeline_svg(self.events, self.end) if self.events else ""
        return f"<p>{escape(self.readable)}</p>{timeline}"


class Events(list[Event]):
    """The events of one video: a list that also knows how long the video is and what was said.

    Attributes:
        duration: of the video, in seconds.
        answer: the model's words that the events were read from, `<TIME_STAMP>` where an event was
            named; '' where they are not known.
        origin: when the first picture is shown, in seconds on the clock of the events.
    """

    def __init__(
        self,
        events: Iterable[Event] = (),
        duration: float = math.nan,
        answer: str = "",
        origin: float = 0.0,
    ):
        super().__init__(events)
        self.origin = origin
        self.duration = duration
        self.answer = answer

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        events = [event.to_dict() for event in self]
        return {"duration": self.duration, "answer": self.answer, "events": events}

    def _repr_html_(self) -> str:
        """A timeline; notebooks show it."""
        return timeline_svg(self, self.origin + self.duration) if self else "<p>no events</p>"


def confidence(distribution: np.ndarray) -> float:
    """The expected IoU of an answer, were the truth drawn from the answer's own distributions.

    The answer is the interval between the two expectations; start and end are drawn independently,
    and a pair in the wrong order is turned round as an answer is. 1 where all is on one bin each.

    Args:
        distribution: `(2, bins)` probabilities of start and end.
    """
    start, end = np.asarray(distribution, dtype=np.float64)
    start, end = start / start.sum(), end / end.sum()
    bins = np.arange(len(start))
    low, high = sorted((start @ bins, end @ bins))
    first = np.minimum(bins[:, None], bins[None, :])
    last = np.maximum(bins[:, None], bins[None, :])
    common = np.maximum(np.minimum(last, high) - np.maximum(first, low), 0)
    union = (last - first) + (high - low) - common
    # Two points have no length: they agree or they do not.
    same = (np.abs(first - low) < 1e-6) & (np.abs(last - high) < 1e-6)
    fits = np.where(same, 1.0, common / np.maximum(union, 1e-12))
    return float(min(start @ fits @ end, 1.0))


def read_answer(
    processor: DisTimeProcessor,
    new_ids: Tensor,
    times: Tensor,
    distributions: Tensor | None,
    duration: float,
) -> Answer:
    """Read one row of `generate`'s output.

    Where the model writes times as words, they are read from the text, and cut to the video.

    Args:
        processor: its tokenizer decodes the text.
        new_ids: `(T,)` generated ids, without the prompt.
        times: `(n, 2)` normalised.
        distributions: `(n, 2, reg_max + 1)`; None where the model has none.
        duration: of the video, in seconds.
    """
    text = processor.decode(new_ids)
    if processor.time_head.in_words:
        return read_words(processor, text, duration)
    spans = [(start * duration, end * duration) for start, end in times.double().tolist()]
    if distributions is None:
        return Answer(text, _events(text, spans), duration)
    bins = distributions.float().cpu().numpy()
    events = tuple(
        replace(event, confidence=confidence(one), distribution=one)
        for event, one in zip(_events(text, spans), bins, strict=False)
    )
    return Answer(text, events, duration)


def read_words(processor: DisTimeProcessor, text: str, duration: float) -> Answer:
    """Read a text in which the times are words, of a model that writes them so.

    Args:
        processor: of the model.
        text: that it wrote.
        duration: of the video, in seconds, to which the times are cut.
    """
    text, spans = processor.time_head.read(text)
    inside = [(min(start, duration), min(end, duration)) for start, end in spans]
    return Answer(text, _events(text, inside), duration)


def _events(text: str, spans: Iterable[tuple[float, float]]) -> tuple[Event, ...]:
    return tuple(
        Event(start, end, text=caption)
        for (start, end), caption in zip(spans, captions(text), strict=False)
    )


def captions(text: str) -> list[str]:
    """What stands behind each `<TIME_STAMP>`, up to the next; a leading comma is not part of it.

    Unlike the published parsing, nothing shifts when a piece is empty or lacks its comma.
    """
    return [re.sub(r"^\s*,\s*", "", piece).strip() for piece in text.split(TIME_STAMP)[1:]]
