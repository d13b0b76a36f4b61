"""Captions from an endpoint that speaks OpenAI's chat completions.

OPENAI_BASE_URL names it (default: OpenAI's own), OPENAI_API_KEY is its key. Frames are sent as
JPEG. Requests are bounded in size, time and number, tried again with growing pauses, and their
answers kept on disk by the content of the request: no question is paid for twice.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Clip, Outcome, UnusableError
from distime.annotate.caption_texts import read_captions, read_prompt
from distime.annotate.captioner import Captioner
from distime.annotate.records import AnnotationFolder, Caption, Captioned
from distime.benchmarks.base import SettingsError
from distime.data.problems import printable
from distime.errors import DisTimeError
from distime.files import write_json

if TYPE_CHECKING:
    from distime.annotate.annotation_settings import AnnotationSettings
    from distime.processing.sampling import VideoSample

logger = logging.getLogger(__name__)

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
"""Environment variables."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a request is tried again: doubled each time, or what the endpoint asks for."""
GIVE_UP = 4
"""So many failures in a row, times the requests at once, are the endpoint's, not the videos'."""
MAX_REQUEST, MAX_REPLY = 32 * 2**20, 4 * 2**20
"""Bytes."""
AGAIN = {408, 409, 425, 429}
"""Statuses after which the same request may succeed, beside all of servers' errors (5xx)."""
SETTINGS_ARE_WRONG = {401: f"check {KEY}", 403: f"check {KEY} and what it allows",
                      404: f"check {URL} and the name of the model",
                      405: f"check {URL}"}  # fmt: skip
"""Statuses that no other video would change."""


class EndpointError(DisTimeError):
    """The endpoint refuses whatever is asked; the message says the mend."""


class Endpoint(Captioner):
    """Asks an endpoint about the frames of a video."""

    kind: ClassVar[str] = "openai"
    target_form: ClassVar[str] = "MODEL"

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        self.flag = f"--captioner {self.kind}:{target}"
        self.key = os.environ.get(KEY, "").strip()
        if not self.key:
            raise SettingsError(
                f"{self.flag}: set the environment variable {KEY} (any word will do for an "
                "endpoint that asks for no key)"
            )
        self.url = (os.environ.get(URL) or "https://api.openai.com/v1").rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise SettingsError(
                f"{URL} {self.url}: give an address such as http://localhost:8000/v1"
            )
        self.prompt = read_prompt(settings.prompt)
        self.cache = AnnotationFolder(settings.out).cache / self.kind
        self.stopping = threading.Event()

    @property
    def workers(self) -> int:
        """Requests at once."""
        return self.settings.concurrency

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`. The address is not part of it: a model may move."""
        names = ("fps", "max_frames", "picture_side", "events_per_video", "max_new_tokens")
        return {
            "model": self.target,
            "prompt": self.prompt,
            **{name: getattr(self.settings, name) for name in names},
        }

    def outcomes(self, clips: Iterable[Clip]) -> Iterator[Outcome]:
        """See `Annotator.outcomes`.

        Raises:
            EndpointError: it refuses whatever is asked, or no longer answers at all.
        """
        lost = 0
        self.stopping.clear()
        try:
            for outcome in super().outcomes(clips):
                lost = 0 if outcome.record is not None else lost + 1
                yield outcome
                if lost >= GIVE_UP * self.workers:
                    raise EndpointError(
                        f"{self.flag}: {lost} videos in a row failed, last: {outcome.notes[0]}; "
                        "when it is mended, run again: the run goes on where it stopped"
                    )
        finally:
            self.stopping.set()  # threads that wait to ask again hold up the end of the process

    def load(self, clip: Clip) -> tuple[Captioned, Sequence[str]]:
        """Ask; runs in as many threads as there may be requests at once."""
        from distime.annotate.frames import look

        sample = look(clip.path, self.settings.fps, self.settings.max_frames)
        captions, notes = self._captions(self._body(sample), clip)
        return Captioned(clip.video, sample.duration, tuple(captions)), [*sample.warnings, *notes]

    def answer(
        self, clip: Clip, loaded: tuple[Captioned, Sequence[str]]
    ) -> tuple[Captioned, Sequence[str]]:
        """See `Annotator.answer`."""
        return loaded

    # ------------------------------------------------------------------ asking

    def _body(self, sample: VideoSample) -> bytes:
        words = self.prompt.format(
            frames=len(sample.frames),
            seconds=round(sample.duration),
            events=self.settings.events_per_video,
        )
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": self._data_url(frame)}}
            for frame in sample.frames
        ]
        content.append({"type": "text", "text": words})
        return json.dumps(
            {
                "model": self.target,
                "messages": [{"role": "user", "content": content}],
                "temperature": 0,
                "max_tokens": self.settings.max_new_tokens,
            }
        ).encode()

    def _data_url(self, frame: Any) -> str:
        from PIL import Image

        picture = Image.fromarray(frame)
        picture.thumbnail((self.settings.picture_side,) * 2)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

    def _captions(self, body: bytes, clip: Clip) -> tuple[list[Caption], list[str]]:
        """Ask until there is an answer with captions in it; garbage is asked again, too."""
        if len(body) > MAX_REQUEST:
            raise UnusableError(
                f"the request is {len(body) / 2**20:.0f} MiB, more than {MAX_REQUEST // 2**20}: "
                "give fewer --max-frames or a smaller --picture-side"
            )
        kept = self._cached(body)
        if kept.is_file():
            return read_captions(json.loads(kept.read_text(encoding="utf-8"))["answer"])
        failures: list[str] = []
        while True:
            try:
                answer, captions, notes = self._post(body)
            except _TryAgainError as error:
                failures.append(str(error))
                pause = error.pause
            else:
                write_json(kept, {"model": self.target, "answer": answer})
                return captions, [*notes, *self._tried(failures)]
            if len(failures) > self.settings.retries:
                raise UnusableError("; ".join(self._tried(failures)))
            pause = pause or FIRST_PAUSE * 2 ** (len(failures) - 1) * random.uniform(0.5, 1)
            logger.info("%s: %s; asked again", clip.video, failures[-1])
            if self.stopping.wait(min(pause, LONGEST_PAUSE)):
                raise UnusableError("the run stopped before it was answered")

    @staticmethod
    def _tried(failures: Sequence[str]) -> list[str]:
        if not failures:
            return []
        times = f"{len(failures)} requests" if len(failures) > 1 else "1 request"
        return [f"{times} to the endpoint failed, last: {failures[-1]}"]

    def _cached(self, body: bytes) -> Path:
        digest = hashlib.sha256(body).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"

    def _post(self, body: bytes) -> tuple[str, list[Caption], list[str]]:
        """Return the answer's words, its captions, and notes on what was none.

        Raises:
            _TryAgainError: the same request may succeed later.
            UnusableError: it will not, but others may.
            EndpointError: none will.
        """
        status, headers, content = self._exchange(body)
        said = printable(content[:200].decode("utf-8", "replace"))
        if status in AGAIN or status >= 500:
            raise _TryAgainError(f"status {status}: {said}", _asked_pause(headers))
        if status in SETTINGS_ARE_WRONG:
            raise EndpointError(
                f"{self.flag}: {self.url} answers {status}: {said}; {SETTINGS_ARE_WRONG[status]}"
            )
        if status != 200:
            raise UnusableError(f"the endpoint refuses the request, status {status}: {said}")
        try:
            answer = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise _TryAgainError(f"the answer is no chat completion: {said}") from None
        if not isinstance(answer, str) or not answer.strip():
            raise _TryAgainError("the answer is empty")
        try:
            return answer, *read_captions(answer)
        except UnusableError as error:
            raise _TryAgainError(str(error)) from None

    def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; return status, headers and content of the reply, all of it in time."""
        seconds = self.settings.timeout
        end = time.monotonic() + seconds
        request = urllib.request.Request(
            f"{self.url}/chat/completions",
            data=body,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
        )
        content = bytearray()
        try:
            try:
                reply = urllib.request.urlopen(request, timeout=seconds)
            except urllib.error.HTTPError as error:
                reply = error  # a reply like any other, with another status
            with reply:
                while piece := reply.read1(2**16):
                    content += piece
                    if time.monotonic() > end:
                        raise _TryAgainError(f"no whole answer in {seconds:g} s")
                    if len(content) > MAX_REPLY:
                        raise UnusableError(f"the endpoint's answer has over {MAX_REPLY} bytes")
                return reply.status, reply.headers, bytes(content)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise _TryAgainError(f"no answer in {seconds:g} s") from None
            raise _TryAgainError(f"no connection ({printable(str(reason))})") from None


class _TryAgainError(Exception):
    """A request failed, and may succeed after a pause, in seconds (0: as we see fit)."""

    def __init__(self, message: str, pause: float = 0.0):
        super().__init__(message)
        self.pause = pause


def _asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds that the endpoint asks to wait; 0 where it does not say."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
