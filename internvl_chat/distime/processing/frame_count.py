"""How many frames of a video the model is shown: the one place that decides it."""

from __future__ import annotations


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
