"""Small synthetic videos whose events are known exactly: coloured shapes on a textured background.

In each video of 20 to 40 seconds, one to four shapes appear one after the other, move and vanish;
no two have the same colour, so that "the red square is visible" names one event. A video, from its
events to the bytes of its file, is a pure function of one seed::

    specs = write_videos("videos/train", count=400, seed=0)

They show that a whole training and evaluation run works and learns; they say nothing about real
video.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from distime.processing.video import encode_video

logger = logging.getLogger(__name__)

SIZE = 96  # pixels, width and height
FPS = 8
SECONDS = (20, 40)  # of a video
EVENT_SECONDS = (3, 10)
MAX_EVENTS = 4
GAP = FPS // 2  # frames between two events, at least

COLORS = {
    "red": (225, 35, 35),
    "green": (30, 170, 50),
    "blue": (40, 70, 235),
    "yellow": (240, 225, 40),
    "purple": (150, 40, 190),
    "orange": (245, 135, 20),
    "cyan": (40, 215, 225),
    "white": (250, 250, 250),
}
SHAPES = ("square", "circle", "triangle", "diamond", "cross", "ring")

# Seeds of different sets never meet: set `seed` has the videos seed * STRIDE + 0, 1, 2, ...
STRIDE = 1_000_000


@dataclass(frozen=True)
class ShapeEvent:
    """A shape on the screen; it is visible in the frames with start <= time < end (seconds)."""

    color: str
    shape: str
    start: float
    end: float

    @property
    def query(self) -> str:
        """The sentence that describes the event."""
        return f"the {self.color} {self.shape} is visible."


@dataclass(frozen=True)
class SyntheticVideo:
    """What happens in a synthetic video: `duration` in seconds, `size` in pixels, `fps` frames/s.

    The video's file is ``<name>.mp4``; `seed` also fixes the background and the movement.
    """

    name: str
    seed: int
    duration: float
    fps: int
    size: int
    events: tuple[ShapeEvent, ...]

    @property
    def file_name(self) -> str:
        """The name of the video's file."""
        return f"{self.name}.mp4"

    @property
    def num_frames(self) -> int:
        """The number of frames."""
        return round(self.duration * self.fps)

    def to_dict(self) -> dict:
        """Return the video as plain JSON types."""
        return {**asdict(self), "events": [asdict(event) for event in self.events]}

    @classmethod
    def from_dict(cls, values: dict) -> SyntheticVideo:
        """Rebuild a video from `to_dict`."""
        events = tuple(ShapeEvent(**event) for event in values["events"])
        return cls(**{**values, "events": events})


def make_video(seed: int) -> SyntheticVideo:
    """Invent the video of a seed (0 or more): its length, events, colours and shapes."""
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    rng = random.Random(seed)
    total = rng.randint(SECONDS[0] * FPS, SECONDS[1] * FPS)
    count = rng.randint(1, MAX_EVENTS)
    # Draw lengths until they leave a tenth of the video empty beside the gaps.
    while True:
        lengths = [rng.randint(*(FPS * s for s in EVENT_SECONDS)) for _ in range(count)]
        free = total - sum(lengths) - GAP * (count - 1)
        if free >= total // 10:
            break
    colors = rng.sample(sorted(COLORS), count)
    # Cutting the free time at random places spreads the events evenly over the video.
    cuts = sorted(rng.randint(0, free) for _ in range(count))
    events = []
    for i, (cut, length, color) in enumerate(zip(cuts, lengths, colors, strict=True)):
        start = cut + sum(lengths[:i]) + GAP * i
        shape = rng.choice(SHAPES)
        events.append(ShapeEvent(color, shape, start / FPS, (start + length) / FPS))
    return SyntheticVideo(f"shapes_{seed:09d}", seed, total / FPS, FPS, SIZE, tuple(events))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a still grey texture with a faint tint, uint8 (size, size, 3)."""
    coarse = rng.uniform(-1, 1, (9, 9))
    grid = np.linspace(0, 8, size)
    rows = np.array([np.interp(grid, np.arange(9), row) for row in coarse])
    smooth = np.array([np.interp(grid, np.arange(9), column) for column in rows.T]).T
    grain = rng.uniform(-1, 1, (size, size))
    tint = rng.uniform(-8, 8, 3)
    level = rng.uniform(85, 125)
    texture = level + 28 * smooth + 10 * grain
    return np.clip(texture[:, :, None] + tint, 0, 255).astype(np.uint8)


def _mask(shape: str, side: int) -> np.ndarray:
    """Return where the shape is in a square of `side` pixels, bool (side, side)."""
    axis = (np.arange(side) + 0.5) / side * 2 - 1  # -1 to 1
    x, y = axis[None, :], axis[:, None]
    radius = np.hypot(x, y)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.9
    if shape == "circle":
        return radius <= 1
    if shape == "triangle":
        return abs(x) <= (y + 1) / 2
    if shape == "diamond":
        return abs(x) + abs(y) <= 1
    if shape == "cross":
        return np.minimum(abs(x), abs(y)) + 0 * radius <= 0.35
    if shape == "ring":
        return (radius <= 1) & (radius >= 0.5)
    raise ValueError(f"no shape {shape!r}; choose one of {', '.join(SHAPES)}")


def _bounce(position: np.ndarray, room: int) -> np.ndarray:
    """Reflect positions on a line at 0 and `room`, and round them to pixels."""
    return np.rint(room - abs(position % (2 * room) - room)).astype(int)


def render(spec: SyntheticVideo) -> np.ndarray:
    """Draw all frames of a video, uint8 RGB ``(num_frames, size, size, 3)``."""
    frames = np.repeat(
        _background(np.random.default_rng([spec.seed, 0]), spec.size)[None], spec.num_frames, 0
    )
    for number, event in enumerate(spec.events, start=1):
        rng = np.random.default_rng([spec.seed, number])
        side = int(rng.integers(spec.size * 5 // 16, spec.size * 15 // 32))  # 30 to 44 of 96
        room = spec.size - side
        angle, speed = rng.uniform(0, 2 * math.pi), rng.uniform(5, 15)  # pixels a second
        first, end = round(event.start * spec.fps), round(event.end * spec.fps)
        seconds = np.arange(end - first) / spec.fps
        left = _bounce(rng.uniform(0, room) + speed * math.cos(angle) * seconds, room)
        top = _bounce(rng.uniform(0, room) + speed * math.sin(angle) * seconds, room)
        mask = _mask(event.shape, side)
        color = COLORS[event.color]
        for frame, x, y in zip(frames[first:end], left, top, strict=True):
            frame[y : y + side, x : x + side][mask] = color
    return frames


def _is_complete(path: Path, comment: str) -> bool:
    """Tell whether a file is there and was written for just this video."""
    try:
        with av.open(f"file:{path}") as container:
            return container.metadata.get("comment") == comment
    except (av.error.FFmpegError, OSError):
        return False


def write_video(spec: SyntheticVideo, out_dir: str | Path) -> Path:
    """Write the video's mp4 file into a folder, unless it is already there; return its path."""
    path = Path(out_dir) / spec.file_name
    comment = json.dumps(spec.to_dict(), separators=(",", ":"))
    if not _is_complete(path, comment):
        encode_video(path, render(spec), spec.fps, crf=30, comment=comment)
    return path


def _write_task(task: tuple[SyntheticVideo, Path]) -> None:
    write_video(*task)


def write_videos(
    out_dir: str | Path, count: int, seed: int = 0, workers: int = 2
) -> list[SyntheticVideo]:
    """Write the first `count` videos of the set `seed` into a folder and return what they show.

    Sets of different seeds share no video. Complete files are kept, so an interrupted call can be
    repeated; `workers` processes write at once (1: this process alone).
    """
    if not 0 <= count <= STRIDE:
        raise ValueError(f"count {count} is not between 0 and {STRIDE}")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    specs = [make_video(seed * STRIDE + i) for i in range(count)]
    tasks = [(spec, out_dir) for spec in specs]
    progress = {"total": count, "desc": f"videos in {out_dir.name}", "unit": "video"}
    if workers <= 1 or count <= 1:
        for task in tqdm(tasks, **progress):
            _write_task(task)
    else:
        # Fresh processes: forking one that runs threads (torch, BLAS) can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, count), mp_context=context) as pool:
            for _ in tqdm(pool.map(_write_task, tasks, chunksize=8), **progress):
                pass
    logger.info("%d synthetic videos in %s", count, out_dir)
    return specs
