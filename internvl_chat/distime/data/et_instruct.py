"""E.T. Instruct: from the official file to training data, see docs/DATA.md."""

from __future__ import annotations

import json
import re
from typing import Any

from distime.data.official import Conversion, Keep, OfficialData, Source


def convert(source: Source, keep: Keep) -> Conversion:
    """`et_instruct_164k_vid.json` of E.T. Instruct: training data, see docs/DATA.md.

    There `<vid>` stands for one time. Two of them make an interval, one `<TIME_STAMP>`; an item
    with a time that is no interval cannot be expressed and is left out.
    """
    made, lines = Conversion(), []
    for item in source.json("et_instruct_164k_vid.json"):
        try:
            turns, times = _with_intervals(item)
        except _NoInterval as reason:
            made.left_out[str(reason)] = made.left_out.get(str(reason), 0) + 1
            continue
        made.videos.append(item["video"])
        if keep(item["video"]):
            line = {"video": item["video"], "conversations": turns}
            lines.append(json.dumps(line | ({"tgt": times} if times else {}), ensure_ascii=False))
    name = "et_instruct.jsonl"
    meta = {"root": "videos", "annotation": name, "repeat_time": 1, "data_augment": False}
    made.files = {
        name: "".join(f"{line}\n" for line in lines),
        "et_instruct_meta.json": {"et_instruct": meta | {"length": len(lines)}},
    }
    return made


_PAIR = re.compile(r"<vid>\s*(?:-|–|to|and)\s*<vid>")


class _NoInterval(ValueError):
    """An item's times are not intervals; says why."""


def _with_intervals(item: dict[str, Any]) -> tuple[list[dict[str, str]], list[float]]:
    """Return an item's turns with `<TIME_STAMP>` tokens, and their intervals, flat, in seconds."""
    left = {"human": list(item.get("src") or ()), "gpt": list(item.get("tgt") or ())}
    turns, times = [], []
    for turn in item["conversations"]:
        text, count = _PAIR.subn("<TIME_STAMP>", turn["value"])
        if "<vid>" in text:
            raise _NoInterval("a time that is no interval")
        if len(left[turn["from"]]) < 2 * count:
            raise _NoInterval("fewer times than places for them")
        times += left[turn["from"]][: 2 * count]
        del left[turn["from"]][: 2 * count]
        turns.append({"from": turn["from"], "value": text})
    if left["gpt"]:
        raise _NoInterval("more times than places for them")
    if any(start > end for start, end in zip(times[::2], times[1::2], strict=True)):
        raise _NoInterval("an interval that ends before it starts")
    return turns, times


ET_INSTRUCT = OfficialData(
    "et_instruct",
    convert,
    136076,
    note="the published training used 136,076 items; items with single times are left out",
)
