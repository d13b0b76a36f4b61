"""What the page does with a request, apart from the page: checks, the answer, and its HTML.

Nothing here needs gradio.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from distime.engine import Service
from distime.errors import DisTimeError
from distime.model.tokens import TIME_STAMP
from distime.processing.answers import Answer, Event
from distime.processing.questions import EVENT_CAPTIONING, moment_retrieval_question
from distime.processing.sampling import VideoSample
from distime.processing.video import looks_like_video, open_video
from distime.show.clips import srt
from distime.show.timeline import timeline_svg

if TYPE_CHECKING:
    from distime.api import DisTime

logger = logging.getLogger(__name__)

FIND, LIST, ASK = "When does it happen?", "What happens when?", "Ask anything"
MODES = (FIND, LIST, ASK)
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif")

_MAX_QUESTION = 2000  # characters


class DemoError(DisTimeError):
    """A request that cannot be served; the message is for the person who made it."""


@dataclass(frozen=True)
class DemoLimits:
    """What one request may cost.

    Attributes:
        megabytes: of an uploaded file.
        seconds: of a video.
        new_tokens: of an answer.
    """

    megabytes: int = 200
    seconds: float = 3600
    new_tokens: int = 1000


@dataclass(frozen=True)
class Reply:
    """What the page shows.

    Attributes:
        answer: HTML, the words with their times.
        downloads: HTML, links to the answer as files.
        timeline: HTML, the events below the player.
        chapters: HTML, the events as a list; empty unless the whole video was described.
        prompt: the text that the model was shown.
        details: HTML, how long it took and on what.
        data: the same for programs, as plain JSON types: see `answer_data`.
    """

    answer: str
    downloads: str
    timeline: str
    chapters: str
    prompt: str
    details: str
    data: dict[str, Any]


class Responder:
    """Answers requests about the videos in some folders, and about no other file.

    Args:
        model: answers; requests that come together share its batches.
        folders: where uploads and examples lie.
        limits: of a request.
        checkpoint: its name.
    """

    def __init__(
        self,
        model: DisTime,
        folders: Sequence[Path],
        limits: DemoLimits | None = None,
        checkpoint: str = "",
    ):
        self.model = model
        self.checkpoint = checkpoint
        self.folders = [Path(folder).resolve() for folder in folders]
        self.limits = limits or DemoLimits()
        self.service = Service(model.engine)

    def __call__(
        self,
        video: str | None,
        mode: str,
        question: str | None,
        stop: threading.Event | None = None,
    ) -> Reply:
        """Answer a request.

        Args:
            video: path of the upload or example.
            mode: one of `MODES`.
            question: what to look for or to ask; not needed for `LIST`.
            stop: ends the answer when it is set.

        Raises:
            DemoError: the request was stopped, or cannot be served; nothing in the message tells
                where files lie.
        """
        words = self._check_question(mode, question)
        path = self.check_video(video)
        asked = {FIND: moment_retrieval_question(words), LIST: EVENT_CAPTIONING, ASK: words}[mode]
        try:
            begun = time.perf_counter()
            self.check_length(path)
            sample = self.model.processor.load_video(path)
            read = time.perf_counter()
            answer = self._answer(sample, asked, stop)
            done = time.perf_counter()
            prompt = self.model.prompt(sample, asked)
        except DemoError:
            raise
        except ValueError as error:
            if not type(error).__module__.startswith("distime."):
                raise
            # The package names files by their path, which is nobody's business.
            raise DemoError(str(error).replace(str(path), path.name)) from error
        device = self.model.model.device
        facts = {
            "video": f"{len(sample.times)} frames of {sample.duration:.1f} s, "
            f"read in {read - begun:.2f} s",
            "answered": f"in {done - read:.2f} s on {device}",
            "answer": answer.text,
        }
        events = answer.events
        if mode == FIND:  # all of them are what was looked for
            events = tuple(replace(event, text=words) for event in events)
        data = {"checkpoint": self.checkpoint, "video": path.name, "mode": mode, "question": words}
        data |= answer_data(replace(answer, events=events))
        return Reply(
            answer=answer_html(answer),
            downloads=downloads_html(data, events),
            timeline=timeline_html(answer.events, answer.end),
            chapters=chapters_html(answer.events) if mode == LIST else "",
            prompt=prompt,
            details=details_html(facts),
            data=data,
        )

    def _answer(self, sample: VideoSample, question: str, stop: threading.Event | None) -> Answer:
        job = self.model.job(sample, [question], max_new_tokens=self.limits.new_tokens)
        if stop is not None:
            job.on_token = lambda *_: job.cancel() if stop.is_set() else None
        finished = self.service.submit(job).result()
        if job.cancelled:
            raise DemoError("Stopped.")
        (answer,) = self.model.results(finished)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Answer nothing more."""
        self.service.close(timeout=0)

    def _check_question(self, mode: str, question: str | None) -> str:
        if mode not in MODES:
            raise DemoError("Choose what to ask for.")
        words = (question or "").strip()
        if not words and mode != LIST:
            raise DemoError("Write what to look for." if mode == FIND else "Write a question.")
        if len(words) > _MAX_QUESTION:
            raise DemoError(f"The question is longer than {_MAX_QUESTION} characters.")
        return words

    def check_video(self, video: str | None) -> Path:
        """Return the path of an upload or example.

        Raises:
            DemoError: it is none, too large, or no video.
        """
        if not video:
            raise DemoError("Choose a video first.")
        path = Path(video).resolve()
        if not any(folder in path.parents for folder in self.folders) or not path.is_file():
            logger.warning("refused a request for %s", path)
            raise DemoError("This video is not here (any more); upload it again.")
        if path.stat().st_size > self.limits.megabytes * 1e6:
            raise DemoError(f"At most {self.limits.megabytes} MB are taken here.")
        if path.suffix.lower() not in VIDEO_SUFFIXES or not looks_like_video(path):
            raise DemoError(f"This is no video of a known type ({', '.join(VIDEO_SUFFIXES)}).")
        return path

    def check_length(self, path: Path) -> None:
        """Open a video.

        Raises:
            DemoError: it lasts too long.
            VideoError: it cannot be read.
        """
        with open_video(path) as reader:
            if reader.duration > self.limits.seconds:
                raise DemoError(
                    f"This video lasts {reader.duration:.0f} s; at most "
                    f"{self.limits.seconds:.0f} s are taken here."
                )


def answer_data(answer: Answer) -> dict[str, Any]:
    """An answer as plain JSON types: `answer` (its words, times written out), `duration` and
    `events`, each with `start` and `end` in seconds, `confidence` (0 to 1, or None) and `text`.
    """
    events = [
        {
            "start": round(event.start, 3),
            "end": round(event.end, 3),
            "confidence": round(event.confidence, 4) if math.isfinite(event.confidence) else None,
            "text": event.text,
        }
        for event in answer.events
    ]
    return {"answer": answer.readable, "duration": round(answer.duration, 3), "events": events}


# ------------------------------------------------------------------------------------------ HTML


def answer_html(answer: Answer) -> str:
    """The words, each time a button that seeks the player."""
    pieces = answer.text.split(TIME_STAMP)
    times = [_seek(event, f"{event.start:.1f} – {event.end:.1f} s") for event in answer.events]
    times += [""] * len(pieces)
    words = "".join(escape(piece) + time for piece, time in zip(pieces, times, strict=False))
    return f'<p class="distime-answer">{words or "(no words)"}</p>'


def downloads_html(data: dict[str, Any], events: Sequence[Event]) -> str:
    """Links to save an answer as JSON and its events as subtitles; the files are in the links."""
    name = Path(data["video"]).stem
    files = {"json": ("application/json", json.dumps(data, ensure_ascii=False, indent=1))}
    if events:
        files["srt"] = ("application/x-subrip", srt(events))
    links = (
        f'<a download="{escape(name)}.{kind}" '
        f'href="data:{mime};charset=utf-8,{quote(text)}">{kind.upper()}</a>'
        for kind, (mime, text) in files.items()
    )
    return f'<p class="distime-downloads">Download {" ".join(links)}</p>'


def timeline_html(events: Sequence[Event], duration: float) -> str:
    """The events over time, with room for the moment that the player is at."""
    if not events:
        return '<p class="distime-none">The answer names no time.</p>'
    playhead = f'<div class="distime-playhead" data-duration="{duration:.3f}"></div>'
    return f'<div class="distime-stage">{timeline_svg(events, duration)}{playhead}</div>'


def chapters_html(events: Sequence[Event]) -> str:
    """The events as chapters, in the order of their starts."""
    if not events:
        return ""
    rows = [
        _seek(event, f"{_minutes(event.start)}  {event.text or '…'}")
        for event in sorted(events, key=lambda event: event.start)
    ]
    items = "".join(f"<li>{row}</li>" for row in rows)
    return f'<ol class="distime-chapters">{items}</ol>'


def details_html(facts: dict[str, str]) -> str:
    """Names and values as a table."""
    rows = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts.items())
    return f'<table class="distime-details">{"".join(rows)}</table>'


def _seek(event: Event, words: str) -> str:
    return (
        f'<button type="button" data-start="{event.start:.3f}" data-end="{event.end:.3f}">'
        f"{escape(words)}</button>"
    )


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
