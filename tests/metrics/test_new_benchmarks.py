"""Benchmarks of 2025 and 2026: the owners' scores again, and small files written by hand."""

from __future__ import annotations

import json
import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import benchmarks, find, official_data, score
from distime.benchmarks.base import SettingsError
from distime.data.official import PrepareError, prepare
from distime.evaluate.settings import Settings
from distime.files import FileError
from distime.metrics import time_texts
from distime.metrics.interval_sets import merged, precision_recall, set_iou
from distime.metrics.matching import best_pairs
from distime.processing.answers import Answer, Event

SETS = {"charades": "charades", "activitynet": "anet", "qvhighlights": "qvh"}


@pytest.fixture(scope="session")
def owners(shared):
    """The folder of real and synthetic files with their owners' scores, and the scores."""
    folder = shared / "benchmarks_2026"
    if not folder.is_dir():
        pytest.skip("the owners' files are not on this machine")
    return folder, json.loads((folder / "reference_scores.json").read_text())["benchmarks"]


def close(value: float) -> object:
    return pytest.approx(value, abs=1e-9)


# ------------------------------------------------------------------------ the owners' numbers


def test_timelens_as_its_owner_scores(owners):
    folder, reference = owners
    for entry in reference["timelens_bench"]:
        path, numbers = folder / entry["predictions"], entry["numbers"]
        kind = next(kind for kind in SETS if kind in path.name)
        gt = folder / f"annotations/timelens_bench/{kind}-timelens.json"
        result = score(f"timelens_{SETS[kind]}", path, gt, published=True)
        names = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
        assert result.published_as_run == {name: close(numbers[name]) for name in names}, path
        counts = result.counts
        found = counts["queries"] - counts["missing"] - counts["equal_keys"]
        assert found == numbers["num_annos"] or counts["missing"], path
        assert counts["several"] == numbers["warn_several"]
        assert counts["unread_answers"] == numbers["warn_unparsed"]
        invalid = counts["unread_answers"] + counts["reversed"] + counts["without_length"]
        assert invalid == numbers["warn_invalid"]
        assert score(f"timelens_{SETS[kind]}", path, published=True).metrics == {
            name: close(numbers[name]) for name in names
        }


def test_tvgbench_as_its_owner_scores(owners):
    folder, reference = owners
    names = {"0.3": "R1@0.3", "0.5": "R1@0.5", "0.7": "R1@0.7", "mIoU": "mIoU", "avg": "average"}
    for entry in reference["tvgbench"]:
        gt = folder / "annotations/tvgbench/tvgbench.json"
        result = score("tvgbench", folder / entry["predictions"], gt, published=True)
        numbers = {names[key]: entry["numbers"][key] for key in names}
        expected = {name: close(value) for name, value in numbers.items() if value != "nan"}
        assert result.published_as_run == expected, entry["predictions"]
        undefined = entry["numbers"]["n_nan"]
        said = [text for text in result.warnings if f"0 by 0 at {undefined} " in text]
        assert len(said) == bool(undefined)
        assert result.counts["queries"] == 800
        assert result.counts["missing"] == 800 - entry["numbers"]["n_qids"]
        if unparsed := entry["numbers"].get("n_unparsed"):
            assert result.counts["no_answer"] == unparsed


@pytest.mark.parametrize(
    ("name", "annotation"),
    [("vue_tr_v2", "VUE-TRv2_ground_truth"), ("vue_tr", "VUE-TR_ground_truth")],
)
def test_vue_tr_as_its_owner_scores(name, annotation, owners):
    folder, reference = owners
    gt = folder / f"annotations/{name}/{annotation}.json"
    names = {"iou_auc": "IoU", "precision_auc": "Precision", "recall_auc": "Recall"}
    for entry in reference[name]:
        result = score(name, folder / entry["predictions"], gt, published=True)
        for group, numbers in entry["numbers"].items():
            if not isinstance(numbers, dict):
                continue
            suffix = "" if group == "overall" else f" {group}"
            for key, ours in names.items():
                value = result.published_as_run[f"{ours}{suffix}_as_listed"]
                assert value == close(100 * numbers[key]), (entry["predictions"], group, key)


def test_vue_tr_v2_as_published(owners):
    """The table of its owner, to two decimals."""
    folder, _ = owners
    gt = folder / "annotations/vue_tr_v2/VUE-TRv2_ground_truth.json"
    files = {"Vidi2": "Vidi2", "Gemini-3-Pro": "Gemini-3-Pro-Prev", "GPT-5": "GPT-5"}
    for model, shown in find("vue_tr_v2").peers.items():
        path = folder / f"predictions/vue_tr_v2/owner_{files[model]}.json"
        as_run = score("vue_tr_v2", path, gt, published=True).published_as_run
        for name, value in shown.items():
            assert as_run[f"{name}_as_listed"] == pytest.approx(value, abs=0.00501), (model, name)


def test_rextime_as_its_owner_scores(owners):
    folder, reference = owners
    gt = folder / "annotations/rextime/rextime_val.jsonl"
    for entry in reference["rextime"]:
        result = score("rextime", folder / entry["predictions"], gt, published=True)
        numbers = entry["numbers"]
        full, as_run = numbers.get("full", {}), result.published_as_run
        if "VQA" in numbers:
            assert as_run["VQA_rounded"] == close(100 * numbers["VQA"])
        if full:
            assert as_run["mIoU_rounded"] == close(full["MR-mIoU"])
        for threshold, value in full.get("MR-R1", {}).items():
            assert as_run[f"R1@{threshold}_rounded"] == close(value)
        for name, value in full.get("VQA,mIoU", {}).items():
            assert as_run[f"{name}_rounded"] == close(100 * value)
        for name, value in numbers.get("unrounded", {}).items():
            scale = 100 if name.startswith("VQA") else 1
            assert result.metrics[name] == close(scale * value)


def test_timelens2_scores_of_texts(owners):
    folder, reference = owners
    for entry in reference["timelens2_timelens"]:
        path, numbers = folder / entry["predictions"], entry["numbers"]
        kind = next(kind for kind in SETS if kind in path.name)
        gt = folder / f"annotations/timelens_bench/{kind}-timelens.json"
        result = score(f"timelens_{SETS[kind]}", path, gt, published=True)
        assert result.counts["queries"] == numbers["total_count"]
        assert result.published_as_run["mIoU_of_texts"] == close(100 * numbers["miou_unrounded"])
        for name in ("r1_03", "r1_05", "r1_07"):
            ours = result.published_as_run[f"R1@0.{name[-1]}_of_texts"]
            assert round(ours / 100, 4) == numbers[name]
        for line in numbers["printed"][1:]:
            name, hits, total = re.match(r"(\S+): (\d+)/(\d+)", line).groups()
            ours = result.published_as_run[f"{name}_of_texts_printed"]
            assert ours == close(100 * int(hits) / int(total))
    (entry,) = reference["timelens2_vue_tr_v2"]
    gt = folder / "annotations/vue_tr_v2/VUE-TRv2_ground_truth.json"
    result = score("vue_tr_v2", folder / entry["predictions"], gt, published=True)
    groups = {"": entry["numbers"]["overall"]} | {
        f" {value}": numbers
        for part in ("by_duration", "by_query_format")
        for value, numbers in entry["numbers"][part].items()
    }
    names = {"iou_auc": "IoU", "precision_auc": "Precision", "recall_auc": "Recall"}
    for group, numbers in groups.items():
        for name, value in numbers.items():
            if name != "num":
                ours = f"{names.get(name, name)}{group}_of_vision"
                assert result.published_as_run[ours] == close(100 * value), ours


def test_tacos_as_its_owners_score(owners):
    folder, reference = owners
    gt = folder / "annotations/tacos/tacos_test_release.jsonl"
    for entry in reference["tacos_lighthouse"] + reference["tacos_moment_detr"]:
        result = score("tacos", folder / entry["predictions"], gt, published=True)
        as_run, numbers = result.published_as_run, entry["numbers"]
        for group, table in numbers["owner"].items():
            if group == "brief":
                continue
            prefix = "" if group == "full" else f"MR-{group}-"
            for name, value in table["MR-mAP"].items():
                ours = "mAP-average" if name == "average" else f"mAP@{name}"
                assert as_run[f"{prefix}{ours}_rounded"] == close(value), (group, name)
            for name, value in table["MR-R1"].items():
                assert as_run[f"{prefix}R1@{name}_rounded"] == close(value), (group, name)
        names = {"mAP_average": "mAP-average", "mean_paired_iou": "mIoU"}
        for name, value in numbers.get("unrounded", {}).items():
            assert result.metrics[names.get(name, name)] == close(value), name
    gt = folder / "annotations/tacos/unitime_tacos_test_all.json"
    for entry in reference["tacos_unitime"]:
        result = score("tacos", folder / entry["predictions"], gt, published=True)
        assert_summed(result.published_as_run, entry["numbers"])


def assert_summed(as_run, numbers):
    for name in ("R1@0.3", "R1@0.5", "R1@0.7"):
        assert as_run[f"{name}_summed"] == close(numbers[name])
    assert as_run["mIoU_summed"] == close(numbers["mIoU"])


def test_ego4d_nlq_as_its_owners_score(owners):
    folder, reference = owners
    annotations = folder / "annotations/ego4d_nlq"
    for entry in reference["ego4d_nlq"]:
        gt = annotations / "SYNTHETIC_nlq_val.json"
        result = score("ego4d_nlq", folder / entry["predictions"], gt, published=True)
        numbers = {k: v for k, v in entry["numbers"].items() if isinstance(v, float)}
        expected = {f"{name}_of_answered": close(value) for name, value in numbers.items()}
        assert result.published_as_run == expected
        assert len(result.warnings) == (entry["numbers"]["mIoU"] == "nan")
    (entry,) = reference["ego4d_nlq_unitime"]
    gt = annotations / "unitime_ego4d_val_all.json"
    result = score("ego4d_nlq", folder / entry["predictions"], gt, published=True)
    assert_summed(result.published_as_run, entry["numbers"])
    (entry,) = reference["timelens2_ego4d_nlq"]
    gt = annotations / "SYNTHETIC_ego4d_nlq_val_v2.jsonl"
    result = score("ego4d_nlq", folder / entry["predictions"], gt, published=True)
    groups = {"": entry["numbers"]["overall"]}
    groups |= {f" {kind}": one for kind, one in entry["numbers"]["by_query_type"].items()}
    assert result.published_as_run == {
        f"{name}{group}_of_sets": close(100 * value)
        for group, table in groups.items()
        for name, value in table.items()
        if isinstance(value, float)
    }


def test_momentseeker_as_timelens2_scores(owners):
    folder, reference = owners
    (entry,) = reference["momentseeker"]
    gt = folder / "annotations/momentseeker/SYNTHETIC_t2v.json"
    result = score("momentseeker", folder / entry["predictions"], gt, published=True)
    groups = {"": entry["numbers"]["overall"]}
    groups |= {f" {task}": numbers for task, numbers in entry["numbers"]["by_task"].items()}
    for suffix, numbers in groups.items():
        for name in ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7"):
            assert result.metrics[f"{name}{suffix}"] == close(100 * numbers[name])


def test_omtg_bench_as_vlmevalkit_scores(owners):
    folder, reference = owners
    gt = folder / "annotations/omtg_bench/SYNTHETIC_OMTGBench.json"
    for entry in reference["omtg_bench"]:
        result = score("omtg_bench", folder / entry["predictions"], gt, published=True)
        expected = {f"{name}_as_run": close(value) for name, value in entry["numbers"].items()}
        assert result.published_as_run == expected


def test_omtg_bench_missing_rows_are_misses_where_nothing_happens(tmp_path):
    truth = [{"index": 0, "answer": "1 to 2"}, {"index": 1, "answer": "It does not happen."}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "said.tsv").write_text("index\tprediction\n0\t[1, 2]\n")
    result = score("omtg_bench", tmp_path / "said.tsv", tmp_path / "truth.json", published=True)
    assert list(result.metrics.values()) == [close(50)] * len(result.metrics)
    assert result.published_as_run["EtF1_as_run"] == 100 and result.counts["missing"] == 1


def test_omtg_bench_by_hand(tmp_path):
    rows = [
        {"index": 0, "answer": "<time>0 - 8 seconds</time>"},
        {"index": 1, "answer": "It does not happen."},
        {"index": 2, "answer": "<time>0 - 4 seconds</time>, <time>10 - 14 seconds</time>"},
    ]
    said = ["0 - 5 seconds, 3 - 8 seconds", "none", "<time>10 - 14 seconds</time>"]
    answers = [{"index": i, "prediction": text} for i, text in enumerate(said)]
    gt, pred = tmp_path / "gt.json", tmp_path / "results.json"
    gt.write_text(json.dumps(rows))
    pred.write_text(json.dumps(answers))
    result = score("omtg_bench", pred, gt, published=True)
    assert result.metrics["tIoU"] == pytest.approx(100 * (1 + 1 + 0.5) / 3)
    assert result.metrics["C-Acc"] == pytest.approx(100 / 3)
    # [0, 5] and [3, 8] have an IoU of 5/8 with [0, 8]; one of them is matched.
    assert result.metrics["tP@0.5"] == pytest.approx(100 * (1 / 2 + 1 + 1) / 3)
    assert result.metrics["tP@0.7"] == pytest.approx(100 * (0 + 1 + 1) / 3)
    # The published scorer makes [0, 8] of the first, and gives two empty sets an IoU of 0.
    assert result.published_as_run["tP@0.7_as_run"] == pytest.approx(100 * (1 / 2 + 1 + 1) / 3)
    assert result.published_as_run["tIoU_as_run"] == pytest.approx(100 * (1 + 0 + 0.5) / 3)


PARSED_BY = {
    "timelens compute_metrics extract_time": "clock, then range",
    "timelens2 VUE/MomentSeeker/Ego4D spans (before floor/ceil)": "signed pairs",
    "time-r1 evaluate.extract_answer": "last range in words",
    "unitime inference": "all numbers",
    "omtg_bench parse_time_intervals": "tagged or worded",
}


def test_texts_are_read_as_their_owners_read_them(owners):
    folder, _ = owners
    nothing = ([None, None], [[-1, -1]], [])
    for entry in json.loads((folder / "parsing.json").read_text())["texts"]:
        for owner, name in PARSED_BY.items():
            expected = entry["parsed"][owner]
            expected = [] if expected in nothing else expected
            if name == "last range in words" and expected:
                expected = [expected]
            read = [list(one) for one in time_texts.PARSERS[name](entry["text"])]
            assert read == expected, (owner, entry["text"])


# -------------------------------------------------------------------------- files made by hand


@pytest.mark.parametrize("parse", time_texts.PARSERS.values())
@given(st.floats(0, 9999).map(lambda x: round(x, 2)), st.floats(0, 9999).map(lambda x: round(x, 2)))
def test_what_we_write_is_read_by_all(parse, start, end):
    """As docs/METRICS.md advises; the parser that wants words gets them."""
    start, end = min(start, end), round(max(start, end) + 0.25, 2)  # one parser reads no others
    texts = [f"{start:.2f} - {end:.2f} seconds", f"{start:.2f} to {end:.2f} seconds"]
    assert [(start, end)] in [parse(text) for text in texts]


ANNOTATIONS = {
    "timelens_charades": (
        "charades-timelens.json",
        {"V1": {"duration": 20, "spans": [[1, 9], [2.5, 4]], "queries": [" a  man. ", "He sits"]}},
    ),
    "tvgbench": (
        "tvgbench.json",
        [
            {
                "path": "x/V1.mp4", "question": "a man", "answer": "1.0-9.5", "start": None,
                "end": None, "duration": 20.0, "source": "raw/a-b_test.json",
            },
            {
                "path": "x/V1.mp4", "question": "he sits", "answer": "2.0-4.0", "start": 5.0,
                "end": 15.0, "duration": 10.0, "source": "raw/c.json",
            },
        ],
    ),
    "vue_tr_v2": (
        "VUE-TRv2_ground_truth.json",
        [
            {
                "query_id": i, "video_id": "V1", "duration": 20.0, "query": f"q{i}", "gt": gt,
                "duration_category": "short", "query_format": "phrase", "query_modality": "vision",
            }
            for i, gt in enumerate([[[1, 9], [12, 14]], [[3, 5]]])
        ],
    ),
    "tacos": (
        "tacos_test_release.jsonl",
        "".join(
            json.dumps({"qid": f"V1_{i}", "query": "the same", "vid": "V1", "duration": 20,
                        "relevant_windows": [[i, i + 5]]}) + "\n"
            for i in range(2)
        ),
    ),
    "ego4d_nlq": (
        "nlq_val.json",
        {"videos": [{"clips": [{"clip_uid": "V1", "annotations": [
            {"annotation_uid": "a", "language_queries": [
                {"query": "where?", "clip_start_sec": 1, "clip_end_sec": 5},
                {"query": "when?", "clip_start_sec": 2.5, "clip_end_sec": 9.5},
            ]},
        ]}]}]},
    ),
    "momentseeker": (
        "t2v.json",
        [
            {"qry_text": "a", "src_video_path": "x/V1", "task": "t", "answering_time_interval": t}
            for t in ([[1, 5], [7, 9]], [], [[2, 4]])
        ],
    ),
    "omtg_bench": (
        "OMTGBench.tsv",
        "index\tvideo\tquestion\tanswer\n"
        "0\tV1\twhen?\t<time>1.0 - 5.0 seconds</time>, <time>7.0 - 9.0 seconds</time>\n"
        "1\tV1\twhen else?\t<time>2.0 - 4.0 seconds</time>\n",
    ),
    "rextime": (
        "rextime_val.jsonl",
        "".join(
            json.dumps({"qid": f"q{i}", "query": "why?", "vid": "V1", "duration": 20,
                        "relevant_windows": [[i, i + 5]], "ans": "A"}) + "\n"
            for i in range(2)
        ),
    ),
}  # fmt: skip


@pytest.fixture(params=ANNOTATIONS)
def made(request, tmp_path):
    """A benchmark over a prepared annotation, and its annotation."""
    name, (file_name, value) = request.param, ANNOTATIONS[request.param]
    text = value if isinstance(value, str) else json.dumps(value)
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / file_name).write_text(text)
    report = prepare(official_data()[name], tmp_path / "official", tmp_path / "made")
    assert report.queries == 2 and report.videos == 1
    (annotation,) = (tmp_path / "made").iterdir()
    (tmp_path / "config.json").write_text("{}")
    settings = Settings(
        checkpoint=tmp_path, benchmark=name, annotation=annotation, video_root=tmp_path,
        out_dir=tmp_path, device="cpu",
    )  # fmt: skip
    return find(name)(settings), annotation


def answers_of(benchmark, change=lambda events: events):
    queries = list(benchmark.queries())
    assert len(queries) == 2
    return [
        (query, Answer("<TIME_STAMP>", tuple(change(benchmark.truth(query))), 20.0))
        for query in queries
    ]


def mean(benchmark):
    return {"omtg_bench": "tIoU"}.get(benchmark.name, "mIoU")


def test_perfect_answers_are_perfect(made, tmp_path):
    benchmark, annotation = made
    path = benchmark.write(answers_of(benchmark), tmp_path)
    assert path.name in benchmark.predictions
    metrics = score(benchmark.name, path, annotation).metrics
    for name in benchmark.headline:
        # An IoU of 1 does not exceed the last threshold, 1.
        perfect = 99.5 if (benchmark.name, name) == ("vue_tr_v2", "IoU") else 100
        if name in metrics:
            assert metrics[name] == pytest.approx(perfect), name
    assert metrics[mean(benchmark)] == pytest.approx(100)


def test_missing_and_silent_answers_are_misses(made, tmp_path):
    benchmark, annotation = made
    first, second = answers_of(benchmark)
    answered = [(first[0], None), second]
    result = score(benchmark.name, benchmark.write(answered, tmp_path), annotation, published=True)
    assert result.counts["missing"] == 1
    assert result.metrics[mean(benchmark)] == pytest.approx(50)
    silent = [(first[0], Answer("I see none.", (), 20.0)), second]
    result = score(benchmark.name, benchmark.write(silent, tmp_path), annotation)
    assert result.counts["missing"] == 0 and result.metrics[mean(benchmark)] == pytest.approx(50)


def test_only_what_was_asked_counts(made, tmp_path):
    benchmark, annotation = made
    first, _ = answers_of(benchmark)
    only = {benchmark.scored_key(first[0])}
    path = benchmark.write([first], tmp_path)
    result = score(benchmark.name, path, annotation, only=only)
    assert result.counts["queries"] == 1 and result.counts["missing"] == 0
    assert result.metrics[mean(benchmark)] == pytest.approx(100)
    assert "the 1 queries that were asked" in result.warnings[0]


def test_reversed_answers_overlap_nothing(made, tmp_path):
    benchmark, annotation = made
    if benchmark.name in ("vue_tr_v2", "momentseeker", "omtg_bench"):
        pytest.skip("its answers are sets, whose reversed intervals are turned round")
    answered = answers_of(benchmark, lambda events: [Event(events[0].end, events[0].start)])
    result = score(benchmark.name, benchmark.write(answered, tmp_path), annotation)
    assert result.metrics[mean(benchmark)] == 0 and result.counts["reversed"] == 2


def test_files_of_another_benchmark_are_refused(made, tmp_path):
    benchmark, annotation = made
    for text in ("[]", "{}", '{"a": 1}', '[{"qid": 1}]', "no JSON", '{"qid": "x"}'):
        path = tmp_path / benchmark.predictions[0]
        path.write_text(text)
        with pytest.raises(FileError, match="results.json"):
            result = score(benchmark.name, path, annotation)
            # An empty list of answers is a file of misses.
            assert result.counts["missing"] == 2
            raise FileError(str(path))


def prompted(benchmark, prompt):
    values = {"prompt": prompt, "checkpoint": benchmark.settings.checkpoint, "device": "cpu"}
    values |= {"video_root": benchmark.settings.video_root, "benchmark": benchmark.name}
    return Settings(annotation=benchmark.settings.annotation, **values)


def test_the_owners_words(made):
    benchmark, _ = made
    ours = [query.question for query in benchmark.queries()]
    settings = prompted(benchmark, "owners")
    theirs = list(find(benchmark.name)(settings).queries())
    for query, question in zip(theirs, ours, strict=True):
        words = query.title
        assert words in query.question and query.question != question
        assert question.startswith("Give you a textual query: ")
        assert query.question == benchmark.owners_prompt.replace("{query}", words)
    # Answers to other words are not taken for these.
    assert settings.fingerprint()["prompt"] == settings.to_dict()["prompt"] == "owners"
    assert "prompt" not in benchmark.settings.fingerprint()


def test_words_that_nobody_has(made, tmp_path):
    benchmark, _ = made
    with pytest.raises(SettingsError, match="--prompt theirs: choose one of published, owners"):
        prompted(benchmark, "theirs")
    other = next(one for one in benchmarks().values() if not one.owners_prompt)
    with pytest.raises(SettingsError, match="--prompt owners"):
        Settings(checkpoint=tmp_path, benchmark=other.name, prompt="owners")


# ------------------------------------------------------------------------ options of ReXTime


@pytest.fixture
def with_options(tmp_path):
    """ReXTime over questions with options."""
    official = tmp_path / "official"
    official.mkdir()
    (official / "rextime_val.jsonl").write_text(ANNOTATIONS["rextime"][1])
    rows = [{"qid": f"q{i}", "options": ["He is wet.", "It rains.", "A", "No."]} for i in range(2)]
    (official / "rextime_val.json").write_text(json.dumps(rows))
    report = prepare(official_data()["rextime"], official, tmp_path / "made")
    assert report.queries == 2
    (tmp_path / "config.json").write_text("{}")
    settings = Settings(
        checkpoint=tmp_path, benchmark="rextime", annotation=report.files[0], device="cpu",
        video_root=tmp_path, out_dir=tmp_path,
    )  # fmt: skip
    return find("rextime")(settings)


def test_spans_and_letters_are_asked_and_scored_together(with_options, tmp_path):
    benchmark, annotation = with_options, with_options.settings.annotation
    spans, letters = list(benchmark.queries())[::2], list(benchmark.queries())[1::2]
    assert "(A) He is wet.\n(B) It rains." in letters[0].question
    assert len({query.id for query in (*spans, *letters)}) == 4
    assert {benchmark.scored_key(one) for one in (*spans, *letters)} == {"q0", "q1"}
    answered = [(q, Answer("<TIME_STAMP>", tuple(benchmark.truth(q)), 20.0)) for q in spans]
    texts = ["(A) He is wet.", "because it rains"]
    answered += [(q, Answer(text, (), 20.0)) for q, text in zip(letters, texts, strict=True)]
    assert [benchmark.truth(query) for query in letters] == [[], []]
    choices = [benchmark.choice(*one) for one in answered]
    assert choices[:2] == [None, None]
    assert [(one.expected, one.is_right, one.is_read) for one in choices[2:]] == [
        ("(A) He is wet.", True, True), ("(A) He is wet.", False, True),
    ]  # fmt: skip
    path = benchmark.write(answered, tmp_path)
    metrics = score("rextime", path, annotation).metrics
    assert metrics["VQA"] == 50 and metrics["mIoU"] == 100 and metrics["VQA,mIoU@0.5"] == 50
    # A failed video and an answer without a letter: the first row still has both fields.
    answered = [(q, None) for q in (spans[0], letters[0])] + [
        (spans[1], Answer("", (), 20.0)), (letters[1], Answer("I cannot tell.", (), 20.0)),
    ]  # fmt: skip
    result = score("rextime", benchmark.write(answered, tmp_path), annotation)
    assert result.metrics["VQA"] == result.metrics["mIoU"] == 0
    assert result.counts["missing"] == 1 and result.counts["no_letter"] == 2


def test_options_of_other_questions_are_refused(tmp_path):
    (tmp_path / "rextime_val.jsonl").write_text(ANNOTATIONS["rextime"][1])
    (tmp_path / "rextime_val.json").write_text('[{"qid": "q0", "options": ["a", "b", "c", "d"]}]')
    with pytest.raises(PrepareError, match="no options for 1 questions .* first q1"):
        prepare(official_data()["rextime"], tmp_path, tmp_path / "made")


weights = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.lists(st.integers(0, 9), min_size=columns, max_size=columns), min_size=1, max_size=4
    )
)


@given(weights)
def test_the_best_pairs_are_the_best(table):
    pairs = best_pairs(table)
    rows, columns = len(table), len(table[0])
    assert len(pairs) == len({r for r, _ in pairs}) == len({c for _, c in pairs})
    assert len(pairs) == min(rows, columns)
    if rows <= columns:
        ways = (zip(range(rows), p, strict=True) for p in permutations(range(columns), rows))
    else:
        ways = (zip(p, range(columns), strict=True) for p in permutations(range(rows), columns))
    assert sum(table[r][c] for r, c in pairs) == max(sum(table[r][c] for r, c in w) for w in ways)


intervals = st.tuples(st.integers(0, 50), st.integers(0, 50))


@given(st.lists(intervals, max_size=6), st.lists(intervals, max_size=6))
def test_sets_count_every_second_once(first, second):
    first, second = (merged([tuple(sorted(one)) for one in part]) for part in (first, second))
    a, b = ({t for s, e in part for t in range(s, e)} for part in (first, second))
    if first and second and a | b:
        assert set_iou(first, second) == pytest.approx(len(a & b) / len(a | b))
    precision, recall = precision_recall(first, second)
    assert precision == (pytest.approx(len(a & b) / len(a)) if a else None)
    assert recall == (pytest.approx(len(a & b) / len(b)) if b else None)
