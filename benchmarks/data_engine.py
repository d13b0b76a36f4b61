"""What the data engine is worth: good events kept and bad ones dropped, and a model that teaches.

    python benchmarks/data_engine.py --out runs/data_engine                       both parts
    python benchmarks/data_engine.py --out runs/data_engine --parts selection --locators A B
    python benchmarks/data_engine.py --out runs/data_engine --parts teaching --starts A B C

Synthetic videos (`distime.toy.synthetic`), whose truth is known; a killed run goes on where it was.

selection: `distime annotate` on new videos with given captions, a fifth of them wrong on purpose
(they name a colour that the video does not show), and two quickstart models of different seeds as
locators. How well do intervals fit the truth, of all events and of those that were kept? A wrong
caption has no true interval, its IoU is 0. Thresholds were chosen on other videos (--tuning).

teaching: two toys are trained on few labelled videos, in different orders, and annotate many whose
captions are given but not their times; what they agree on is kept. The first of them then goes on
in three ways of equally many steps: with its labels alone, with labels and annotations (the second
model), and with the labels of all videos. They begin with the quickstart's third stage (`relate`),
which knows colours, shapes and time words, and some grounding, from lessons on other videos.

Without --locators and --starts the quickstart makes the checkpoints (a quarter of an hour each).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distime.annotate.records import (
    AnnotationFolder,
    Candidate,
    Dropped,
    RecordFile,
    Selected,
    SelectedEvent,
)
from distime.benchmarks.charades import synthetic_queries, synthetic_truth
from distime.files import write_json, write_text
from distime.metrics.intervals import iou
from distime.processing.questions import RETRIEVAL
from distime.toy.curriculum import FRAMES, grounding_items
from distime.toy.stages import Stage, evaluate_stage, train_stage
from distime.toy.synthetic import COLORS, SHAPES, ShapeEvent, SyntheticVideo, write_videos

SETS = {"selection": 901, "tuning": 903, "labelled": 910, "unlabelled": 930, "held_out": 951}
"""Sets of synthetic videos; none is one of the quickstart's of small seeds."""
TEMPLATES = f"""[retrieval]
Q: {RETRIEVAL.format(article="a", query="{event}")}
A: The event is depicted at {{time}}.
"""
"""The toy knows the words of this question alone."""


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder; an earlier run goes on")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--locators", nargs=2, type=Path, help="checkpoints of two seeds")
    parser.add_argument("--videos", type=int, default=300, help="of selection (300)")
    parser.add_argument("--tuning", action="store_true", help="selection on the other videos")
    parser.add_argument("--wrong", type=float, default=0.2, help="share of wrong captions (0.2)")
    parser.add_argument("--min-agreement", type=float, default=0.75, help="(0.75)")
    parser.add_argument("--starts", nargs="+", type=Path, help="checkpoints, one for each seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--labelled", type=int, default=150, help="videos with times (150)")
    parser.add_argument("--unlabelled", type=int, default=600, help="videos without (600)")
    parser.add_argument("--held-out", type=int, default=150, help="videos to score on (150)")
    parser.add_argument("--steps", type=int, default=300, help="of each training (300)")
    parser.add_argument("--batch-size", type=int, default=16, help="videos in a step (16)")
    parser.add_argument("--teacher-agreement", type=float, default=0.6, help="(0.6)")
    args = parser.parse_args()
    for part in args.parts:
        PARTS[part](args)


def quickstart(out: Path, seed: int) -> Path:
    """Return the folder of the checkpoints of a quickstart, which is made unless it is there."""
    folder = out / f"quickstart{seed}"
    if not (folder / "checkpoints" / "ground" / "config.json").is_file():
        distime("quickstart", "--seed", seed, "--output", folder)
    return folder / "checkpoints"


def distime(*words: object) -> None:
    """Run the `distime` command.

    Raises:
        subprocess.CalledProcessError: it failed; its output says why.
    """
    subprocess.run([sys.executable, "-m", "distime.cli", *map(str, words)], check=True)


# ----------------------------------------------------------------------------------- selection


def captions_of(
    specs: Sequence[SyntheticVideo], wrong: float, seed: int
) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Return by video the caption of each of its events, with its interval; None: it is wrong.

    A wrong caption stands in the place of a true one.
    """
    rng = random.Random(seed)
    places = [(n, k) for n, spec in enumerate(specs) for k in range(len(spec.events))]
    replaced = set(rng.sample(places, round(wrong * len(places))))
    captions = {}
    for n, spec in enumerate(specs):
        absent = sorted(COLORS.keys() - {event.color for event in spec.events})
        rng.shuffle(absent)
        captions[spec.file_name] = {
            ShapeEvent(absent.pop(), rng.choice(SHAPES), 0, 0).query
            if (n, k) in replaced
            else event.query: None if (n, k) in replaced else (event.start, event.end)
            for k, event in enumerate(spec.events)
        }
    return captions


def selection(args: argparse.Namespace) -> None:
    """Annotate videos whose truth is known, and compare what is kept with all."""
    name = "tuning" if args.tuning else "selection"
    folder = args.out / name
    specs = write_videos(folder / "videos", args.videos, SETS[name])
    captions = captions_of(specs, args.wrong, SETS[name])
    lines = [json.dumps({"video": v, "captions": list(said)}) for v, said in captions.items()]
    write_text(folder / "captions.jsonl", "\n".join(lines) + "\n")
    models = args.locators or [quickstart(args.out, seed) / "ground" for seed in (0, 1)]
    started = time.perf_counter()
    distime(
        "annotate", folder / "videos", "--out", folder / "annotation",
        "--captioner", f"file:{folder / 'captions.jsonl'}",
        *locators(models), "--same-words", 1, "--device", "cpu",
        "--min-agreement", args.min_agreement, "--held-out", 0,
    )  # fmt: skip
    print(f"annotated in {time.perf_counter() - started:.0f} s")
    kept, dropped = judged(AnnotationFolder(folder / "annotation"), captions)
    report = compare(kept, dropped)
    write_json(folder / "result.json", report)
    print(json.dumps(report, indent=1))
    print("at other least agreements:   kept   their mIoU   wrong dropped   right kept")
    for least in (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
        parts: tuple[list[Judged], list[Judged]] = [], []
        for one in (*kept, *dropped):
            parts[(one.agreement or 0.0) < least].append(one)
        other = compare(*parts)
        row = [other[name] for name in ("kept", "mIoU of kept", "wrong dropped", "right kept")]
        print(f"{least:<24}" + "".join(f"{value:12}" for value in row))


def locators(models: Sequence[Path]) -> list[str]:
    """Return the flags that name checkpoints as locators."""
    flags = (("--locator", f"distime:toy{number}={path}") for number, path in enumerate(models))
    return [word for pair in flags for word in pair]


class Judged(NamedTuple):
    """An event beside the truth: whether its caption is right, its IoU, its agreement."""

    is_right: bool
    iou: float
    agreement: float | None


def judged(
    places: AnnotationFolder, captions: dict[str, dict[str, tuple[float, float] | None]]
) -> tuple[list[Judged], list[Judged]]:
    """Return the events of an annotation that were kept, and those that were dropped."""
    kept = [
        judge(event, captions[one.video][event.text], event.agreement)
        for one in RecordFile(places.selected, Selected)
        for event in one.events
    ]
    dropped = [
        judge(one.candidates.get(one.locator or ""), captions[one.video][one.text], one.agreement)
        for one in RecordFile(places.dropped, Dropped)
    ]
    return kept, dropped


def judge(
    found: SelectedEvent | Candidate | None,
    truth: tuple[float, float] | None,
    agreement: float | None,
) -> Judged:
    """Compare an event with its true interval in seconds; without one or the other IoU is 0."""
    fit = 0.0 if found is None or truth is None else float(iou((found.start, found.end), truth))
    return Judged(truth is not None, fit, agreement)


def compare(kept: Sequence[Judged], dropped: Sequence[Judged]) -> dict[str, float]:
    """Return the numbers of `selection`: percent, and counts."""
    every = [*kept, *dropped]
    right, wrong = ([one for one in every if one.is_right is kind] for kind in (True, False))

    def miou(events: Sequence[Judged]) -> float:
        return round(100 * float(np.mean([one.iou for one in events] or [0.0])), 1)

    def percent(part: Sequence[Judged], whole: Sequence[Judged]) -> float:
        return round(100 * len(part) / max(len(whole), 1), 1)

    return {
        "events": len(every),
        "wrong": len(wrong),
        "kept": len(kept),
        "mIoU of all": miou(every),
        "mIoU of kept": miou(kept),
        "points better": round(miou(kept) - miou(every), 1),
        "wrong dropped": percent([one for one in dropped if not one.is_right], wrong),
        "right kept": percent([one for one in kept if one.is_right], right),
        "mIoU of all right": miou(right),
        "mIoU of kept right": miou([one for one in kept if one.is_right]),
    }


# ------------------------------------------------------------------------------------ teaching


def teaching(args: argparse.Namespace) -> None:
    """For each seed: first model, annotations, second model, and one with all labels."""
    rows = []
    for number, seed in enumerate(args.seeds):
        start = args.starts[number] if args.starts else quickstart(args.out, seed) / "relate"
        rows.append(taught(args.out / f"teaching{seed}", start, seed, args))
        print(json.dumps(rows[-1]), flush=True)
    names = ("start", "first", "longer", "second", "all labels")
    print("seed" + "".join(f"{name:>12}" for name in names))
    for seed, row in zip(args.seeds, rows, strict=True):
        print(f"{seed:<4}" + "".join(f"{row[name]:12.1f}" for name in names))
    for before in ("first", "longer"):
        gain, room = (np.array([row[name] - row[before] for row in rows]) for name in names[-2:])
        shares = ", ".join(f"{one / whole:.2f}" for one, whole in zip(gain, room, strict=True))
        print(f"from {before} to all labels: {gain.mean():+.1f} of {room.mean():+.1f}; {shares}")


def taught(folder: Path, start: Path, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Return the held-out mIoU (percent) of the models of a seed, and how good annotations are."""
    sizes = {"labelled": args.labelled, "unlabelled": args.unlabelled, "held_out": args.held_out}
    specs = {
        name: write_videos(folder / name, count, SETS[name] + 2 * seed)
        for name, count in sizes.items()
    }
    labels = {name: annotation(folder, name, specs[name]) for name in ("labelled", "unlabelled")}
    write_json(folder / "queries.json", synthetic_queries(specs["held_out"]))
    write_json(folder / "truth.json", synthetic_truth(specs["held_out"]))
    scores = {}

    def score(name: str, checkpoint: Path) -> None:
        done = folder / "results" / name / "score.json"
        if not done.is_file():
            evaluate_stage(
                checkpoint, folder / "queries.json", folder / "held_out", done.parent,
                folder / "truth.json", FRAMES["ground"],
            )  # fmt: skip
        scores[name] = round(json.loads(done.read_text())["metrics"]["mIoU"], 1)
        print(f"seed {seed}: {name} {scores[name]}", flush=True)

    def train(name: str, begin: Path, sources: dict, order: int = seed) -> Path:
        out = folder / "checkpoints" / name
        meta = folder / f"{name}.json"
        write_json(meta, sources)
        if not (out / "config.json").is_file():
            stage = Stage(args.steps, args.batch_size, schedule="cosine", learning_rate=2e-3)
            train_stage(begin, out, meta, stage, FRAMES["ground"], order)
        score(name, out)
        return out

    few = {"labelled": labels["labelled"]}
    score("start", start)
    teachers = [train("first", start, few), train("other", start, few, seed + 100)]
    made = annotate_unlabelled(folder, teachers, specs["unlabelled"], args.teacher_agreement)
    train("second", teachers[0], few | {"annotated": made})
    train("all labels", teachers[0], labels)
    train("longer", teachers[0], few)
    places = AnnotationFolder(folder / "annotation")
    truth = {
        s.file_name: {e.query: (e.start, e.end) for e in s.events} for s in specs["unlabelled"]
    }
    kept, dropped = judged(places, truth)
    numbers = compare(kept, dropped)
    return scores | {
        "annotated": numbers["kept"],
        "of events": numbers["events"],
        "their mIoU": numbers["mIoU of kept"],
        "mIoU of all events": numbers["mIoU of all"],
    }


def annotation(folder: Path, name: str, specs: Sequence[SyntheticVideo]) -> dict:
    """Write the true groundings of videos as training data; return their entry of a meta file."""
    lines = [json.dumps(item) + "\n" for spec in specs for item in grounding_items(spec)]
    write_text(folder / f"{name}.jsonl", "".join(lines))
    return {"root": str((folder / name).resolve()), "annotation": f"{name}.jsonl"}


def annotate_unlabelled(
    folder: Path, teachers: Sequence[Path], specs: Sequence[SyntheticVideo], agreement: float
) -> dict:
    """Have teachers locate the events of videos; return the entry of a meta file."""
    captions, templates = folder / "captions.jsonl", folder / "templates.txt"
    lines = (
        json.dumps({"video": spec.file_name, "captions": [event.query for event in spec.events]})
        for spec in specs
    )
    write_text(captions, "\n".join(lines) + "\n")
    write_text(templates, TEMPLATES)
    distime(
        "annotate", folder / "unlabelled", "--out", folder / "annotation",
        "--captioner", f"file:{captions}", *locators(teachers),
        "--same-words", 1, "--device", "cpu", "--min-agreement", agreement,
        "--templates", templates, "--held-out", 0,
    )  # fmt: skip
    entries = json.loads((folder / "annotation" / "meta.json").read_text())
    (entry,) = entries.values()
    return entry | {"annotation": str(folder.resolve() / "annotation" / entry["annotation"])}


PARTS = {"selection": selection, "teaching": teaching}

if __name__ == "__main__":
    main()
