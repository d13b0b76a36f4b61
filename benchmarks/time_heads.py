"""Ways of saying when, on the toy: the paper's ablation of time heads, three seeds each.

    python benchmarks/time_heads.py                          all of it, into ./time_heads
    python benchmarks/time_heads.py --seeds 0 --steps 40     a quicker look

Every time head of `distime.model.heads`, and those with tokens also without re-encoding predicted
times, are trained from one start on the same lessons in the same order, and asked about the same
held-out videos: one event a question, and all events of a video in one answer. The videos are
smaller than those of the quickstart: 14 to 20 s, seen in 6 frames, with two or three squares of
four colours that tell them apart, so that little training will do. Finished parts are kept, and a
table is printed of what there is.

It shows that every head trains and answers. The toy is no evidence about the paper: its videos,
its words and its model have next to nothing of real ones.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from distime import DisTime
from distime.evaluate import Settings, run
from distime.files import write_json
from distime.metrics.intervals import iou
from distime.model.heads import HEAD_NAMES, head_class
from distime.model.tokens import TIME_STAMP
from distime.processing.sampling import train_frame_indices
from distime.toy.curriculum import frame_items, grounding_items, relations, words
from distime.toy.quickstart import best_constant
from distime.toy.stages import Stage, synthetic_benchmark, train_stage_here
from distime.toy.synthetic import STRIDE, ShapeEvent, SyntheticVideo, write_video
from distime.toy.tiny import write_tiny_checkpoint

SIZE, FPS, FRAMES, NAMES = 64, 4, 6, ("red", "green", "blue", "yellow")
LIST = "List all that is visible, and when."
DIGITS = " ".join(map(str, range(25)))  # seconds, and tenths
LOOK_SHARE, BATCH = 0.4, 32
CONSTANT = "constant"
NOTE = "The toy is no evidence about the paper: it shows that every head trains and answers."


def variants() -> dict[str, tuple[str, ...]]:
    """Name of each way -> its training flags."""
    heads = {name: ("--time_head", name) for name in HEAD_NAMES}
    without = {
        f"{name}, not re-encoded": (*flags, "--reencode_times", "False")
        for name, flags in heads.items()
        if not head_class(name).in_words
    }
    return heads | without


# ------------------------------------------------------------------ videos and lessons


def squares(seed: int) -> SyntheticVideo:
    """Invent a video in which two or three squares come and go, one after the other."""
    rng = random.Random(seed)
    duration = rng.randint(14 * FPS, 20 * FPS) / FPS
    lengths = [rng.randint(3 * FPS, 5 * FPS) / FPS for _ in range(rng.randint(2, 3))]
    if sum(lengths) + len(lengths) > duration:
        lengths.pop()
    # What is left of the video is cut into pauses, of half a second at least between two squares.
    cuts = sorted(rng.uniform(0, duration - sum(lengths) - len(lengths) / 2) for _ in lengths)
    events, before = [], 0.0
    for number, (cut, length) in enumerate(zip(cuts, lengths, strict=True)):
        start = round((cut + number / 2 + before) * FPS) / FPS
        events.append((start, start + length))
        before += length
    colors = rng.sample(NAMES, len(events))
    named = (
        ShapeEvent(color, "square", *times) for color, times in zip(colors, events, strict=True)
    )
    return SyntheticVideo(f"squares_{seed:07d}", seed, duration, FPS, SIZE, tuple(named))


def write_squares(folder: Path, count: int, number: int) -> list[SyntheticVideo]:
    """Write the first videos of a set."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [squares(seed) for seed in range(number * STRIDE, number * STRIDE + count)]
    for spec in specs:
        write_video(spec, folder)
    return specs


def listing(spec: SyntheticVideo) -> dict:
    """All events of a video in one answer, in their order."""
    named = [f"{event.color} {event.shape} at {TIME_STAMP}" for event in spec.events]
    turns = [("human", f"<video>\n{LIST}"), ("gpt", ", ".join(named) + ".")]
    return {
        "video": spec.file_name,
        "tgt": [time for event in spec.events for time in (event.start, event.end)],
        "conversations": [{"from": speaker, "value": text} for speaker, text in turns],
    }


def write_lessons(
    specs: Sequence[SyntheticVideo], videos: Path, out: Path, seed: int
) -> tuple[Path, Path]:
    """Write what single frames show, and what is visible when; return the meta file of each."""
    frames = out / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    look, relate = [], []
    for spec in specs:
        rng = random.Random(f"{seed} {spec.name}")
        look += frame_items(spec, frames, rng)
        shown = train_frame_indices(spec.num_frames, FRAMES)
        items = relations(spec, shown, spec.events, rng)
        items += [*grounding_items(spec), listing(spec)]
        relate += rng.sample(items, len(items))
    metas = []
    for name, root, lines in (("look", frames, look), ("relate", videos, relate)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_json(
            meta := out / f"{name}.json",
            {name: {"root": str(root.resolve()), "annotation": f"{name}.jsonl"}},
        )
        metas.append(meta)
    return metas[0], metas[1]


# ------------------------------------------------------------------ one way of one seed


def listing_miou(checkpoint: Path, specs: Sequence[SyntheticVideo], videos: Path) -> float:
    """Mean IoU (percent) of every event with the one of its place in the answer; 0 without one."""
    model = DisTime.from_pretrained(checkpoint, device="cpu")
    paths = [videos / spec.file_name for spec in specs]
    answers = model.chat(paths, LIST, num_frames=FRAMES, max_new_tokens=64)
    scores = []
    for spec, answer in zip(specs, answers, strict=True):
        found = [(event.start, event.end) for event in answer.events]
        for place, event in enumerate(spec.events):
            told = place < len(found)
            scores.append(float(iou(found[place], (event.start, event.end))) if told else 0.0)
    return 100 * mean(scores)


def constant_scores(
    train: Sequence[SyntheticVideo], held_out: Sequence[SyntheticVideo]
) -> dict[str, float]:
    """What answers would score that look at nothing: the best interval, as fractions of the video;
    for listings one for each place, which even know how many events there are."""
    places = {(len(one.events), place) for one in train for place in range(len(one.events))}
    best = {}
    for count, place in places:
        alike = [one for one in train if len(one.events) == count]
        ones = [replace(one, events=one.events[place : place + 1]) for one in alike]
        best[count, place] = best_constant(ones)
    anywhere = best_constant(train)
    single, listed = [], []
    for spec in held_out:
        for place, event in enumerate(spec.events):
            own = best[len(spec.events), place]
            for scores, interval in ((single, anywhere), (listed, own)):
                told = [edge * spec.duration for edge in interval]
                scores.append(float(iou(told, (event.start, event.end))))
    recalls = {f"R1@{at}": 100 * mean(one >= at for one in single) for at in (0.5, 0.7)}
    return {"mIoU": 100 * mean(single), "listing mIoU": 100 * mean(listed)} | recalls


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run_seed(out: Path, seed: int, args: argparse.Namespace) -> None:
    """Train and score every way with one seed."""
    began = cpu_seconds()
    train = write_squares(out / "videos" / "train", args.videos, 2 * seed)
    held_out = write_squares(out / "videos" / "held_out", args.held_out, 2 * seed + 1)
    annotation, truth = synthetic_benchmark().of_synthetic(held_out, out)
    look, relate = write_lessons(train, out / "videos" / "train", out / "lessons", seed)
    start, seeing = out / "start", out / "look"
    if not (start / "config.json").is_file():
        # Without a module of time, so that every head can start from it.
        texts = [*words(), LIST, DIGITS, "at - seconds"]
        write_tiny_checkpoint(start, texts, seed=seed, num_frames=FRAMES, time_head="text")
    if not (seeing / "config.json").is_file():
        steps = max(1, round(args.steps * LOOK_SHARE))
        train_stage_here(start, seeing, look, Stage(steps, BATCH, sees=True), 1, seed)
    if not (out / CONSTANT / "scores.json").is_file():
        (out / CONSTANT).mkdir()
        scores = constant_scores(train, held_out) | {"cpu_seconds": 0.0}
        write_json(out / CONSTANT / "scores.json", scores)
    if not (out / "shared.json").is_file():
        write_json(out / "shared.json", {"cpu_seconds": cpu_seconds() - began})
    for name, flags in variants().items():
        folder, began = out / name.replace(", ", "_").replace(" ", "_"), cpu_seconds()
        if (folder / "scores.json").is_file():
            continue
        if not (folder / "model" / "config.json").is_file():
            stage = Stage(args.steps, BATCH, items=12, schedule="cosine")
            train_stage_here(seeing, folder / "model", relate, stage, FRAMES, seed, *flags)
        videos = out / "videos" / "held_out"
        settings = Settings(
            checkpoint=folder / "model", benchmark=synthetic_benchmark().name, device="cpu",
            annotation=annotation, ground_truth=truth, video_root=videos,
            out_dir=folder / "results", num_segments=FRAMES, max_new_tokens=24,
        )  # fmt: skip
        scores = dict(run(settings).score.metrics)
        scores["listing mIoU"] = listing_miou(folder / "model", held_out, videos)
        scores["cpu_seconds"] = cpu_seconds() - began
        write_json(folder / "scores.json", scores)
        print_table(out.parent)


# ------------------------------------------------------------------ the table


def print_table(out: Path) -> None:
    """Print what was measured so far: the mean over the seeds, and each seed."""
    columns = ("mIoU", "R1@0.5", "R1@0.7", "listing mIoU", "cpu_seconds")
    print(f"\n| time head | seeds | {' | '.join(columns)} |\n|" + " --- |" * (len(columns) + 2))
    for name in (CONSTANT, *variants()):
        folder = name.replace(", ", "_").replace(" ", "_")
        files = sorted(out.glob(f"seed*/{folder}/scores.json"))
        scores = [json.loads(file.read_text()) for file in files]
        if scores:
            cells = []
            for column in columns:
                values = [one[column] for one in scores]
                each = f" ({' '.join(f'{value:.1f}' for value in values)})"
                cells.append(f"{mean(values):.1f}{each if len(values) > 1 else ''}")
            print(f"| {name} | {len(scores)} | {' | '.join(cells)} |")
    print(f"\n{NOTE}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("time_heads"), help="folder to work in")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--videos", type=int, default=400, help="for training, of a seed")
    parser.add_argument("--held-out", type=int, default=50, help="for the scores, of a seed")
    parser.add_argument("--steps", type=int, default=300, help="of every way")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    record, sizes = args.out / "sizes.json", [args.videos, args.held_out, args.steps]
    if record.is_file() and json.loads(record.read_text()) != sizes:
        parser.error(f"{args.out} holds parts of another size: give another --out")
    write_json(record, sizes)
    for seed in args.seeds:
        run_seed(args.out / f"seed{seed}", seed, args)
    print_table(args.out)


if __name__ == "__main__":
    main()
