"""How many frames of a video the model is shown: the one place that decides it.

`frame_count` is the rule; what it goes by stands in a processor's settings (`CommonSettings`),
which `adjusted` changes and `settled_count` applies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distime.backbones.base import Backbone, CommonSettings, ProcessorError


def frame_count(
    seconds: float,
    num_frames: int,
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    max_tokens: int | None = None,
    tokens_per_frame: float = 1,
    tokens_besides: int = 0,
) -> int:
    """Return the number of frames for some seconds of video.

    Args:
        seconds: of what is looked at.
        num_frames: without `fps`, that many whatever the length.
        fps: frames for each second, rounded to a whole number of frames.
        max_frames: most of them, for `fps`.
        max_tokens: budget of visual tokens for the video.
        tokens_per_frame: the fewest that one frame takes; 0.5 where two share a token.
        tokens_besides: of a video, beside those of its frames.

    Returns:
        1 or more.

    Raises:
        ValueError: the budget is less than one frame.
    """
    wanted = num_frames if fps is None else max(1, round(seconds * fps))
    if fps is not None and max_frames is not None:
        wanted = min(wanted, max_frames)
    if max_tokens is None:
        return wanted
    affordable = int((max_tokens - tokens_besides) / tokens_per_frame)
    if affordable < 1:
        least = max(1, tokens_per_frame + tokens_besides)
        raise ValueError(
            f"max_video_tokens {max_tokens}: one frame takes {least:g}; give that or more, or show "
            "frames with fewer tokens"
        )
    return min(wanted, affordable)


def settled_count(
    backbone: Backbone,
    settings: CommonSettings,
    duration: float,
    num_frames: int | None = None,
    bound: tuple[float, float] | None = None,
) -> int:
    """Return how many frames a video is shown with by a processor's settings.

    Args:
        backbone: says how many tokens a frame takes.
        settings: of the processor.
        duration: of the video, in seconds.
        num_frames: what was asked for, in place of what the settings say; their budget holds.
        bound: the part that is looked at, (start, end) in seconds.

    Raises:
        ProcessorError: the budget of tokens is less than one frame.
    """
    if bound is not None and all(map(math.isfinite, bound)):  # else the sampler says what is wrong
        start, end = (min(max(seconds, 0.0), duration) for seconds in bound)
        duration = abs(end - start)
    tokens, besides = backbone.frame_tokens(settings)
    try:
        return frame_count(
            duration,
            num_frames or settings.num_frames,
            fps=None if num_frames else settings.fps,
            max_frames=settings.max_frames,
            max_tokens=settings.max_video_tokens,
            tokens_per_frame=tokens,
            tokens_besides=besides,
        )
    except ValueError as error:
        raise ProcessorError(str(error)) from None


def adjusted(
    backbone: Backbone, settings: CommonSettings, asked: Mapping[str, Any]
) -> CommonSettings:
    """Return settings with what was asked for.

    Args:
        backbone: says which settings can be changed.
        settings: as they are.
        asked: by name; None leaves one as it is. A number of frames ends those by the second.

    Raises:
        ProcessorError: the backbone has no such setting, or they do not go together.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if strange := sorted(given.keys() - set(backbone.adjustable)):
        raise ProcessorError(
            f"{strange[0]} {given[strange[0]]}: {backbone.name} has no such setting for videos; it "
            f"has {', '.join(backbone.adjustable)}"
        )
    if "num_frames" in given:
        if "fps" in given or "max_frames" in given:
            raise ProcessorError(
                f"num_frames {given['num_frames']} and fps: give a number of frames, or fps with "
                "max_frames"
            )
        given |= {"fps": None, "max_frames": None}
    changed = replace(settings, **given)
    settled_count(backbone, changed, 0.0)  # a budget must hold a frame
    return changed
