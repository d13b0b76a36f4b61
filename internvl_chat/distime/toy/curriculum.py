"""Training items about synthetic videos, as ordinary annotation files: the quickstart's lessons.

Four stages, each a meta file: what single frames show; what is visible when, and what at all, in a
video of four frames, with some groundings; the same in sixteen; and groundings alone. Grounding
alone is not learned from a few hundred videos, nor is looking things up among sixteen frames
learned as fast as among four first.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from distime.processing.questions import moment_retrieval_question
from distime.processing.sampling import train_frame_indices
from distime.toy.synthetic import COLORS, SHAPES, ShapeEvent, SyntheticVideo, render

STAGES = ("look", "glimpse", "relate", "ground")
FRAMES = {"look": 1, "glimpse": 4, "relate": 16, "ground": 16}
"""Frames of a video that the model sees in each stage."""
_FRAMES_PER_VIDEO = 4
_TIMES_PER_VIDEO = 10
_EXISTENCE_PER_VIDEO = 6
_GROUNDINGS_PER_VIDEO = 2
_NOTHING = "nothing."


def _conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _name(event: ShapeEvent) -> str:
    return f"{event.color} {event.shape}"


def _visible_at(spec: SyntheticVideo, time: float) -> str:
    """What the answer to "what is visible at `time` (seconds)?" is."""
    for event in spec.events:
        if event.start <= time < event.end:
            return f"{_name(event)}."
    return _NOTHING


def _existence(tag: str, present: Sequence[str], appears: bool, rng: random.Random) -> list[dict]:
    """Ask for something that is there, or for something in a colour that is not."""
    if appears:
        name = rng.choice(present)
    else:
        colors = sorted(COLORS.keys() - {name.split()[0] for name in present})
        name = f"{rng.choice(colors)} {rng.choice(SHAPES)}"
    return _conversation(f"{tag}\nDoes the {name} appear?", "yes." if appears else "no.")


def frame_items(spec: SyntheticVideo, folder: Path, rng: random.Random) -> list[dict]:
    """Captions of single frames and what they show; writes the frames into `folder`."""
    frames = render(spec)
    # Half of the frames from events, so that "nothing" is not the usual answer.
    busy = [round((event.start + event.end) / 2 * spec.fps) for event in spec.events]
    busy += [round(rng.uniform(e.start, e.end - 1 / spec.fps) * spec.fps) for e in spec.events]
    numbers = rng.sample(busy, min(len(busy), _FRAMES_PER_VIDEO // 2))
    numbers += rng.sample(range(len(frames)), _FRAMES_PER_VIDEO - len(numbers))
    items = []
    for number in numbers:
        name = f"{spec.name}_{number:04d}.png"
        if not (folder / name).exists():
            Image.fromarray(np.ascontiguousarray(frames[number])).save(folder / name)
        answer = _visible_at(spec, number / spec.fps)
        conversations = [_conversation("<image>\nWhat is visible in the image?", answer)]
        present = [] if answer == _NOTHING else [answer.removesuffix(".")]
        for appears in (True, False) if present else (False,):
            conversations.append(_existence("<image>", present, appears, rng))
        items += [{"image": name, "conversations": turns} for turns in conversations]
    return items


def glimpse_items(spec: SyntheticVideo, rng: random.Random) -> list[dict]:
    """The same three kinds of relations, for a model that sees only a few frames."""
    shown = train_frame_indices(spec.num_frames, FRAMES["glimpse"])
    answers = {_visible_at(spec, number / spec.fps) for number in shown}
    seen = [event for event in spec.events if f"{_name(event)}." in answers]
    return relations(spec, shown, seen, rng)


def relation_items(spec: SyntheticVideo, rng: random.Random) -> list[dict]:
    """What is at a time, whether something appears, and two groundings."""
    shown = train_frame_indices(spec.num_frames, FRAMES["relate"])
    return relations(spec, rng.sample(shown, _TIMES_PER_VIDEO), spec.events, rng)


def relations(
    spec: SyntheticVideo, frames: Sequence[int], seen: Sequence[ShapeEvent], rng: random.Random
) -> list[dict]:
    """What is visible in each of some frames, whether something appears, and two groundings.

    Args:
        spec: the video.
        frames: that are asked about, best among those that a model is shown.
        seen: the events that it can know of.
        rng: of what is asked.
    """
    items = _times(spec, frames)
    items += _existences(spec, [_name(event) for event in seen], rng)
    asked = rng.sample(seen, min(len(seen), _GROUNDINGS_PER_VIDEO))
    items += [_grounding(spec, event) for event in asked]
    rng.shuffle(items)  # a group of any size then holds some of each kind
    return items


def _times(spec: SyntheticVideo, frames: Sequence[int]) -> list[dict]:
    """What is visible at the times of some frames: there is then one frame that answers."""
    items = []
    for number in frames:
        time = round(number / spec.fps, 2)
        question = "<video>\nWhat is visible at <TIME_STAMP>?"
        conversation = _conversation(question, _visible_at(spec, time))
        items.append({"video": spec.file_name, "tgt": [time, time], "conversations": conversation})
    return items


def _existences(spec: SyntheticVideo, present: Sequence[str], rng: random.Random) -> list[dict]:
    """Whether things appear; half of them do, if any does."""
    items = []
    for number in range(_EXISTENCE_PER_VIDEO):
        turns = _existence("<video>", present, bool(present) and number % 2 == 0, rng)
        items.append({"video": spec.file_name, "conversations": turns})
    return items


def grounding_items(spec: SyntheticVideo) -> list[dict]:
    """One grounding for each event."""
    return [_grounding(spec, event) for event in spec.events]


def _grounding(spec: SyntheticVideo, event: ShapeEvent) -> dict:
    question = "<video>\n" + moment_retrieval_question(event.query)
    return {
        "video": spec.file_name,
        "tgt": [event.start, event.end],
        "conversations": _conversation(question, "The event is depicted at <TIME_STAMP>."),
    }


def write_curriculum(
    specs: Sequence[SyntheticVideo], videos: Path, out: Path, seed: int
) -> dict[str, Path]:
    """Write the three stages' annotation and meta files; return the meta file of each.

    Args:
        specs: the training videos.
        videos: folder with their files.
        out: folder for annotations and still frames.
        seed: of the choice of frames, times and questions.
    """
    frames = out / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    items: dict[str, list[dict]] = {stage: [] for stage in STAGES}
    for spec in specs:
        rng = random.Random(f"{seed} {spec.name}")
        items["look"] += frame_items(spec, frames, rng)
        items["glimpse"] += glimpse_items(spec, rng)
        items["relate"] += relation_items(spec, rng)
        items["ground"] += grounding_items(spec)
    metas = {}
    for stage, lines in items.items():
        annotation = out / f"{stage}.jsonl"
        annotation.write_text("".join(json.dumps(line) + "\n" for line in lines))
        root = frames if stage == "look" else videos
        meta = {
            f"synthetic {stage}": {
                "root": str(root.resolve()),
                "annotation": annotation.name,
                "repeat_time": 1,
                "length": len(lines),
                "data_augment": False,
            }
        }
        metas[stage] = out / f"{stage}.json"
        metas[stage].write_text(json.dumps(meta, indent=2) + "\n")
    return metas


def words() -> list[str]:
    """Every text of the curriculum, for a tokenizer that knows just these words."""
    names = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    return [
        *names,
        moment_retrieval_question("the red square is visible."),
        "What is visible in the image? What is visible at? nothing. Does the appear? yes. no.",
        "The event is depicted at.",
    ]
