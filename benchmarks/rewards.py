"""What reward training adds on the toy: held-out mIoU before, after, and after supervised training.

    python benchmarks/rewards.py                           all three seeds, into rewards_toy/
    python benchmarks/rewards.py --settings clean --seeds 0 --steps 10

A toy whose grounding stage is stopped early is trained on by each objective for about the same CPU
seconds, in one process of one thread. Three settings:

    clean       one event, right labels
    imprecise   the same, but each boundary of the labels is off by up to a fifth of its event's
                length; those of the stage before and those that are held out are right
    several     questions with one to four intervals, so that how many to name is learned too

Scored is the IoU of the set of all intervals that a greedy answer names.

Finished parts are kept, so that the same command goes on; other sizes need another --output. A
folder of `distime quickstart --seed N` may be given as seedN in it, which saves the first stages.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.dataset import DataSettings, TrainingData
from distime.engine import Decoding, Engine, Job
from distime.processing.questions import moment_retrieval_question
from distime.toy.curriculum import FRAMES, STAGES, grounding_items, words, write_curriculum
from distime.toy.quickstart import QuickstartSettings
from distime.toy.stages import stage_flags, train_stage
from distime.toy.synthetic import SyntheticVideo, write_videos
from distime.toy.tiny import write_tiny_checkpoint
from distime.train import finetune
from distime.train.rewards import REWARDS
from distime.train.rollouts import inputs_of, split

OFF = 0.2
"""Largest error of an imprecise label, in lengths of its event."""
EVERYTHING = "the content is visible."
"""The question whose answer names all events of a video; its words are in the toy's vocabulary."""
OBJECTIVES = {
    "supervised": (),
    "expected_reward": ("--objective", "expected_reward", "--reward_weight", "5"),
    # A video of the toy is no longer than its questions: each with its own copy is faster.
    "grpo": (
        "--objective", "grpo", "--max_completion_length", "16", "--warmup_steps", "5",
        "--share_video_prefix", "False", "--per_device_train_batch_size", "24",
    ),
}  # fmt: skip

REWARDED = {"several": ("--rewards", "tiou", "cacc")}
"""Rewards of grpo where the IoU of the set is not enough: by itself it is raised by naming too many
intervals."""


# ---------------------------------------------------------------------- questions


def clean(spec: SyntheticVideo, rng: random.Random) -> list[dict]:
    """One question for each event."""
    return grounding_items(spec)


def imprecise(spec: SyntheticVideo, rng: random.Random) -> list[dict]:
    """The same, with boundaries that are off."""
    items = grounding_items(spec)
    for item in items:
        start, end = item["tgt"]
        most = OFF * (end - start)
        start, end = start + rng.uniform(-most, most), end + rng.uniform(-most, most)
        item["tgt"] = [max(0.0, start), min(spec.duration, end)]
    return items


def several(spec: SyntheticVideo, rng: random.Random) -> list[dict]:
    """When anything is there, and when each of the shapes, which come in several colours."""
    asked = {EVERYTHING: list(spec.events)}
    for event in spec.events:
        asked.setdefault(f"the {event.shape} is visible.", []).append(event)
    return [
        {
            "video": spec.file_name,
            "tgt": [edge for event in events for edge in (event.start, event.end)],
            "conversations": [
                {"from": "human", "value": "<video>\n" + moment_retrieval_question(query)},
                {
                    "from": "gpt",
                    "value": f"The event is depicted{' at <TIME_STAMP>' * len(events)}.",
                },
            ],
        }
        for query, events in asked.items()
    ]


SETTINGS: dict[str, tuple[Callable, Callable, Callable]] = {
    "clean": (clean, clean, clean),
    "imprecise": (clean, imprecise, clean),
    "several": (several, several, several),
}
"""Questions of the stage that is stopped, of what follows it, and those that are held out."""


def write_meta(
    folder: Path, name: str, specs: Sequence[SyntheticVideo], root: Path, make: Callable
) -> Path:
    """Write questions about videos as annotation and meta file, once; return the meta file."""
    meta = folder / f"{name}.json"
    if meta.is_file():
        return meta
    folder.mkdir(parents=True, exist_ok=True)
    lines = [item for spec in specs for item in make(spec, random.Random(f"{name} {spec.name}"))]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta.write_text(
        json.dumps({name: {"root": str(root.resolve()), "annotation": f"{name}.jsonl"}})
    )
    return meta


# ---------------------------------------------------------------------- training and scores


def prepare_toy(folder: Path, seed: int) -> tuple[list[SyntheticVideo], list[SyntheticVideo]]:
    """Make a toy as the quickstart does, but for its last stage.

    Returns:
        its videos for training and those that are held out.
    """
    settings = QuickstartSettings(seed=seed)
    videos = folder / "videos"
    train = write_videos(videos / "train", settings.train_videos, 2 * seed)
    held_out = write_videos(videos / "held_out", settings.held_out_videos, 2 * seed + 1)
    lessons = None
    checkpoint = folder / "checkpoints/untrained"
    if not (checkpoint / "config.json").is_file():
        write_tiny_checkpoint(checkpoint, words(), seed=seed, num_frames=FRAMES["ground"])
    for name in STAGES[:-1]:
        start, checkpoint = checkpoint, folder / "checkpoints" / name
        if (checkpoint / "config.json").is_file():
            continue
        lessons = lessons or write_curriculum(train, videos / "train", folder / "lessons", seed)
        train_stage(start, checkpoint, lessons[name], getattr(settings, name), FRAMES[name], seed)
    return train, held_out


def train_here(out: Path, flags: Sequence[str]) -> dict:
    """Train in this process, unless it was done; return CPU seconds and steps."""
    record = out / "cost.json"
    if not record.is_file():
        shutil.rmtree(out, ignore_errors=True)
        began = time.process_time()
        code = finetune.main([*flags, "--use_cpu", "True", "--disable_tqdm", "True"])
        if code != 0:
            raise SystemExit(code)
        steps = json.loads((out / "run.json").read_text())["steps"]
        cost = {"seconds": time.process_time() - began, "steps": steps}
        record.write_text(json.dumps(cost))
    return json.loads(record.read_text())


def score(checkpoint: Path, meta: Path) -> dict[str, float]:
    """Mean set IoU of greedy answers in percent, and the share of right numbers of intervals."""
    record = checkpoint / f"{meta.stem}.scores.json"
    if record.is_file():
        return json.loads(record.read_text())
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    processor = DisTimeProcessor.from_pretrained(checkpoint)
    settings = DataSettings(
        min_num_frame=FRAMES["ground"], max_num_frame=FRAMES["ground"], sampling_method="eval",
        share_video_prefix=True,
    )  # fmt: skip
    data = TrainingData(meta, processor, settings)
    ious, counts = [], []

    def job(index: int) -> Job:
        group = data[index, 0]
        prefix, asked = split(processor, group)
        inputs = inputs_of(processor, group, prefix, asked)
        return Job(lambda: inputs, Decoding(max_new_tokens=16), tag=(group.duration, asked))

    for finished in Engine(model, processor).run(job(index) for index in range(len(data))):
        duration, asked = finished.job.tag
        for one, answer in zip(asked, finished.first_answers(), strict=True):
            predicted = [(event.start, event.end) for event in answer.events]
            ious.append(REWARDS["tiou"](predicted, one.truth, duration))
            counts.append(REWARDS["cacc"](predicted, one.truth, duration))
    found = {"miou": 100 * sum(ious) / len(ious), "counts": 100 * sum(counts) / len(counts)}
    record.write_text(json.dumps(found))
    return found


def measure(folder: Path, setting: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Train and score everything of one setting and seed."""
    train, held_out = prepare_toy(folder, seed)
    lessons, out = folder / "rewards_lessons", folder / "rewards"
    first, then, held = SETTINGS[setting]
    videos = folder / "videos"
    first_meta = write_meta(lessons, first.__name__, train, videos / "train", first)
    meta = write_meta(lessons, then.__name__, train, videos / "train", then)
    truth = write_meta(lessons, f"{held.__name__}_held_out", held_out, videos / "held_out", held)
    stage = replace(
        QuickstartSettings().ground, steps=arguments.early, schedule="constant_with_warmup"
    )
    batch = ("--per_device_train_batch_size", str(stage.batch_size))
    early, out = out / f"early_{first.__name__}", out / setting
    start = folder / "checkpoints" / STAGES[-2]
    flags = stage_flags(start, early, first_meta, stage, FRAMES["ground"], seed)
    cost = train_here(early, [*flags, *batch])
    found = {"early": score(early, truth) | cost}
    rates = {"grpo": arguments.grpo_rate}
    steps = arguments.steps
    for name in ("grpo", "expected_reward", "supervised"):
        after = replace(
            stage, steps=steps, schedule="cosine",
            learning_rate=rates.get(name, stage.learning_rate / 2),
        )  # fmt: skip
        flags = stage_flags(early, out / name, meta, after, FRAMES["ground"], seed + 1000)
        rewards = REWARDED.get(setting, ()) if name == "grpo" else ()
        found[name] = train_here(out / name, [*flags, *batch, *OBJECTIVES[name], *rewards])
        found[name] = score(out / name, truth) | found[name]
        if name == "grpo":  # as many steps of the others as take as long
            steps = round(found[name]["seconds"] / (cost["seconds"] / cost["steps"]))
        print(f"  {name}: {describe(found[name])}", flush=True)
    return found


def describe(one: dict) -> str:
    """One result in words."""
    return (
        f"mIoU {one['miou']:.1f}, right number {one['counts']:.1f} %, {one['steps']} steps, "
        f"{one['seconds']:.0f} CPU s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("rewards_toy"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--early", type=int, default=150, help="steps before it is stopped")
    parser.add_argument("--steps", type=int, default=100, help="steps of grpo")
    parser.add_argument("--grpo_rate", type=float, default=5e-4, help="its learning rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = {}
    for setting in arguments.settings:
        for seed in arguments.seeds:
            print(f"{setting}, seed {seed}", flush=True)
            found = measure(arguments.output / f"seed{seed}", setting, seed, arguments)
            table[setting, seed] = found
            print(f"  early: {describe(found['early'])}", flush=True)
    names = ("early", *OBJECTIVES)
    print(f"\nheld-out mIoU of the set, percent\n{'':>16}" + "".join(f"{n:>17}" for n in names))
    for setting in arguments.settings:
        rows = [table[setting, seed] for seed in arguments.seeds]
        for label, key, some in (
            *(
                (f"{setting} {seed}", "miou", [row])
                for seed, row in zip(arguments.seeds, rows, strict=True)
            ),
            ("mean", "miou", rows),
            ("right number", "counts", rows),
            ("CPU seconds", "seconds", rows),
        ):
            means = [sum(row[name][key] for row in some) / len(some) for name in names]
            print(f"{label:>16}" + "".join(f"{mean:>17.1f}" for mean in means))


if __name__ == "__main__":
    main()
