"""Writing frames as video files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# One algorithm for all instruction sets. Left to choose, x264 writes other bytes with AVX2 than
# without, and in about one call of a hundred other bytes than in the calls before.
X264_PARAMS = "cpu-independent=1"


def _exact_yuv(width: int, height: int, rate: Fraction) -> av.filter.Graph:
    """Return a converter from RGB to yuv420p in arithmetic that is the same on every CPU.

    The encoder's own conversion differs by 1 between CPUs with and without AVX2.
    """
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=width, height=height, format="rgb24", time_base=1 / rate),
        graph.add("scale", "flags=bilinear+accurate_rnd+bitexact"),
        graph.add("format", "pix_fmts=yuv420p"),
        graph.add("buffersink"),
    ).configure()
    return graph


def encode_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 23,
    preset: str = "veryfast",
    keyframe_every: int = 250,
    comment: str | None = None,
) -> None:
    """Write frames, uint8 RGB ``(H, W, 3)`` of one even size, as an h264 mp4 file.

    The file appears under its name only when it is complete. The same input gives the same bytes
    on every machine with the same libraries (PyAV's wheel brings x264 and libswscale). `comment` is
    kept in the file's metadata.

    Raises ValueError for frames of a wrong type or shape, or none.
    """
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: h264 needs an even width and height, not {width}x{height}")
    rate = Fraction(fps).limit_denominator(1001)
    handle, partial = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".mp4", dir=path.parent)
    os.close(handle)
    partial = Path(partial)
    try:
        with av.open(f"file:{partial}", "w", format="mp4") as container:
            if comment is not None:
                container.metadata["comment"] = comment
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1  # else as many as the machine has cores
            options = {"crf": str(crf), "preset": preset, "g": str(keyframe_every)}
            stream.options = options | {"x264-params": X264_PARAMS}
            to_yuv = _exact_yuv(width, height, rate)
            number = 0
            while first is not None:
                if first.shape != (height, width, 3) or first.dtype != np.uint8:
                    raise ValueError(
                        f"{path}: frame {number} is {first.dtype} {first.shape}, not uint8 "
                        f"{(height, width, 3)}"
                    )
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(first), format="rgb24")
                frame.pts = number
                to_yuv.push(frame)
                container.mux(stream.encode(to_yuv.pull()))
                number += 1
                first = next(frames, None)
            container.mux(stream.encode())
        # mkstemp makes files that only their owner can read.
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
