"""Which videos a request may name, and how they come to the machine.

A video is what a data URL holds, a file below one of the operator's roots, or, where the operator
allows it, the content of a public address. Nothing else is opened: FFmpeg is given a file of our
own or below a root, whose first bytes are those of a video.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import ipaddress
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from distime.errors import DisTimeError
from distime.processing.video import looks_like_video
from distime.serve.serve_settings import ServeSettings


class RefusedVideo(DisTimeError):
    """A request names a video that is not to be had here; the message tells no path."""


@contextlib.contextmanager
def video_file(url: str, settings: ServeSettings) -> Iterator[Path]:
    """Give the file of a video; what was uploaded or fetched is removed afterwards.

    Args:
        url: `data:...;base64,...`, `file:` with a path, a path, or `http(s):`.
        settings: says what is allowed.

    Raises:
        RefusedVideo: it is not allowed, not there, too large or no video.
    """
    scheme = urlsplit(url[:200]).scheme.lower() if ":" in url[:200] else ""
    if scheme in ("data", "http", "https"):
        with tempfile.TemporaryDirectory(prefix="distime-") as folder:
            path = Path(folder) / "video"
            if scheme == "data":
                path.write_bytes(_decoded(url, settings))
            else:
                _fetch(url, path, settings)
            yield _checked(path)
        return
    if scheme not in ("", "file"):
        raise RefusedVideo("video_url: give a data URL, a file, or an http address")
    yield _checked(_below_a_root(url, settings))


def _decoded(url: str, settings: ServeSettings) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise RefusedVideo("video_url: a data URL must be data:video/mp4;base64,...")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedVideo("video_url: this is not base64") from None
    if len(content) > settings.max_megabytes * 1e6:
        raise RefusedVideo(f"video_url: at most {settings.max_megabytes} MB are taken here")
    return content


def _below_a_root(url: str, settings: ServeSettings) -> Path:
    named = unquote(urlsplit(url).path) if url.lower().startswith("file:") else url
    if "\0" in named:
        raise RefusedVideo("video_url: no such video here")
    for root in (root.resolve() for root in settings.roots):
        try:
            path = (root / named).resolve()
            inside = path.is_relative_to(root) and path.is_file()
        except (OSError, ValueError):  # a name that is too long, say
            continue
        if inside:
            if path.stat().st_size > settings.max_megabytes * 1e6:
                raise RefusedVideo(f"video_url: at most {settings.max_megabytes} MB are taken here")
            return path
    # Whether the file exists elsewhere is nobody's business.
    raise RefusedVideo("video_url: no such video here")


def _checked(path: Path) -> Path:
    if not looks_like_video(path):
        raise RefusedVideo("video_url: this is no video of a known type (mp4, mov, webm, mkv, ...)")
    return path


def _fetch(url: str, path: Path, settings: ServeSettings) -> None:
    """Download from a public address, which is looked up once and then used."""
    if not settings.allow_remote:
        raise RefusedVideo("video_url: addresses are not fetched here; upload the video")
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = socket.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError):
        raise RefusedVideo("video_url: no such host") from None
    addresses = {entry[4][0] for entry in found}
    if not addresses or not all(ipaddress.ip_address(one).is_global for one in addresses):
        raise RefusedVideo("video_url: only public addresses are fetched")
    limit, deadline = int(settings.max_megabytes * 1e6), time.monotonic() + settings.timeout
    try:
        with contextlib.closing(_connection(parts, sorted(addresses)[0], port)) as connection:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target or "/", headers={"Host": parts.netloc})
            response = connection.getresponse()
            if response.status != 200:
                raise RefusedVideo(f"video_url: the address answers {response.status}, not 200")
            size = 0
            with path.open("wb") as file:
                while block := response.read(1 << 20):
                    size += len(block)
                    if size > limit:
                        raise RefusedVideo(
                            f"video_url: at most {settings.max_megabytes} MB are taken here"
                        )
                    if time.monotonic() > deadline:
                        raise RefusedVideo("video_url: the address took too long")
                    file.write(block)
    except (OSError, http.client.HTTPException):
        raise RefusedVideo("video_url: the address cannot be read") from None


def _connection(parts, address: str, port: int) -> http.client.HTTPConnection:
    """A connection to just this address: a second look-up could give a private one."""
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=20)
    connection.sock = socket.create_connection((address, port), timeout=20)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
    return connection
