"""From the files that data sets' owners publish to the annotation formats of this repository.

Each converter below reads the official files of one data set, wherever they lie below a folder,
and returns the files to write. `prepare` checks the numbers of queries and videos against the
published ones, and which videos are missing on disk.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from distime.data.video_finder import VideoFinder
from distime.errors import DisTimeError
from distime.files import read_json, write_json, write_text
from distime.metrics.files import MetricError

Keep = Callable[[str], bool]
"""Whether the queries of a video are wanted."""


class PrepareError(DisTimeError):
    """The official files are missing or of another form; the message says which."""


@dataclass
class Conversion:
    """What a converter read.

    Attributes:
        files: name -> JSON value, or text, to be written.
        videos: one name for each query, in order.
        left_out: reason -> number of items that cannot be converted.
    """

    files: dict[str, Any] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


class Source:
    """A folder that holds official files, in whatever folders below it, or one such file."""

    def __init__(self, path: Path):
        if not path.exists():
            raise PrepareError(f"--source {path}: no such file or folder")
        self.path = path

    def find(self, *names: str, fits: Callable[[Path], bool] = lambda _: True) -> Path:
        """Return the file of one of these names that fits.

        Raises:
            PrepareError: there is none.
        """
        candidates = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        for name in names:
            for path in candidates:
                if path.is_file() and path.name == name and fits(path):
                    return path
        raise PrepareError(f"--source {self.path}: it holds no {' or '.join(names)}")

    def json(self, *names: str) -> Any:
        """Return the value of a JSON file, see `find`."""
        try:
            return read_json(self.find(*names), "official annotation")[0]
        except MetricError as error:
            raise PrepareError(str(error)) from None

    def json_lines(self, *names: str) -> Iterator[Any]:
        """Yield the values of a JSON lines file, see `find`."""
        for line in self.find(*names).read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield json.loads(line)


# ------------------------------------------------------------------------------- converters


def charades(source: Source, keep: Keep) -> Conversion:
    """`charades_sta_test.txt` (TALL) and `Charades_v1_test.csv` (Charades, for the durations)."""
    with source.find("Charades_v1_test.csv").open(encoding="utf-8", newline="") as stream:
        videos = {row["id"]: row for row in csv.DictReader(stream)}
    fps = 24.0  # of the frames that the metric's file counts
    queries, database, made = [], {}, Conversion()
    text = source.find("charades_sta_test.txt").read_text(encoding="utf-8")
    for line in filter(None, map(str.strip, text.splitlines())):
        place, _, query = line.partition("##")
        video, start, end = place.split()
        made.videos.append(video)
        if not keep(video):
            continue
        duration, window = float(videos[video]["length"]), [float(start), float(end)]
        queries.append(
            {
                "video": video,
                "qid": f"Charades-STA_{video}",
                "query": query,
                "duration": duration,
                "relevant_windows": [[min(time, duration) for time in window]],
                "objects": [name for name in videos[video]["objects"].split(";") if name],
            }
        )
        entry = {"subset": "Test", "duration": duration, "fps": fps, "annotations": []}
        database.setdefault(video, entry)["annotations"].append(
            {
                "label": query,
                "segment": window,
                "segment(frames)": [int(time * fps) for time in window],
            }
        )
    metric = {"version": "CharadesSta-24fps", "database": database}
    made.files = {"test_float.json": queries, "charades_sta_test.json": metric}
    return made


def anet(source: Source, keep: Keep) -> Conversion:
    """`val_2.json` of ActivityNet Captions; the format stays."""
    value = source.json("val_2.json")
    wanted = {video: entry for video, entry in value.items() if keep(video)}
    videos = [video for video, entry in value.items() for _ in entry["sentences"]]
    return Conversion({"val_2.json": wanted}, videos)


def qvh(source: Source, keep: Keep) -> Conversion:
    """`highlight_val_release.jsonl` of QVHighlights."""
    made, queries = Conversion(), []
    for item in source.json_lines("highlight_val_release.jsonl"):
        made.videos.append(item["vid"])
        if keep(item["vid"]):
            values = {key: item[key] for key in ("query", "duration", "relevant_windows")}
            qid = f"QVHighlight_{item['qid']}"
            queries.append({"video": item["vid"], "qid": qid, **values})
    made.files = {"val.json": queries}
    return made


def youcook2(source: Source, keep: Keep) -> Conversion:
    """`youcookii_annotations_trainval.json` of YouCook2, its validation part."""
    database = source.json("youcookii_annotations_trainval.json")["database"]
    made, annotations = Conversion(), []
    for video, entry in database.items():
        if entry["subset"] != "validation":
            continue
        made.videos.append(f"{video}.mp4")
        if not keep(f"{video}.mp4"):
            continue
        steps = sorted(entry["annotations"], key=lambda step: step["id"])
        # The metric cuts the captions apart at ". ", so a full stop inside one must go.
        captions = [re.sub(r"\.(?=\s|$)", "", step["sentence"]).strip() for step in steps]
        annotations.append(
            {
                "image_id": f"{video}.mp4",
                "id": len(annotations),
                "duration": entry["duration"],
                "segments": [step["segment"] for step in steps],
                "pure_cap": ". ".join(captions),
            }
        )
    made.files = {"val.caption_coco_format.json": {"annotations": annotations}}
    return made


def nextgqa(source: Source, keep: Keep) -> Conversion:
    """NExT-QA's multiple-choice `test.csv` and `map_vid_vidorID.json`; NExT-GQA's own two files.

    Both data sets have a `test.csv`; NExT-QA's has the column `video`, NExT-GQA's `video_id`.
    """
    folders = source.json("map_vid_vidorID.json")
    made, questions = Conversion(), []
    for row in _rows(source.find("test.csv", fits=partial(_has_column, name="video"))):
        video = folders[row["video"]]
        made.videos.append(video)
        if keep(video):
            options = {f"a{i}": f"{row[f'a{i}']}." for i in range(5)}
            questions.append(
                {
                    "video": video,
                    "num_option": 5,
                    "qid": f"{row['type']}_{row['video']}_{row['qid']}",
                    **options,
                    "answer": int(row["answer"]),
                    "question": f"{row['question']}?",
                }
            )
    table = source.find("test.csv", fits=partial(_has_column, name="video_id"))
    made.files = {
        "test.json": questions,
        "test.csv": table.read_text(encoding="utf-8"),
        "gsub_test.json": source.json("gsub_test.json"),
    }
    return made


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _has_column(path: Path, name: str) -> bool:
    with path.open(encoding="utf-8", newline="") as stream:
        return name in next(csv.reader(stream), ())


def mvbench(source: Source, keep: Keep) -> Conversion:
    """The twenty task files of MVBench; the format stays."""
    from distime.evaluate.benchmarks.mvbench import TASKS

    made = Conversion()
    for stem, folder in TASKS.values():
        items = source.json(f"{stem}.json")
        names = [f"{folder}/{item['video']}" for item in items]
        wanted = [item for item, name in zip(items, names, strict=True) if keep(name)]
        made.files[f"{stem}.json"] = wanted
        made.videos += names
    return made


def longvideobench(source: Source, keep: Keep) -> Conversion:
    """`lvb_val.json` of LongVideoBench; the format stays."""
    items = source.json("lvb_val.json")
    wanted = [item for item in items if keep(item["video_path"])]
    return Conversion({"lvb_val.json": wanted}, [item["video_path"] for item in items])


def et_instruct(source: Source, keep: Keep) -> Conversion:
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


# ------------------------------------------------------------------------------- preparing


@dataclass(frozen=True)
class Official:
    """A data set: how to read it, and how much of it there should be.

    Attributes:
        convert: the converter.
        queries: published number of queries, None where it is not known.
        videos: published number of videos, likewise.
        note: what to know when the numbers differ.
    """

    convert: Callable[[Source, Keep], Conversion]
    queries: int | None = None
    videos: int | None = None
    note: str = ""


DATA_SETS = {
    "charades": Official(charades, 3720, 1334),
    "anet": Official(anet, 17031, 4885),
    "qvh": Official(qvh, 1550, 1519),
    "youcook2": Official(
        youcook2,
        415,
        415,
        "the official file has 457 validation videos, published results are on the 415 that could "
        "still be downloaded: --available-only keeps those on your disk",
    ),
    "nextgqa": Official(nextgqa, 8564, 1000),
    "mvbench": Official(mvbench, 4000),
    "longvideobench": Official(longvideobench, 1337, 753),
    "et_instruct": Official(
        et_instruct,
        136076,
        note="the published training used 136,076 items; items with single times are left out",
    ),
}
"""Every data set by its name on the command line."""


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        files: written.
        queries: written (a dense-captioning video is one query).
        videos: that they are about.
        missing: videos that are not below the video root; None where that was not looked at.
        left_out: reason -> number of items.
        problems: numbers that differ from the published ones.
    """

    files: list[Path]
    queries: int
    videos: int
    missing: list[str] | None
    left_out: dict[str, int]
    problems: list[str]


def prepare(
    name: str,
    source: Path,
    out: Path,
    video_root: Path | None = None,
    available_only: bool = False,
) -> Report:
    """Convert the official files of a data set and check what came of it.

    Args:
        name: one of `DATA_SETS`.
        source: folder with the official files, or the one file that is needed.
        out: folder for the converted files.
        video_root: where the videos are looked for.
        available_only: leave out the queries whose video is missing.

    Raises:
        PrepareError: an official file is missing or of another form.
    """
    data_set = DATA_SETS[name]
    if available_only and video_root is None:
        raise PrepareError("--available-only: name the folder of the videos with --video-root")
    if video_root is not None and not video_root.is_dir():
        raise PrepareError(f"--video-root {video_root}: no such folder")
    files = Source(source)
    made = _convert(data_set, files, lambda _: True)
    missing = None if video_root is None else sorted(_missing(made.videos, video_root))
    if available_only:
        absent = set(missing)
        kept = _convert(data_set, files, lambda video: video not in absent)
        made.files, made.left_out = kept.files, kept.left_out
        made.videos = [video for video in made.videos if video not in absent]
    queries, videos = len(made.videos), len(set(made.videos))
    published = (("queries", queries, data_set.queries), ("videos", videos, data_set.videos))
    problems = [
        f"{found} {what} where published results have {expected}"
        for what, found, expected in published
        if expected is not None and found != expected
    ]
    if problems and data_set.note:
        problems.append(data_set.note)
    written = []
    for file_name, value in made.files.items():
        path = out / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, str):
            write_text(path, value)
        else:
            write_json(path, value)
        written.append(path)
    return Report(written, queries, videos, missing, made.left_out, problems)


def _convert(data_set: Official, source: Source, keep: Keep) -> Conversion:
    try:
        return data_set.convert(source, keep)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, PrepareError):
            raise
        name = data_set.convert.__name__
        raise PrepareError(
            f"--source {source.path}: not the official files of {name} ({error!r}); expected: "
            f"{data_set.convert.__doc__.splitlines()[0]}"
        ) from None


def _missing(videos: Iterable[str], root: Path) -> Iterator[str]:
    finder = VideoFinder(root)
    for video in dict.fromkeys(videos):
        if not finder.find(video).exists():
            yield video
