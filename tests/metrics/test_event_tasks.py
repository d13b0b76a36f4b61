"""E.T. Bench: the published scorer's values again, and small answers scored by hand."""

from __future__ import annotations

import json
import os
import shutil
import string

import numpy as np
import pytest

from distime.benchmarks import etbench, find, official_data, score
from distime.benchmarks.etbench import CHOICES
from distime.cli import main
from distime.data.official import prepare
from distime.evaluate.settings import Settings
from distime.metrics import event_tasks, similarity
from distime.metrics.dense_captioning import CaptionedVideo, TimedCaptions
from distime.processing.answers import Answer, Event

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="captions need Java")


@pytest.fixture
def owners(shared):
    """The folder of the owner's files, its scores of them, and the annotation."""
    folder = shared / "benchmarks_2026"
    if not folder.is_dir():
        pytest.skip("the owners' files are not on this machine")
    reference = json.loads((folder / "reference_scores.json").read_text())["benchmarks"]
    return folder, reference["etbench"], next((folder / "annotations/etbench").glob("*.json"))


def owners_numbers(entry):
    """Ours and the owner's name and value of every number but SentSim, and SentSim apart."""
    numbers, similarities = {}, {}
    for task, sources in entry["numbers"].items():
        for source, tables in sources.items():
            if "Total" in tables:
                tables = {"as_run": tables}
            for variant, table in tables.items():
                variant = {"explicit_choice_final": "as_run", "d=3": "as_run"}.get(variant, variant)
                for name, value in table.items():
                    name = {"mRec": "Rec"}.get(name, name)
                    key = f"{task}/{source}/{name}_{variant}"
                    if name == "SentSim":
                        similarities[f"{task}/{source}/Sim_as_run"] = 100 * value
                    elif name != "Failed":
                        numbers[key] = 100 * value
                    elif variant == "as_run":
                        numbers[key] = value
    return {k: v for k, v in numbers.items() if "/Total_" not in k}, similarities


@needs_java
def test_as_the_published_scorer_scores(owners):
    """To its five decimals; without a sentence encoder some numbers are left out."""
    folder, reference, gt = owners
    compared = 0
    for entry in reference:
        result = score("etbench", folder / entry["predictions"], gt, published=True)
        ours = {**result.published_as_run, **result.counts}
        numbers, _ = owners_numbers(entry)
        for key, value in numbers.items():
            if key in ours:
                assert ours[key] == pytest.approx(value, abs=1e-9), key
                compared += 1
            else:
                assert key.split("/")[0] in CHOICES, key
        assert any("Sim of captions" in text for text in result.warnings)
    assert compared == 213


@needs_java
@pytest.mark.skipif("DISTIME_SENTENCE_MODEL" not in os.environ, reason="no all-MiniLM-L6-v2 here")
def test_as_the_published_scorer_scores_with_its_sentence_encoder(owners):
    """Every number but SentSim, whose runs scatter: that to half a point."""
    folder, reference, gt = owners
    model, compared = os.environ["DISTIME_SENTENCE_MODEL"], 0
    for entry in reference:
        path = folder / entry["predictions"]
        result = score("etbench", path, gt, published=True, sentence_model=model)
        ours = {**result.published_as_run, **result.counts}
        numbers, similarities = owners_numbers(entry)
        for table, tolerance in ((numbers, 1e-9), (similarities, 0.5)):
            for key, value in table.items():
                assert ours[key] == pytest.approx(value, abs=tolerance), key
                compared += 1
        assert not result.warnings and result.files["sentence_model"] == model
    assert compared == 254


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


def scored(benchmark, texts, tmp_path, **options):
    """The score of texts by (task, idx of source s)."""
    path = tmp_path / "answers.jsonl"
    rows = [{"task": t, "source": "s", "idx": i, "a": a} for (t, i), a in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return score("etbench", path, benchmark.settings.annotation, published=True, **options)


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
    assert any("1 answers without a letter" in text for text in result.warnings)


@needs_java
def test_captions_by_hand(benchmark, tmp_path, stand_in):
    text = "0 - 10 seconds, a man walks in. 50 - 60 seconds, he sits down there."
    texts = {("dvc", 0): text, ("slc", 0): "bread"}
    result = scored(benchmark, texts, tmp_path, sentence_model="any")
    assert result.metrics["DVC F1"] == pytest.approx(50)
    assert result.metrics["SLC F1"] == result.metrics["SLC METEOR"] == 0
    # The first caption is right, the second stands alone.
    assert result.metrics["DVC ROUGE_L"] == pytest.approx(50)
    assert 50 < result.metrics["DVC Sim"] < 100 and result.metrics["SLC Sim"] == 0
    assert result.metrics["CAP Sim"] == pytest.approx(result.metrics["DVC Sim"] / 2)


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
    shown = [name for name in benchmark.headline if not name.endswith("Sim")]
    assert {name: result.metrics[name] for name in shown} == dict.fromkeys(
        shown, pytest.approx(100)
    )
    assert result.counts["missing"] == result.counts["unread_answers"] == 0


# ------------------------------------------------------------------ with a sentence encoder


def letters(texts):
    """A stand-in for an encoder: how often each letter stands in a text."""
    counts = [[text.lower().count(one) for one in string.ascii_lowercase] for text in texts]
    vectors = np.array(counts, dtype=float) + 1e-6
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(etbench, "_encoder", lambda folder: (folder and letters, [], {}))


def test_options_by_similarity(benchmark, tmp_path, stand_in):
    texts = {
        ("rar", 0): "dogs",  # the third option, which is right
        ("eca", 0): "I think (A), as 5 is the end",  # wrong, and not final in most copies
        ("rvq", 0): "(z) man walks",
        ("gvq", 0): "a cat at 5 - 9",
    }
    rows = [{"task": t, "source": "s", "idx": i, "a": a} for (t, i), a in texts.items()]
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    paths = tmp_path / "answers.json", benchmark.settings.annotation
    without = score("etbench", *paths, published=True)
    as_run = score("etbench", *paths, published=True, sentence_model="any").published_as_run
    assert as_run["rar/s/Acc_as_run"] == as_run["rar/s/Acc_fall_through"] == 100
    assert as_run["eca/s/Acc_as_run"] == 0
    assert as_run["rvq/s/Acc_as_run"] == 100
    assert as_run["gvq/s/Rec_as_run"] == as_run["gvq/s/Rec_d=4"] == 100
    assert "eca/s/Acc_as_run" in without.published_as_run  # a letter is read
    assert "eca/s/Acc_fall_through" not in without.published_as_run
    assert any("2 answers without a letter" in text for text in without.warnings)


@pytest.mark.parametrize(
    ("answer", "count", "place", "seen"),
    [
        ("(b)", 4, 1, True),
        ("It is (B), not (A).", 4, 1, True),
        ("(E) no such", 4, None, True),
        ("Best Option: ( C", 4, 2, True),
        ("d", 4, 3, True),
        ("d", 3, None, True),
        ("A dog", 4, 0, True),
        ("dogs", 4, None, False),
        ("best option:", 4, None, False),
        ("", 4, None, False),
    ],
)
def test_letters(answer, count, place, seen):
    letter = event_tasks.read_letter(answer, count, in_brackets=True)
    assert (letter.place, letter.seen) == (place, seen)
    if place is not None:
        right = event_tasks.read_letter(answer, count, in_brackets=True, truth=place)
        wrong = event_tasks.read_letter(answer, count, in_brackets=True, truth=place + 1)
        assert right == letter and wrong.place is None


def test_similarity_of_captions():
    windows = np.array([[0.0, 10.0], [50.0, 60.0]])
    video = CaptionedVideo(
        TimedCaptions(windows, ["aa b", "zz"]), TimedCaptions(windows[:1], ["aa b"]), (0.5,)
    )
    nothing = float((letters(["zz"]) @ letters(similarity.nonsense_words()).T).mean())
    assert similarity.caption_similarity([video], letters) == pytest.approx((1 + nothing) / 2)
    assert len(set(similarity.nonsense_words())) == similarity.NONSENSE
    assert {len(word) for word in similarity.nonsense_words()} == set(range(10, 21))


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A folder with a small BERT of random weights, as sentence-transformers saves it."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "walks", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), intermediate_size=16, **sizes)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2"))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_an_encoder_is_the_mean_of_its_tokens(tiny_encoder):
    from distime.processing.sentences import SentenceEncoder

    encoder = SentenceEncoder(tiny_encoder)
    texts = ["a man walks", "dog", "", "a man walks " * 200]
    vectors = encoder(texts)
    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(encoder([text])[0], vector, atol=1e-6)
    assert similarity.most_similar("a man walks", ["dog", "a man walks"], encoder) == 1


@pytest.mark.parametrize("what", ["no folder", "no model", "weights", "first token", "layer"])
def test_folders_that_are_no_encoder(what, tiny_encoder, tmp_path, benchmark, capsys):
    folder = tmp_path / "encoder"
    if what != "no folder":
        shutil.copytree(tiny_encoder, folder)
    if what == "no model":
        (folder / "config.json").unlink()
    elif what == "weights":
        (folder / "model.safetensors").unlink()
    elif what == "first token":
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    elif what == "layer":
        (folder / "modules.json").write_text('[{"type": "a.Dense", "path": "2"}]')
    (tmp_path / "a.json").write_text('[{"task": "rar", "source": "s", "idx": 0, "a": "(c)"}]')
    arguments = [str(tmp_path / "a.json"), "--gt", str(benchmark.settings.annotation)]
    assert main(["score", "etbench", *arguments, "--sentence-model", str(folder)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and str(folder) in error


def test_another_encoder_is_said_to_be_one(tiny_encoder, benchmark, tmp_path, capsys):
    (tmp_path / "a.json").write_text('[{"task": "rar", "source": "s", "idx": 0, "a": "a dog"}]')
    arguments = [str(tmp_path / "a.json"), "--gt", str(benchmark.settings.annotation)]
    assert main(["score", "etbench", *arguments, "--sentence-model", str(tiny_encoder)]) == 0
    assert "is not all-MiniLM-L6-v2" in capsys.readouterr().out
