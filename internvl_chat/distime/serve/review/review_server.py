"""The server of the review page: Python's own, so that nothing needs to be installed for it.

It gives out the page, the lists, and the videos of the annotation by their numbers: a request names
no file. What browsers do not play is shown as a copy, which lies in a temporary folder.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from distime.annotate.verdicts import Outdated
from distime.errors import DisTimeError
from distime.serve.demo.preview import plays_in_browsers, write_preview
from distime.serve.review.worklist import FOLDER, WORST, ReviewError, Worklist

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("review.html")
_MOST_BYTES = 64_000  # of a request
_MOST_ROWS = 200
_TYPES = {".webm": "video/webm"}


@contextmanager
def reviewing(
    folder: Path, videos: Path | None = None, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Serve the review page of an annotation while the context lasts.

    Args:
        folder: of the annotation; decisions are written there.
        videos: folder of the videos, if they are no longer where they were.
        host: address to listen on.
        port: 0 for any that is free.

    Yields:
        the address of the page.

    Raises:
        ReviewError: there is nothing to review, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="distime-review-") as copies:
        try:
            server = ReviewServer((host, port), Worklist(folder, videos), Path(copies))
        except OSError as error:
            raise ReviewError(f"cannot listen on {host}, port {port}: {error}") from None
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class ReviewServer(ThreadingHTTPServer):
    """Serves one annotation to any number of people.

    Args:
        address: host and port.
        worklist: what there is to review.
        copies: folder for copies of videos that browsers do not play.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], worklist: Worklist, copies: Path):
        super().__init__(address, ReviewHandler)
        self.worklist, self.copies = worklist, copies
        self.is_local = _is_loopback(address[0])
        self._copying = threading.Lock()

    def playable(self, number: int) -> Path:
        """Return a video that browsers play: the file itself, or a copy.

        Raises:
            ReviewError, VideoError: it cannot be shown.
        """
        path = self.worklist.path(number)
        if plays_in_browsers(path):
            return path
        copy = self.copies / f"{number}.mp4"
        with self._copying:
            if not copy.exists():
                write_preview(path, copy)
        return copy


class ReviewHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: ReviewServer

    def do_GET(self) -> None:
        """Give out the page, a list, a video's events, or the video."""
        url = urlsplit(self.path)
        first, _, number = url.path[1:].partition("/")
        with self._answering():
            if not url.path.strip("/"):
                self._give("text/html; charset=utf-8", PAGE.read_bytes())
            elif url.path == "/list":
                self._give_json(self._list(parse_qs(url.query)))
            elif first == "video" and number.isdigit():
                self._give_json(self.server.worklist.video(int(number)))
            elif first == "media" and number.isdigit():
                self._give_file(self.server.playable(int(number)))
            else:
                self._give_json({"error": "there is nothing here"}, 404)

    def do_POST(self) -> None:
        """Keep a decision."""
        with self._answering():
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > _MOST_BYTES:
                self.close_connection = True
                self._give_json({"error": f"at most {_MOST_BYTES} bytes are taken here"}, 413)
                return
            body = self.rfile.read(int(length))
            # A page of another site can send neither this type nor our own origin.
            kind = self.headers.get_content_type()
            origin = self.headers.get("Origin")
            if kind != "application/json" or (
                origin is not None and urlsplit(origin).netloc != self.headers.get("Host")
            ):
                self._give_json({"error": "decisions come from the page of this server"}, 403)
                return
            if self.path != "/decide":
                self._give_json({"error": "there is nothing here"}, 404)
                return
            try:
                request = json.loads(body)
            except (ValueError, RecursionError):
                raise ReviewError("a decision is a JSON object") from None
            if not isinstance(request, dict):
                raise ReviewError("a decision is a JSON object")
            self._give_json(self.server.worklist.decide(request).to_dict())

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        order = query.get("order", [WORST])[0]
        numbers = [
            query.get(name, [default])[0] for name, default in (("offset", "0"), ("count", "50"))
        ]
        if order not in (WORST, FOLDER) or not all(n.isdigit() for n in numbers):
            raise ReviewError(f"order is {WORST} or {FOLDER}, offset and count are numbers")
        offset, count = map(int, numbers)
        return self.server.worklist.page(order, "open" in query, offset, min(count, _MOST_ROWS))

    # ------------------------------------------------------------------------------- answering

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn errors into answers."""
        try:
            # A name that somebody else made lead here must not read what is here.
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            if self.server.is_local and not _is_loopback(name):
                self.close_connection = True
                self._give_json({"error": "this server answers to its own name"}, 403)
                return
            yield
        except Outdated as error:
            self._give_json({"error": str(error), "verdict": error.verdict.to_dict()}, 409)
        except DisTimeError as error:
            root = f"{self.server.worklist.root}/"
            self._give_json({"error": str(error).replace(root, "")}, 400)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception:
            logger.exception("a request failed")
            self.close_connection = True
            with suppress(OSError):
                self._give_json({"error": "something failed here; the log says what"}, 500)

    def _give_json(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value, ensure_ascii=False).encode(errors="replace")
        self._give("application/json", content, status)

    def _give(self, kind: str, content: bytes, status: int = 200) -> None:
        self._head(status, kind, len(content), {"Cache-Control": "no-store"})
        self.wfile.write(content)

    def _give_file(self, path: Path) -> None:
        """Give out a file, or the range of it that is asked for, as players do to seek."""
        size = path.stat().st_size
        kind = _TYPES.get(path.suffix.lower(), "video/mp4")
        start, end = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d+-\d*|-\d+)", self.headers.get("Range", ""))
        if asked:
            first, _, last = asked[1].partition("-")
            start = int(first) if first else max(size - int(last), 0)
            end = min(int(last), size - 1) if first and last else size - 1
            if start > end:
                self._head(416, kind, 0, {"Content-Range": f"bytes */{size}"})
                return
        headers = {"Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        self._head(206 if asked else 200, kind, end - start + 1, headers)
        with path.open("rb") as file:
            file.seek(start)
            left = end - start + 1
            while left and (piece := file.read(min(left, 1 << 20))):
                self.wfile.write(piece)
                left -= len(piece)

    def _head(self, status: int, kind: str, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, form: str, *values: Any) -> None:
        """Log a request where somebody listens, and not on the terminal."""
        logger.debug(form, *values)


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
