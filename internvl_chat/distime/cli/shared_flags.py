"""What `ground`, `caption` and `chat` share: the model's options, and where answers go."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distime.errors import DisTimeError
from distime.model.attention import ATTENTION
from distime.model.hub import local_folder
from distime.processing.answers import Event, Events
from distime.processing.sampling import VideoSample
from distime.processing.video import VideoError

if TYPE_CHECKING:
    from distime.api import DisTime


GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/nvgpu")
"""Where Linux shows the driver of a GPU: NVIDIA's, that of WSL, AMD's, Tegra's."""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which checkpoint answers, and how."""
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="folder, or hub name")
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (the first GPU, else the CPU)')
    parser.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
        default="auto",
        help="of the weights (auto: as saved)",
    )
    parser.add_argument("--attn", metavar="NAME", help=f"attention: {', '.join(ATTENTION)}")


def add_frame_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how videos are shown, where the checkpoint's own way is not wanted."""
    for name, kind, metavar, text in (
        ("fps", float, "F", "frames for each second of a video; needs --max-frames"),
        ("max-frames", int, "N", "most frames that --fps gives"),
        ("max-video-tokens", int, "N", "budget of visual tokens for a video"),
        ("image-size", int, "PIXELS", "side of the square that InternVL makes of a frame"),
    ):
        flags = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
        parser.add_argument(*flags, type=kind, metavar=metavar, help=text)


def frame_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_frame_arguments` was given, by the names of the processor's settings."""
    names = ("fps", "max_frames", "max_video_tokens", "image_size")
    return {name: getattr(args, name, None) for name in names}


def add_answer_arguments(parser: argparse.ArgumentParser, *, clip: bool = False) -> None:
    """Add how to look at videos, and where the answers go."""
    add_model_arguments(parser)
    parser.add_argument(
        "--num-frames",
        "--num_frames",
        type=int,
        metavar="N",
        help="frames of a video (as the checkpoint says)",
    )
    add_frame_arguments(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=1000, metavar="N", help="longest answer (1000)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="questions answered at once (16)"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per answer or error, one per line"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the answer over time")
    parser.add_argument("--srt", type=Path, metavar="SRT", help="write the events as subtitles")
    if clip:
        parser.add_argument(
            "--clip", type=Path, metavar="MP4", help="cut out the first event of the answer"
        )


def load_model(args: argparse.Namespace) -> DisTime:
    """Load the checkpoint that the arguments name.

    Raises:
        UsageError: there is no such device or attention; nothing was loaded.
        HubError: there is no such checkpoint.
    """
    if args.attn not in (None, *ATTENTION):
        raise UsageError(f"--attn {args.attn}: choose one of {', '.join(ATTENTION)}")
    device = args.device or "cpu"
    if not re.fullmatch(r"cpu|mps|xpu(:\d+)?|cuda(:\d+)?", device):
        raise UsageError(f"--device {device}: give one such as cpu, cuda or cuda:1")
    if (
        device.startswith("cuda")
        and sys.platform == "linux"
        and not any(Path(path).exists() for path in GPU_DRIVERS)
    ):
        raise UsageError(f"--device {device}: there is no GPU here; give cpu, or leave it out")
    folder = local_folder(args.checkpoint)
    # Importing torch takes seconds, for which `--help` and a typo must not wait.
    from distime.api import DisTime

    model = DisTime.from_pretrained(
        folder,
        dtype=args.dtype,
        device=args.device,
        attn_implementation=args.attn,
        **frame_settings(args),
    )
    model.batch_size = getattr(args, "batch_size", model.batch_size)
    return model


def answer_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments for `DisTime.ask` and what is built on it."""
    if args.num_frames is not None and args.num_frames < 1:
        raise UsageError(f"--num-frames {args.num_frames}: a video needs at least one frame")
    if args.num_frames is not None and args.fps is not None:
        raise UsageError(f"--num-frames {args.num_frames} and --fps {args.fps:g}: give one of them")
    if args.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens {args.max_new_tokens}: an answer needs at least one")
    if args.batch_size < 1:
        raise UsageError(f"--batch-size {args.batch_size}: answer at least one question at once")
    return {"max_new_tokens": args.max_new_tokens}


class UsageError(DisTimeError):
    """Arguments contradict each other; the message says which."""


def for_each_video(
    model: DisTime,
    videos: Sequence[str],
    args: argparse.Namespace,
    answer: Callable[[int, str, VideoSample], bool | None],
    asked: Sequence[dict[str, Any]] = ({},),
) -> int:
    """Read each video once and call `answer(place in the list, path, frames)` for it.

    Args:
        model: its processor reads.
        videos: paths.
        args: of the command.
        answer: returns False where something could not be answered, which it has reported.
        asked: what is asked of every video, as it stands in the JSON of an answer.

    Returns:
        1 if a video could not be used, which is reported, else 0.
    """
    code = 0
    for place, video in enumerate(videos):
        try:
            sample = model.processor.load_video(video, args.num_frames)
            code |= answer(place, video, sample) is False
        except VideoError as error:
            code = 1
            report_error(error, [{"video": video, **one} for one in asked] if args.json else [])
    return int(code)


def report_error(error: DisTimeError, about: Sequence[dict[str, Any]] = ()) -> None:
    """Say on stderr what is wrong, and with ``--json`` on stdout what it was about."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    for one in about:
        print_json({**one, "error": str(error)})


def numbered(path: Path | None, count: int) -> list[Path | None]:
    """Return the path for one output, and ``name-1.png``, ``name-2.png``, ... for several."""
    if path is None or count == 1:
        return [path] * count
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, count + 1)]


def print_json(value: dict[str, Any]) -> None:
    """Print one answer on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_events(events: Events, *, texts: bool) -> None:
    """Print events, one per line, indented; without any what the model says instead."""
    for event in events:
        line = f"  {event.start:7.2f} - {event.end:7.2f} s"
        if math.isfinite(event.confidence):
            line += f"   {event.confidence:4.0%} sure"
        print(f"{line}   {event.text}".rstrip() if texts else line)
    if not events:
        print(f"  the answer names no time: {' '.join(events.answer.split()) or '(no words)'}")
    sys.stdout.flush()


def plot_arguments(sample: VideoSample, events: Sequence[Event]) -> dict[str, Any]:
    """Keyword arguments that all figures of `distime.show.plots` take."""
    return {
        "frames": sample.frames,
        "frame_times": [sample.start + time for time in sample.times],
        "duration": sample.start + sample.duration,
        "events": events,
    }
