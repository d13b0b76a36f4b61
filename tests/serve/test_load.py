"""Many clients at once, a fifth of whom are broken or leave; and the end of a server at work."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from answering import QUERIES
from serve.conftest import data_url

pytest.importorskip("fastapi", reason='pip install "distime[serve]"')

REQUESTS, CLIENTS, ROUNDS = 200, 32, 3
LEFT_BEHIND = 32 * 2**20
"""Bytes by which the server's memory may grow after the first round: what its allocator keeps."""


@pytest.fixture(scope="module")
def server(folder, videos, tmp_path_factory):
    """A server in a process of its own: its address, the process, and its folder for uploads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uploads = tmp_path_factory.mktemp("uploads")
    command = [sys.executable, "-m", "distime.cli", "serve", "--checkpoint", str(folder)]
    command += ["--root", str(videos[0].parent), "--port", str(port), "--max-megabytes", "1"]
    environment = os.environ | {"TMPDIR": str(uploads)}
    said = tmp_path_factory.mktemp("server") / "stderr.txt"
    address = f"http://127.0.0.1:{port}"
    with said.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env=environment)
        try:
            _wait(process, lambda: httpx.get(f"{address}/health").is_success)
            yield address, process, uploads
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in said.read_text()


def answered(address: str) -> int:
    """How many requests for moments the server counts as answered."""
    said = httpx.get(f"{address}/metrics").text
    line = re.search(r'requests_total{route="/v1/ground",status="200"} ([\d.]+)', said)
    return int(float(line[1])) if line else 0


def held(process: subprocess.Popen) -> dict[str, int]:
    """What a process holds of all that may leak."""
    known = Path(f"/proc/{process.pid}")
    return {
        "threads": len(list((known / "task").iterdir())),
        "files": len(list((known / "fd").iterdir())),
        "bytes": int((known / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
    }


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_load(server, model, videos):
    """Every good request is answered rightly and once, every bad one refused; nothing is left."""
    address, process, uploads = server
    asked = [(video, query) for video in videos for query in QUERIES]
    expected = {
        (video, query): [e.start for e in model.ground(video, query, max_new_tokens=12)]
        for video, query in asked
    }
    urls = {video: [data_url(video), video.name] for video in videos}
    broken = [
        {"video": "data:video/mp4;base64,%%%", "queries": ["q"]},
        {"queries": ["q"]},
        {"video": "x" * 3_000_000, "queries": ["q"]},
        {"video": data_url(Path(__file__)), "queries": ["q"]},
        None,  # the client leaves
    ]
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=0)

    def one(client: httpx.Client, number: int) -> bool:
        """Send a request; say whether it was a good one."""
        chance = random.Random(number)
        if number % 5 == 0:
            body = broken[number // 5 % len(broken)]
            if body is None:
                body = {"video": urls[videos[0]][0], "queries": QUERIES}
                with pytest.raises(httpx.TimeoutException):
                    client.post("/v1/ground", json=body, timeout=0.01)
                return False
            assert 400 <= client.post("/v1/ground", json=body).status_code < 500
            return False
        video, query = chance.choice(asked)
        body = {"video": chance.choice(urls[video]), "queries": [query], "max_tokens": 12}
        reply = client.post("/v1/ground", json=body)
        assert reply.status_code == 200, reply.text
        (result,) = reply.json()["results"]
        starts = [event["start"] for event in result["events"]]
        assert starts == pytest.approx(expected[video, query], abs=1e-4)
        return True

    rounds = []
    for _ in range(ROUNDS):
        before = answered(address)
        client = httpx.Client(base_url=address, timeout=120, limits=limits)
        with client, ThreadPoolExecutor(CLIENTS) as pool:
            good = sum(pool.map(partial(one, client), range(REQUESTS)))
        assert good == REQUESTS * 4 // 5
        # What a client that left had asked may only just have been read.
        _wait(
            process,
            lambda: (
                not any(uploads.iterdir())
                and not httpx.get(f"{address}/health").json()["unfinished"]
            ),
        )
        # The few whose client left just after the answer was there may count, too.
        assert good <= answered(address) - before <= good + REQUESTS // 25
        rounds.append(held(process))
    first, *others = rounds
    for later in others:
        assert later["threads"] <= first["threads"] + 1, rounds
        assert later["files"] <= first["files"] + 4, rounds
        assert later["bytes"] <= first["bytes"] + LEFT_BEHIND, rounds


def test_a_terminated_server_finishes_what_runs(server, videos):
    """The last test of this server, since it ends it."""
    address, process, _ = server
    count = 8
    body = {"video": videos[0].name, "queries": QUERIES, "num_frames": 48, "max_tokens": 24}
    with ThreadPoolExecutor(count) as pool:
        asked = [
            pool.submit(httpx.post, f"{address}/v1/ground", json=body, timeout=120)
            for _ in range(count)
        ]

        def all_came() -> bool:
            unfinished = httpx.get(f"{address}/health").json()["unfinished"]
            return unfinished + sum(one.done() for one in asked) == count

        _wait(process, all_came)
        assert not all(one.done() for one in asked)
        process.send_signal(signal.SIGTERM)
        replies = [one.result().json() for one in asked]
    assert all(len(reply["results"]) == 3 and reply["duration"] for reply in replies)
    assert process.wait(60) in (0, -signal.SIGTERM)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def _wait(process: subprocess.Popen, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        try:
            if until():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
