"""Throughput of the server: clients at once against one request at a time.

    python benchmarks/serving.py                    the model in ../shared/bench
    python benchmarks/serving.py --config FOLDER    another folder with the same files

The folder holds `config.json` and tokenizer files as for `benchmarks/evaluation.py`; weights are
random, videos synthetic. Server and clients share one process and one thread of computation; every
request is about a video of its own. The last line is the ratio of requests a CPU second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import torch
import uvicorn

from distime import DisTime
from distime.serve.app import make_app
from distime.serve.serve_settings import ServeSettings
from distime.toy.synthetic import make_video, write_video
from evaluation import FRAME, build
from models import BENCH, bench_folder


class Server:
    """A server on a free port, in a thread, as long as the `with` block lasts."""

    def __init__(self, model: DisTime, settings: ServeSettings):
        app = make_app(model, settings)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()


def ask(address: str, bodies: list[dict], clients: int) -> tuple[float, float, list]:
    """Send all requests, so many at once; CPU seconds of the process, seconds, and the replies."""
    with (
        httpx.Client(base_url=address, timeout=3600) as client,
        ThreadPoolExecutor(clients) as pool,
    ):
        cpu, start = time.process_time(), time.perf_counter()
        replies = list(pool.map(lambda body: client.post("/v1/ground", json=body), bodies))
        spent = time.process_time() - cpu, time.perf_counter() - start
    return *spent, [reply.raise_for_status().json()["results"] for reply in replies]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=BENCH, help="folder, or its config.json")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--frames", type=int, default=2, help="of every video")
    parser.add_argument("--tokens", type=int, default=32, help="of every answer, at most")
    args = parser.parse_args()
    folder, inputs = bench_folder(args.config)
    torch.set_num_threads(1)
    processor, model = build(folder)
    questions = inputs["questions"]
    with tempfile.TemporaryDirectory() as root:
        videos = [write_video(make_video(seed), Path(root)).name for seed in range(4)]
        bodies = [
            {
                "video": videos[number % len(videos)],
                "queries": [questions[number % len(questions)].split(FRAME)[-1]],
                "num_frames": args.frames,
                "max_tokens": args.tokens,
            }
            for number in range(args.requests)
        ]
        settings = ServeSettings(roots=(Path(root),))
        with Server(DisTime(model, processor), settings) as address:
            ask(address, bodies[:1], 1)
            one_cpu, one_wall, expected = ask(address, bodies, 1)
            cpu, wall, found = ask(address, bodies, args.clients)
    for one, other in zip(expected, found, strict=True):
        assert [answer["text"] for answer in one] == [answer["text"] for answer in other]
    print(f"{model.num_parameters():,} parameters, {args.frames} frames, one thread")
    print("clients  requests  CPU s  seconds")
    for clients, spent, seconds in ((1, one_cpu, one_wall), (args.clients, cpu, wall)):
        print(f"{clients:7}  {args.requests:8}  {spent:5.1f}  {seconds:7.1f}")
    print(f"throughput ratio: {one_cpu / cpu:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
