"""E.T. Bench: the published scorer's values again, and small answers scored by hand."""

from __future__ import annotations

import json
import shutil

import pytest

from distime.benchmarks import find, official_data, score
from distime.data.official import prepare
from distime.evaluate.settings import Settings
from distime.processing.answers import Answer, Event

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="captions need Java")


@needs_java
def test_as_the_published_scorer_scores(shared):
    """To its five decimals; left out are options it compares by a sentence model, and SentSim."""
    folder = shared / "benchmarks_2026"
    if not folder.is_dir():
        pytest.skip("the owners' files are not on this machine")
    reference = json.loads((folder / "reference_scores.json").read_text())["benchmarks"]
    gt = folder / "annotations/etbench/SYNTHETIC_etbench_vid_v1.0.json"
    compared = 0
    for entry in reference["etbench"]:
        as_run = score("etbench", folder / entry["predictions"], gt, published=True)
        as_run = as_run.published_as_run
        for task, sources in entry["numbers"].items():
            for source, numbers in sources.items():
                numbers = numbers.get("explicit_choice_final", numbers.get("d=3", numbers))
                for name, value in numbers.items():
                    name = {"mRec": "Rec"}.get(name, name)
                    ours = as_run.get(f"{task}/{source}/{name}_as_run")
                    if ours is None:
                        chosen = task in ("rar", "eca", "rvq", "gvq")
                        assert chosen or name in ("SentSim", "Total", "Failed"), (task, name)
                    else:
                        assert ours == pytest.approx(100 * value, abs=1e-9), (task, source, name)
                        compared += 1
    assert compared == 172


OPTIONS = ["a cat", [1.0, 5.0], "a dog", "a man walks"]
ITEMS = [
    {"task": "rar", "source": "s", "idx": 0, "p": 2, "o": OPTIONS, "q": "At <vid>?", "src": [7.5]},
    {"task": "eca", "source": "s", "idx": 0, "p": 1, "o": OPTIONS, "q": "When?"},
    {"task": "rvq", "source": "s", "idx": 0, "p": 3, "o": OPTIONS, "q": "Which?"},
    {"task": "tvg", "source": "s", "idx": 0, "tgt": [0, 10], "q": "?"},
    {"task": "tvg", "source": "s", "idx": 1, "tgt": [0, 10], "q": "?"},
    {"task": "tvg", "source": "t", "idx": 0, "tgt": [0, 10], "q": "?"},
    {"task": "epm", "source": "s", "idx": 0, "tgt": [3, 4], "q": "?"},
    {"task": "tal", "source": "s", "idx": 0, "tgt": [[0, 10], [20, 30]], "q": "?"},
    {"task": "evs", "source": "s", "idx": 0, "tgt": [[0, 4], [1000, 1004]], "q": "?"},
    {"task": "evs", "source": "s", "idx": 1, "tgt": [[0, 4]], "q": "?"},
    {"task": "vhd", "source": "s", "idx": 0, "tgt": [[[1, 2]], [[5, 6], [8, 9]]], "q": "?"},
    {"task": "dvc", "source": "s", "idx": 0, "tgt": [[0, 10], [20, 30]], "q": "?",
     "g": ["A man walks in.", "He sits down there."]},
    {"task": "slc", "source": "s", "idx": 0, "tgt": [[0, 10]], "g": ["He cuts the bread."],
     "q": "?"},
    {"task": "tem", "source": "s", "idx": 0, "tgt": [[0, 1], [5, 9]], "q": "?"},
    {"task": "gvq", "source": "s", "idx": 0, "tgt": [5, 9], "p": 0, "o": OPTIONS, "q": "?"},
]  # fmt: skip
ITEMS = [{**item, "video": f"V{number}"} for number, item in enumerate(ITEMS)]


@pytest.fixture
def benchmark(tmp_path):
    """E.T. Bench over a prepared annotation."""
    (tmp_path / "etbench_vid_v1.0.json").write_text(json.dumps(ITEMS))
    source = tmp_path / "etbench_vid_v1.0.json"
    assert prepare(official_data()["etbench"], source, tmp_path / "made").queries == len(ITEMS)
    (tmp_path / "config.json").write_text("{}")
    settings = Settings(
        checkpoint=tmp_path, benchmark="etbench", video_root=tmp_path, out_dir=tmp_path,
        annotation=tmp_path / "made" / source.name, device="cpu",
    )  # fmt: skip
    return find("etbench")(settings)


def scored(benchmark, texts, tmp_path):
    """The score of texts by (task, idx of source s)."""
    path = tmp_path / "answers.jsonl"
    rows = [{"task": t, "source": "s", "idx": i, "a": a} for (t, i), a in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return score("etbench", path, benchmark.settings.annotation, published=True)


def test_tasks_by_hand(benchmark, tmp_path):
    texts = {
        ("rar", 0): "The answer is (c).",
        ("eca", 0): "Best Option: (D) or so",
        ("rvq", 0): "It is a man walks",
        ("tvg", 0): "5 - 0 seconds",
        ("epm", 0): "nothing",
        ("tal", 0): "0 - 10, 0 - 6",
        ("evs", 0): "0 - 4, 1000 - 1004",
        ("evs", 1): "none",
        ("vhd", 0): "at 8.5 s",
        ("tem", 0): "It starts at 5 s\nIt ends at 9 s",
        ("gvq", 0): "(B) 5 - 9",
    }
    result = scored(benchmark, texts, tmp_path)
    metrics, as_run = result.metrics, result.published_as_run
    # s: IoU 0.5 and none; t: none. 0.1, 0.3 and 0.5 are reached by one of two.
    assert metrics["TVG F1"] == pytest.approx(100 * 3 / 8 / 2)
    assert as_run["tvg/s/F1_as_run"] == pytest.approx(75)
    assert metrics["RAR Acc"] == metrics["RVQ Acc"] == 100 and metrics["EVC Acc"] == 0
    assert as_run["eca/s/Acc_as_run"] == 0 and "rvq/s/Acc_as_run" not in as_run
    assert metrics["EPM F1"] == 0 and metrics["VHD F1"] == 100 and metrics["TEM Rec"] == 100
    # Recall 1/2 and precision 1 up to 0.5; precision 1/2 at 0.7.
    assert metrics["TAL F1"] == pytest.approx(100 * (3 * 2 / 3 + 1 / 2) / 4)
    assert metrics["EVS F1"] == pytest.approx(50) and as_run["evs/s/F1_as_run"] == 100
    assert metrics["GVQ Rec"] == metrics["GVQ mIoU"] == metrics["GVQ Acc"] == 0
    assert result.counts["missing"] == 4 and result.counts["unknown"] == 0
    assert any("sentences (1 answers)" in text for text in result.warnings)


@needs_java
def test_captions_by_hand(benchmark, tmp_path):
    text = "0 - 10 seconds, a man walks in. 50 - 60 seconds, he sits down there."
    result = scored(benchmark, {("dvc", 0): text, ("slc", 0): "bread"}, tmp_path)
    assert result.metrics["DVC F1"] == pytest.approx(50)
    assert result.metrics["SLC F1"] == result.metrics["SLC METEOR"] == 0
    # The first caption is right, the second stands alone.
    assert result.metrics["DVC ROUGE_L"] == pytest.approx(50)


@needs_java
def test_what_we_write_is_read(benchmark, tmp_path):
    queries = list(benchmark.queries())
    assert queries[0].question == "At 7.5 seconds?"
    answered = []
    for query in queries:
        item, events = query.item, tuple(benchmark.truth(query))
        text = "<TIME_STAMP>" * len(events)
        if "p" in item:
            text = f"({'ABCD'[item['p']]}) {text}"
        if "g" in item:
            pairs = zip(events, item["g"], strict=True)
            events = tuple(Event(event.start, event.end, text=words) for event, words in pairs)
        answered.append((query, Answer(text, events, 20.0)))
    result = score(
        "etbench", benchmark.write(answered, tmp_path), benchmark.settings.annotation,
        published=True,
    )  # fmt: skip
    assert {name: result.metrics[name] for name in benchmark.headline} == {
        name: pytest.approx(100) for name in benchmark.headline
    }
    assert result.counts["missing"] == result.counts["unread_answers"] == 0
