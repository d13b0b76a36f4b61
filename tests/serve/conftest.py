"""A server on a free port, with a tiny checkpoint behind it."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from answering import write_answering_checkpoint, write_example_videos
from distime import DisTime
from distime.serve.serve_settings import ServeSettings


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return write_answering_checkpoint(tmp_path_factory.mktemp("serve") / "checkpoint")


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> list[Path]:
    return [path for path, _ in write_example_videos(tmp_path_factory.mktemp("roots"), 3)]


@pytest.fixture(scope="session")
def model(folder) -> DisTime:
    return DisTime.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="session")
def serving(folder):
    """Start a server with these settings; gives its address."""
    import uvicorn

    from distime.serve.app import make_app

    @contextlib.contextmanager
    def start(**settings) -> Iterator[str]:
        served = DisTime.from_pretrained(folder, device="cpu")
        app = make_app(served, ServeSettings(max_new_tokens=12, **settings))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

    return start


@pytest.fixture(scope="module")
def address(serving, videos) -> Iterator[str]:
    with serving(roots=(videos[0].parent,), max_megabytes=1) as address:
        yield address


def data_url(path: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def message(url: str, text: str) -> dict:
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}
