"""Every benchmark's annotation, written by hand for synthetic videos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from distime.benchmarks.charades import synthetic_queries, synthetic_truth
from distime.toy.synthetic import (
    SyntheticVideo,
    render,
)

RUNS = ["charades", "anet", "qvh", "youcook2_dvc", "anet_dvc", "nextgqa 1", "nextgqa 2"]
RUNS += ["mvbench", "longvideobench"]
"""Benchmark and stage of every run; nextgqa 2 needs what nextgqa 1 writes."""

FAST = {"num_segments": 4, "max_new_tokens": 12, "device": "cpu", "workers": 1}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_benchmark(
    benchmark: str, folder: Path, root: Path, specs: Sequence[SyntheticVideo]
) -> dict[str, Any]:
    """Write a benchmark's annotation into a folder; return the settings that name it."""
    writer = globals()[f"_write_{benchmark}"]
    return {"benchmark": benchmark, "video_root": root, **FAST} | writer(folder, root, specs)


def settings_of(run: str, folder: Path, root: Path, specs: Sequence[SyntheticVideo]) -> dict:
    """Return the settings of one of `RUNS`."""
    benchmark, *stage = run.split()
    settings = write_benchmark(benchmark, folder, root, specs)
    if stage:
        settings["stage"] = int(stage[0])
    if benchmark.endswith("dvc"):
        settings["score"] = False  # METEOR's Java takes longer than all the rest
    return settings


def _write_charades(folder, root, specs):
    write_json(folder / "charades_sta_test.json", synthetic_truth(specs))
    return {"annotation": write_json(folder / "test_float.json", synthetic_queries(specs))}


def _write_anet(folder, root, specs):
    annotation = {
        spec.name: {
            "duration": spec.duration,
            "timestamps": [[event.start, event.end] for event in spec.events],
            "sentences": [f" {event.query}" for event in spec.events],
        }
        for spec in specs
    }
    return {"annotation": write_json(folder / "val_2.json", annotation)}


_write_anet_dvc = _write_anet


def _write_qvh(folder, root, specs):
    annotation = [
        {
            "video": spec.name,
            "qid": f"QVHighlight_{spec.seed}_{number}",
            "query": event.query,
            "duration": round(spec.duration),
            "relevant_windows": [[event.start, event.end]],
        }
        for spec in specs
        for number, event in enumerate(spec.events)
    ]
    return {"annotation": write_json(folder / "val.json", annotation)}


def _write_youcook2_dvc(folder, root, specs):
    annotation = [
        {
            "image_id": f"{spec.name}.mp4",
            "duration": spec.duration,
            "segments": [[event.start, event.end] for event in spec.events],
            "pure_cap": ". ".join(event.query.rstrip(".") for event in spec.events),
        }
        for spec in specs
    ]
    path = folder / "val.caption_coco_format.json"
    return {"annotation": write_json(path, {"annotations": annotation})}


def _write_nextgqa(folder, root, specs):
    questions, locations, table = [], {}, ["video_id,question,answer,qid,type"]
    for spec in specs:
        windows = {}
        for number, event in enumerate(spec.events):
            options = {
                f"a{i}": f"{word}." for i, word in enumerate(["red", "blue", "up", "no", "yes"])
            }
            questions.append(
                {
                    "video": f"0001/{spec.name}",
                    "num_option": 5,
                    "qid": f"TN_{spec.name.replace('_', '-')}_{number}",
                    **options,
                    "answer": number % 5,
                    "question": f"what is seen when {event.query}",
                }
            )
            windows[str(number)] = [[event.start, event.end]]
            table.append(f"{spec.name.replace('_', '-')},what,red,{number},TN")
        locations[spec.name.replace("_", "-")] = {"duration": spec.duration, "location": windows}
    write_json(folder / "gsub_test.json", locations)
    (folder / "test.csv").write_text("\n".join(table) + "\n")
    # As released: videos lie in numbered folders.
    nested = folder / "NExTVideo" / "0001"
    nested.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        shutil.copy(root / spec.file_name, nested)
    return {"annotation": write_json(folder / "test.json", questions), "video_root": folder}


def _write_mvbench(folder, root, specs):
    """A task of videos, one of bounded videos, a gif, and a folder of frames."""
    videos = folder / "video"
    first, second, third = specs[:3]
    copies = {"ssv2_video": first, "star/Charades_v1_480": second, "perception/videos": third}
    for place, spec in copies.items():
        (videos / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / spec.file_name, videos / place / spec.file_name)
    pictures = [Image.fromarray(frame) for frame in render(first)[:30]]
    gif = videos / "ssv2_video" / "moving.gif"
    pictures[0].save(gif, save_all=True, append_images=pictures[1:])
    frames = videos / "tvqa/frames_fps3_hq/s01_clip"
    frames.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, 1):
        picture.save(frames / f"{number:05d}.jpg")

    def item(video, answer, **bound):
        options = ["Up.", "Down.", "Left."]
        question = f"Where does {video[:6]} go?"
        values = {"video": video, "question": question, "candidates": options, "answer": answer}
        return values | bound

    tasks = {
        "action_antonym": [item(first.file_name, "Up."), item("moving.gif", "Down.")],
        "action_sequence": [
            item(second.file_name, "Left.", start=2.0, end=9.5),
            item(second.file_name, "Up.", start=2.0, end=9.5),
            item(second.file_name, "Up.", start=8.0, end=19.0),
        ],
        "object_shuffle": [item(third.file_name, "Down.")],
        "episodic_reasoning": [item("s01_clip", "Left.", start=1.0, end=6.0)],
    }
    for name, items in tasks.items():
        write_json(folder / "json" / f"{name}.json", items)
    return {"annotation": folder / "json", "video_root": videos}


def _write_longvideobench(folder, root, specs):
    questions = [
        {
            "id": f"{spec.name}_{number}",
            "video_id": spec.name,
            "video_path": spec.file_name,
            "subtitle_path": f"{spec.name}_en.json",
            "starting_timestamp_for_subtitles": 10,
            "question": f"What happens when {event.query}",
            "candidates": ["Nothing.", "It rains.", "A cat sits."],
            "correct_choice": number % 3,
            "duration": spec.duration,
            "duration_group": 60,
            "level": "L1-Perception",
            "question_category": "S2E",
            "topic_category": "NP-News-Programs",
        }
        for spec in specs
        for number, event in enumerate(spec.events)
    ]
    for number, spec in enumerate(specs):
        lines = [
            {"start": f"00:00:{10 + event.start:06.3f}", "end": f"00:00:{10 + event.end:06.3f}",
             "line": f"Look, {event.query}"}
            if number % 2
            else {"timestamp": [10 + event.start, 10 + event.end], "text": event.query}
            for event in spec.events
        ]  # fmt: skip
        write_json(folder / "subtitles" / f"{spec.name}_en.json", lines)
    return {"annotation": write_json(folder / "lvb_val.json", questions)}
