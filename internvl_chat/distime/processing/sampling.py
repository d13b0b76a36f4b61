"""Which frames of a video the model sees, and the times it is told for them.

Three published rules pick ``num_frames`` indices from a video of ``total`` frames by counting them:

* ``eval``: about the centres of equal segments, optionally inside a bound of seconds;
* ``train``: one random frame from each of ``num_frames`` segments;
* ``midpoints``: the midpoints of equal segments, repeated when the video is too short.

Where the frame rate varies, frames counted evenly are not spread evenly over the time (a screen
recording may have all its frames in its last seconds): ``by_time`` goes by seconds there, and is
``eval`` (with a random generator: ``train``) everywhere else.

A rule is a function under :func:`sampler`; :func:`sample_video` opens a file, applies one and
decodes the chosen frames in one call, :func:`sample_reader` does it for an open reader.

Frame times are rounded to 0.01 s, as the published weights saw them. A constant-rate video has the
times ``index / fps`` and the duration ``total / fps``; any other has the times in its file.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distime.processing.video import VideoError, VideoReader, open_video

logger = logging.getLogger(__name__)

Bound = tuple[float, float]
"""(start, end) in seconds from the first frame."""


class PublishedRandom(random.Random):
    """The random stream of the published training code, for runs that must repeat its draws.

    It is Python's generator, apart from `sample`, which the published code took from NumPy's legacy
    generator with the same seed (it matters only for videos with about as few frames as wanted).
    """

    def __init__(self, seed: int):
        super().__init__(seed)
        self._numpy = np.random.RandomState(seed)

    def sample(self, population, k, *, counts=None):
        """Return the first `k` members of a random permutation of `population`."""
        if counts is not None:
            raise ValueError("PublishedRandom.sample has no counts")
        order = self._numpy.permutation(len(population))
        return [population[i] for i in order[:k]]


@dataclass(frozen=True)
class VideoSample:
    """The frames chosen from a video, and when they are.

    `frames` is uint8 RGB ``(n, H, W, 3)``; `times` has one time per frame in seconds, rounded to
    0.01, 0 being the start of the video; `duration` is that of the whole video in seconds, also
    when the frames come from a part of it; `indices` counts the frames of the file from 0.
    `start` is when the first frame of the file is shown on the clock of players, in seconds: what
    people are told is `start` later than the model's times. `warnings` says what is wrong with the
    file or the choice, one line each.

    Raises VideoError for frames of another kind, or numbers that do not fit.
    """

    frames: np.ndarray
    times: list[float]
    duration: float
    indices: list[int]
    start: float = 0.0
    warnings: tuple[str, ...] = ()

    def __post_init__(self):
        frames = self.frames
        if not isinstance(frames, np.ndarray):
            kind = type(frames).__name__
        elif frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            kind = f"{frames.dtype} {frames.shape}"
        else:
            kind = ""
        if kind:
            raise VideoError(
                f"frames in memory are a NumPy array, uint8 RGB (n, height, width, 3), not {kind}"
            )
        if len(self.times) != len(frames) or not len(frames):
            raise VideoError(f"{len(frames)} frames in memory and {len(self.times)} times of them")
        if not (math.isfinite(self.duration) and self.duration > 0):
            raise VideoError(f"frames in memory of a video of {self.duration} s: give its length")


def _check_counts(total: int, num_frames: int) -> None:
    if total < 1:
        raise ValueError(f"cannot sample from {total} frames; a video needs at least one")
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; ask for at least one frame")


def seconds_to_index(seconds: float, fps: float, timestamps: Sequence[float] | None = None) -> int:
    """Return the index of the frame nearest to `seconds`.

    Without `timestamps` (seconds of every frame, ascending) the rate is constant and the answer is
    the published ``round(seconds * fps)``, which may lie outside the video.
    """
    if not math.isfinite(seconds):
        raise ValueError(f"a bound of {seconds} seconds is no time; pass None for the whole video")
    if timestamps is None:
        return round(seconds * fps)
    times = np.asarray(timestamps, dtype=np.float64)
    right = int(np.searchsorted(times, seconds))
    if right == 0:
        return 0
    if right == len(times):
        return len(times) - 1
    # A tie goes to the even index, as round() does on a constant rate.
    before, after = seconds - times[right - 1], times[right] - seconds
    if before == after:
        return right if right % 2 == 0 else right - 1
    return right if after < before else right - 1


def eval_frame_indices(
    total: int,
    num_frames: int,
    *,
    fps: float = 0.0,
    bound: tuple[float, float] | None = None,
    first_index: int = 0,
    timestamps: Sequence[float] | None = None,
) -> list[int]:
    """Pick `num_frames` of `total` frames by the published evaluation rule.

    `bound` is (start, end) in seconds, converted with `fps`, or with `timestamps` where the rate
    varies. Frames are numbered from `first_index` (1 in folders of numbered images), and so are the
    answers. They are ascending unless the bound is reversed, may repeat, and always lie inside the
    video: the published rule leaves it when the bound does.

    Raises ValueError for no frames, no rate with a bound, or a bound that is not finite.
    """
    _check_counts(total, num_frames)
    last = total - 1 + first_index
    start, end = first_index, last
    if bound is not None:
        if timestamps is None and not fps > 0:
            raise ValueError(f"a bound in seconds needs a frame rate above 0, not {fps}")
        start, end = (
            min(max(seconds_to_index(seconds, fps, timestamps), first_index), last)
            for seconds in bound
        )
    segment = (end - start) / num_frames
    indices = [int(start + segment / 2 + np.round(segment * i)) for i in range(num_frames)]
    return [min(max(index, first_index), last) for index in indices]


def midpoint_frame_indices(total: int, num_frames: int) -> list[int]:
    """Pick the midpoints of `num_frames` equal segments of `total` frames.

    A video with fewer frames gives each once, then its last again.
    """
    _check_counts(total, num_frames)
    wanted = min(num_frames, total)
    edges = np.linspace(0, total, wanted + 1).astype(int).tolist()
    indices = [(edges[i] + edges[i + 1] - 1) // 2 for i in range(wanted)]
    return indices + [indices[-1]] * (num_frames - wanted)


def train_segments(total: int, num_frames: int) -> list[tuple[int, int]]:
    """Split `total` frames into at most `num_frames` segments (first frame, last frame)."""
    _check_counts(total, num_frames)
    edges = np.linspace(0, total, min(num_frames, total) + 1).astype(int).tolist()
    return [(edges[i], edges[i + 1] - 1) for i in range(len(edges) - 1)]


def train_frame_indices(total: int, num_frames: int, rng: random.Random | None = None) -> list[int]:
    """Pick `num_frames` of `total` frames by the published training rule.

    With `rng`, one random frame per segment; the last frame of a segment is never drawn, and where
    a segment has but one frame a sorted random subset of all frames is taken instead. Without
    `rng`, the middle frame of each segment. A video with too few frames repeats its last choice.
    """
    segments = train_segments(total, num_frames)
    if rng is None:
        indices = [(first + last) // 2 for first, last in segments]
    elif any(first == last for first, last in segments):
        indices = sorted(rng.sample(range(total), len(segments)))
    else:
        indices = [rng.choice(range(first, last)) for first, last in segments]
    return indices + [indices[-1]] * (num_frames - len(indices))


class Rule(NamedTuple):
    """A way to choose frames.

    Attributes:
        choose: called with the video, the number of frames, the bound and the generator; returns
            the indices of the frames, and their times in seconds, not rounded.
        takes_bound: whether it can look at a part of the video.
        takes_rng: whether it can choose at random.
        counts_frames: whether it takes frames as evenly spread over the time.
        rounds_duration: whether the video's duration is rounded to 0.01 s, as times are.
    """

    choose: Callable[
        [VideoReader, int, Bound | None, random.Random | None],
        tuple[list[int], Sequence[float]],
    ]
    takes_bound: bool = False
    takes_rng: bool = False
    counts_frames: bool = True
    rounds_duration: bool = True


RULES: dict[str, Rule] = {}
"""All rules by name, in the order in which they are listed."""


def sampler(name: str, **properties: bool) -> Callable:
    """Enter the function below as the rule `name`; see `Rule` for its properties."""

    def enter(choose: Callable) -> Callable:
        RULES[name] = Rule(choose, **properties)
        return choose

    return enter


@sampler("eval", takes_bound=True)
def _eval(
    reader: VideoReader, num_frames: int, bound: Bound | None, rng: random.Random | None
) -> tuple[list[int], list[float]]:
    shift = reader.first_index
    numbers = eval_frame_indices(
        reader.num_frames,
        num_frames,
        fps=reader.fps,
        bound=bound,
        first_index=shift,
        timestamps=None if reader.constant_rate else reader.timestamps,
    )
    indices = [number - shift for number in numbers]
    return indices, frame_times(reader, indices)


@sampler("train", takes_rng=True)
def _train(
    reader: VideoReader, num_frames: int, bound: Bound | None, rng: random.Random | None
) -> tuple[list[int], list[float]]:
    indices = train_frame_indices(reader.num_frames, num_frames, rng)
    return indices, frame_times(reader, indices)


@sampler("midpoints", rounds_duration=False)
def _midpoints(
    reader: VideoReader, num_frames: int, bound: Bound | None, rng: random.Random | None
) -> tuple[list[int], list[float]]:
    indices = midpoint_frame_indices(reader.num_frames, num_frames)
    return indices, frame_times(reader, indices)


@sampler("by_time", takes_bound=True, takes_rng=True, counts_frames=False)
def _by_time(
    reader: VideoReader, num_frames: int, bound: Bound | None, rng: random.Random | None
) -> tuple[list[int], Sequence[float]]:
    """What is on the screen at the centres (or random moments) of equal segments of the time."""
    if reader.constant_rate and rng is None:
        return _eval(reader, num_frames, bound, None)
    if reader.constant_rate and bound is None:
        return _train(reader, num_frames, None, rng)
    _check_counts(reader.num_frames, num_frames)
    moments = moments_of(reader.duration, num_frames, bound, rng)
    indices = np.searchsorted(reader.timestamps, moments, side="right") - 1
    # A picture that stays is seen again at its later moments, not at the one when it came.
    return np.maximum(indices, 0).tolist(), moments


def moments_of(
    duration: float,
    num_frames: int,
    bound: Bound | None = None,
    rng: random.Random | None = None,
) -> np.ndarray:
    """Return the centres of equal segments of a time, or with `rng` a random moment of each.

    Args:
        duration: of the video, in seconds.
        num_frames: how many segments.
        bound: the part to cut into segments; cut off where it leaves the video.
        rng: chooses inside each segment.

    Returns:
        seconds, ascending unless the bound is reversed.

    Raises:
        ValueError: the bound is not finite.
    """
    bound = (0.0, duration) if bound is None else bound
    if not all(map(math.isfinite, bound)):
        raise ValueError(f"a bound of {bound} seconds is no time; pass None for the whole video")
    start, end = (min(max(seconds, 0.0), duration) for seconds in bound)
    places = [i + (0.5 if rng is None else rng.random()) for i in range(num_frames)]
    return start + (end - start) / num_frames * np.array(places)


def frame_times(reader: VideoReader, indices: Sequence[int]) -> list[float]:
    """Seconds of frames by the published arithmetic, in which folders count from 1."""
    if reader.constant_rate:
        return [(index + reader.first_index) / reader.fps for index in indices]
    return [float(reader.timestamps[index]) for index in indices]


def sample_indices(
    reader: VideoReader,
    num_frames: int,
    *,
    rule: str = "eval",
    bound: Bound | None = None,
    rng: random.Random | None = None,
) -> tuple[list[int], list[float], float]:
    """Return (indices, times in seconds, duration in seconds) for an open video, decoding nothing.

    `rule` is one of `RULES`; `bound` (start, end) in seconds and `rng` (None: the middle of each
    segment) belong to those that take them. Times and duration are rounded to 0.01 s, except the
    duration under ``midpoints``, which its published script leaves unrounded. A duration that
    would round to 0 is kept as it is, so that times can be divided by it.

    Raises ValueError for a rule or an argument that does not fit, VideoError for a video of zero
    duration.
    """
    check_rule(rule)
    if bound is not None and not RULES[rule].takes_bound:
        raise ValueError(
            f"the rule {rule!r} samples the whole video; a bound needs {_those('takes_bound')}"
        )
    if rng is not None and not RULES[rule].takes_rng:
        raise ValueError(f"the rule {rule!r} has nothing random; rng needs {_those('takes_rng')}")
    if not reader.duration > 0:
        raise VideoError(
            f"{reader.path}: the video lasts {reader.duration} s; it needs a length above 0"
        )
    indices, times = RULES[rule].choose(reader, num_frames, bound, rng)
    if rule == "train":
        times = [round(time, 2) for time in times]
    else:
        # NumPy and Python disagree on some ties (1.115 s at 200 fps); the published evaluation
        # rounds NumPy numbers, the published training Python's.
        times = [float(np.round(time, 2)) for time in times]
    duration = reader.duration
    if RULES[rule].rounds_duration:
        duration = round(duration, 2) or duration
    return indices, times, duration


def check_rule(rule: str) -> None:
    """Raise ValueError for a rule that does not exist."""
    if rule not in RULES:
        raise ValueError(f"no sampling rule {rule!r}; choose one of {', '.join(RULES)}")


def _those(quality: str) -> str:
    return " or ".join(repr(name) for name, rule in RULES.items() if getattr(rule, quality))


def sample_reader(
    reader: VideoReader,
    num_frames: int,
    *,
    rule: str = "eval",
    bound: Bound | None = None,
    rng: random.Random | None = None,
) -> VideoSample:
    """Choose frames of an open video as `sample_indices` does, and decode them.

    Warns where a rule counts frames that are not spread evenly over the time.
    """
    indices, times, duration = sample_indices(reader, num_frames, rule=rule, bound=bound, rng=rng)
    frames = reader.frames(indices)
    warnings = tuple(reader.warnings)
    if RULES[rule].counts_frames and (words := _uneven(reader, num_frames, rule)):
        logger.warning("%s", words)
        warnings += (words,)
    return VideoSample(frames, times, duration, indices, reader.start, warnings)


def _uneven(reader: VideoReader, num_frames: int, rule: str) -> str:
    """Say by how much counting frames misses the times; '' for less than half a segment."""
    if reader.constant_rate:
        return ""
    even = np.arange(reader.num_frames) * reader.duration / reader.num_frames
    off = float(np.abs(reader.timestamps - even).max())
    if off <= reader.duration / num_frames / 2:
        return ""
    return (
        f"{reader.path}: its frame rate varies, and the rule {rule!r} counts frames, which is up "
        f"to {off:.1f} s beside the time; the rule 'by_time' goes by the time"
    )


def sample_video(
    path: str | os.PathLike[str],
    num_frames: int,
    *,
    rule: str = "eval",
    bound: Bound | None = None,
    rng: random.Random | None = None,
    gif_fps: float | None = None,
) -> VideoSample:
    """Open a video, choose `num_frames` frames by `rule` and decode them.

    See `sample_indices` for the rules, and `open_video` for what `path` may be and `gif_fps`.
    Raises VideoError, which names the file, for anything wrong with it.
    """
    with open_video(path, gif_fps=gif_fps) as reader:
        return sample_reader(reader, num_frames, rule=rule, bound=bound, rng=rng)
