"""`distime prepare`: from official files to the annotations that evaluation reads."""

import csv
import json
import re
from pathlib import Path

import pytest

from distime.benchmarks import find, official_data
from distime.cli import main
from distime.data.meta import read_meta
from distime.data.official import PrepareError
from distime.data.official import prepare as prepare_data
from distime.evaluate.settings import Settings
from evaluate.conftest import INTERNVL_CHAT

EXAMPLES = INTERNVL_CHAT / "data_example" / "official"
RELEASED = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotations"

OPTIONS = ["a0", "a1", "a2", "a3", "a4"]


def prepare(name, *arguments, **options):
    return prepare_data(official_data()[name], *arguments, **options)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "runs", "annotation", "expected"),
    [
        ("charades", [("charades", None)], "test_float.json", 3),
        ("anet", [("anet", None)], "val_2.json", 3),
        ("anet", [("anet_dvc", None)], "val_2.json", 2),
        ("qvh", [("qvh", None)], "val.json", 2),
        ("youcook2", [("youcook2_dvc", None)], "val.caption_coco_format.json", 1),
        ("nextgqa", [("nextgqa", 1)], "test.json", 3),
        ("mvbench", [("mvbench", None)], ".", 20),
        ("longvideobench", [("longvideobench", None)], "lvb_val.json", 1),
    ],
)
def test_what_is_written_can_be_evaluated(name, runs, annotation, expected, tmp_path):
    out = tmp_path / "out"
    report = prepare(name, EXAMPLES / name, out)
    assert all(path.is_file() for path in report.files) and report.missing is None
    assert report.problems  # the examples are few
    (tmp_path / "config.json").write_text("{}")
    for benchmark, stage in runs:
        settings = Settings(
            checkpoint=tmp_path,
            benchmark=benchmark,
            stage=stage,
            annotation=out / annotation,
            video_root=tmp_path,
        )
        assert len(list(find(benchmark)(settings).queries())) == expected


def test_charades_windows_are_clipped_for_inference_alone(tmp_path):
    prepare("charades", EXAMPLES / "charades", tmp_path)
    queries = read(tmp_path / "test_float.json")
    assert queries[1]["relevant_windows"] == [[20.1, 30.25]]
    assert queries[0]["objects"] == ["plant", "door"] and queries[2]["objects"] == []
    video = read(tmp_path / "charades_sta_test.json")["database"]["AAAA1"]
    assert video["annotations"][1]["segment"] == [20.1, 31.0]


def test_captions_can_be_cut_apart_again(tmp_path):
    prepare("youcook2", EXAMPLES / "youcook2", tmp_path)
    (item,) = read(tmp_path / "val.caption_coco_format.json")["annotations"]
    assert item["pure_cap"].split(". ") == ["peel two carrots", "add 1.5 cups of stock stir"]
    assert len(item["segments"]) == 2


def test_training_items_have_intervals(tmp_path):
    report = prepare("et_instruct", EXAMPLES / "et_instruct", tmp_path)
    assert report.left_out == {"a time that is no interval": 1} and report.queries == 2
    (tmp_path / "videos").mkdir()  # where the meta file expects them
    (source,) = read_meta(tmp_path / "et_instruct_meta.json")
    assert source.length == 2
    items = [json.loads(line) for line in source.annotation.read_text().splitlines()]
    assert items[0]["tgt"] == [11.4, 31.7] and items[1]["tgt"] == [4.0, 9.0]
    assert items[0]["conversations"][1]["value"] == "It appears at <TIME_STAMP>."
    assert items[1]["conversations"][0]["value"].endswith("from <TIME_STAMP>?")


def test_missing_videos_are_named_and_can_be_left_out(tmp_path, capsys):
    root = tmp_path / "videos"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "v_exampleBBBB.mkv").touch()
    command = ["prepare", "anet", "--source", str(EXAMPLES / "anet"), "--out", str(tmp_path)]
    command += ["--video-root", str(root), "--missing", str(tmp_path / "missing.txt")]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "3 queries about 2 videos" in printed and "17031" in printed
    assert (tmp_path / "missing.txt").read_text() == "v_exampleAAAA\n"
    report = prepare("anet", EXAMPLES / "anet", tmp_path, root, available_only=True)
    assert report.queries == 1 and list(read(tmp_path / "val_2.json")) == ["v_exampleBBBB"]


def test_wrong_sources_say_what_is_needed(tmp_path, capsys):
    with pytest.raises(PrepareError, match="Charades_v1_test.csv"):
        prepare("charades", tmp_path, tmp_path)
    with pytest.raises(PrepareError, match="no such file"):
        prepare("anet", tmp_path / "nowhere", tmp_path)
    (tmp_path / "val_2.json").write_text('[{"video": 1}]')
    with pytest.raises(PrepareError, match="ActivityNet Captions"):
        prepare("anet", tmp_path, tmp_path)
    with pytest.raises(PrepareError, match="--video-root"):
        prepare("anet", tmp_path, tmp_path, available_only=True)
    assert main(["prepare", "qvh", "--source", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "highlight_val_release.jsonl" in capsys.readouterr().err
    assert {"charades", "youcook2", "et_instruct"} <= official_data().keys()


# ------------------------------------------------------------- against the released annotations


@pytest.fixture
def released(tmp_path):
    if not RELEASED.is_dir():
        pytest.skip(f"the released annotations are not at {RELEASED}")
    return RELEASED


def test_charades_as_released(released, tmp_path):
    """Written back to the official form, the released annotation is what we make of it."""
    queries = read(released / "charades/test_float.json")
    metric = read(released / "charades/charades_sta_test.json")
    lines, table = [], {}
    windows = [a["segment"] for v in metric["database"].values() for a in v["annotations"]]
    for query, (start, end) in zip(queries, windows, strict=True):
        lines.append(f"{query['video']} {start} {end}##{query['query']}")
        table[query["video"]] = (query["duration"], ";".join(query["objects"]))
    (tmp_path / "charades_sta_test.txt").write_text("\n".join(lines))
    with (tmp_path / "Charades_v1_test.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "objects", "length"])
        writer.writerows([video, objects, length] for video, (length, objects) in table.items())
    report = prepare("charades", tmp_path, tmp_path / "out")
    assert not report.problems
    assert read(tmp_path / "out/test_float.json") == queries
    assert read(tmp_path / "out/charades_sta_test.json") == metric


def test_nextgqa_as_released(released, tmp_path):
    questions = read(released / "nextgqa/test.json")
    for name in ("test.csv", "gsub_test.json"):
        (tmp_path / name).write_bytes((released / "nextgqa" / name).read_bytes())
    folders = {q["video"].split("/")[1]: q["video"] for q in questions}
    (tmp_path / "map_vid_vidorID.json").write_text(json.dumps(folders))
    (tmp_path / "nextqa").mkdir()
    with (tmp_path / "nextqa" / "test.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["video", "question", "answer", "qid", "type", *(f"a{i}" for i in range(5))]
        )
        for q in questions:
            kind, video, number = re.fullmatch(r"(\w+)_(\w+)_(\d+)", q["qid"]).groups()
            options = [q[name][:-1] for name in OPTIONS]
            writer.writerow([video, q["question"][:-1], q["answer"], number, kind, *options])
    report = prepare("nextgqa", tmp_path, tmp_path / "out")
    assert not report.problems
    assert read(tmp_path / "out/test.json") == questions


@pytest.mark.parametrize("name", ["anet", "longvideobench"])
def test_counts_of_unchanged_files(name, released, tmp_path):
    report = prepare(name, released / name, tmp_path)
    assert not report.problems
    (path,) = report.files
    assert read(path) == read(released / name / path.name)


@pytest.mark.parametrize(
    ("run", "path", "queries"),
    [
        ("charades", "charades/example_queries.json", 2),
        ("nextgqa", "nextgqa/example/test.json", 3),
        ("anet", "anet/example_annotation.json", None),
        ("qvh", "qvhighlights/example_annotation.json", None),
        ("youcook2_dvc", "youcook2_dvc/example_annotation.json", None),
        ("longvideobench", "longvideobench/example_annotation.json", None),
    ],
)
def test_examples_can_be_evaluated(run, path, queries, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    stage = 1 if run == "nextgqa" else None
    settings = Settings(
        checkpoint=tmp_path,
        benchmark=run,
        stage=stage,
        annotation=INTERNVL_CHAT / "data_example" / path,
        video_root=tmp_path,
        score=False,
    )
    found = list(find(run)(settings).queries())
    assert len(found) == queries if queries else found
