"""DisTime as a model of lmms-eval: with lmms-eval itself where it is installed, and without.

Without it, its base class and manifest are stood in for, by the little of them that is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from answering import QUERIES, write_answering_checkpoint, write_example_videos
from distime import Answer, DisTime, Event
from distime.api import RequestError
from distime.model.tokens import TIME_STAMP

ROOT = Path(__file__).resolve().parents[2]
MODULE = "distime.evaluate.lmms_eval"
INSTALL = "lmms-eval is not installed: docs/EVALUATION.md says how"


class Base:
    """As `lmms_eval.api.model.lmms`."""

    is_simple = True

    def __init__(self):
        self._rank, self.task_dict = 0, {}

    @property
    def rank(self):
        return self._rank

    def clean(self):
        self.cleaned = True


@dataclass(frozen=True)
class Manifest:
    """As `lmms_eval.models.registry_v2.ModelManifest`."""

    model_id: str
    simple_class_path: str


def stand_in(monkeypatch) -> None:
    contents = {"api.model": {"lmms": Base}, "models.registry_v2": {"ModelManifest": Manifest}}
    for name in ("", ".api", ".models", ".api.model", ".models.registry_v2"):
        module = ModuleType(f"lmms_eval{name}")
        vars(module).update(contents.get(name[1:], {}))
        monkeypatch.setitem(sys.modules, module.__name__, module)


def lmms_eval(name: str) -> ModuleType:
    return pytest.importorskip(f"lmms_eval.{name}", reason=INSTALL, exc_type=ImportError)


@pytest.fixture(params=["stand-in", "lmms-eval"])
def plugin(request, monkeypatch):
    """The module, on top of either."""
    if request.param == "stand-in":
        stand_in(monkeypatch)
    else:
        lmms_eval("api.model")
    sys.modules.pop(MODULE, None)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_answering_checkpoint(tmp_path_factory.mktemp("lmms") / "checkpoint")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return [str(path) for path, _ in write_example_videos(tmp_path_factory.mktemp("videos"))]


@pytest.fixture(scope="module")
def distime(folder):
    return DisTime.from_pretrained(folder, device="cpu")


def asked(model, documents, **generation):
    """Requests as lmms-eval makes them; a document is what is shown and what is asked."""
    model.task_dict["doors"] = {"test": documents}
    return [
        SimpleNamespace(
            args=(question, dict(generation), lambda doc: doc[0], number, "doors", "test")
        )
        for number, (_, question) in enumerate(documents)
    ]


GREEDY = {"max_new_tokens": 12, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}


def make(plugin, folder, **arguments):
    return plugin.LmmsEvalModel(str(folder), device="cpu", **arguments)


def test_answers_are_those_of_the_package_in_the_order_of_the_requests(
    plugin, folder, videos, distime
):
    model = make(plugin, folder, batch_size="2", num_frames=4)
    first, second = videos
    documents = [([first], QUERIES[0]), ([second], QUERIES[1]), ([first], QUERIES[1])]
    documents += [([second], QUERIES[0]), ([first], QUERIES[0])]
    loaded = []
    load, processor = model.distime.processor.load_video, model.distime.processor
    processor.load_video = lambda video, *rest: loaded.append(video) or load(video, *rest)
    texts = model.generate_until(asked(model, documents, until=["\n\n"], **GREEDY))
    assert sorted(loaded) == sorted(videos), "videos are read once, whatever the order"
    for text, ((video,), question) in zip(texts, documents, strict=True):
        answer = distime.chat(video, question, max_new_tokens=12, num_frames=4)
        assert text == answer.with_times("seconds").split("\n\n")[0]
    assert "seconds" in "".join(texts) and TIME_STAMP not in "".join(texts)


def test_options_of_requests_are_kept_apart(plugin, folder, videos, distime):
    model = make(plugin, folder)
    documents = [(videos[:1], QUERIES[0])] * 2
    long, short = asked(model, documents, **GREEDY)
    short.args[1]["max_new_tokens"] = 3
    texts = model.generate_until([long, short])
    expected = [distime.chat(videos[0], QUERIES[0], max_new_tokens=n) for n in (12, 3)]
    assert texts == [answer.with_times("seconds") for answer in expected]
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        (GREEDY, {"max_new_tokens": 12}),
        ({"temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
        ({"temperature": 0.5, "do_sample": False, "top_p": 0.9}, {}),
        ({"temperature": 0, "do_sample": True}, {}),
        ({"temperature": None, "top_p": None, "do_sample": None}, {}),
        ({"do_sample": True, "top_p": 0.9, "top_k": 5},
         {"do_sample": True, "top_p": 0.9, "top_k": 5}),
    ],
)  # fmt: skip
def test_generation_kwargs(plugin, given, expected):
    before = dict(given)
    assert plugin.decoding(given) == expected
    assert given == before


def test_what_it_has_no_use_for_is_named(plugin, caplog):
    with caplog.at_level(logging.WARNING):
        plugin.decoding({"length_penalty": 2, "until": ["\n"], "seed_of": 1})
    assert "length_penalty, seed_of" in caplog.text and "until" not in caplog.text
    with pytest.raises(RequestError, match="num_beams is 4"):
        plugin.decoding({"num_beams": 4})


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (None, "At 12.5 - 30.0 seconds. Then\n\n31.0 - 32.0 seconds"),
        ([""], "At 12.5 - 30.0 seconds. Then\n\n31.0 - 32.0 seconds"),
        ("\n\n", "At 12.5 - 30.0 seconds. Then"),
        (["\n\n", "."], "At 12.5 - 30.0 seconds"),
        (["At"], ""),
    ],
)
def test_the_first_of_the_strings_ends_the_answer(plugin, until, expected):
    events = (Event(12.5, 30.0), Event(31.0, 32.0))
    answer = Answer(f"At {TIME_STAMP}. Then\n\n{TIME_STAMP}", events, 40.0)
    assert plugin.written(answer, until) == expected


@pytest.mark.parametrize(
    "shown", [None, [], [object()], ["a.mp4", "b.mp4"], ["a.mp4", {"start": 1}]]
)
def test_a_request_that_shows_no_single_video_is_named(plugin, folder, videos, shown):
    model = make(plugin, folder)
    requests = asked(model, [(videos[:1], "Why?"), (shown, "Why?")], **GREEDY)
    with pytest.raises(RequestError, match="document 1 of doors shows .*one video"):
        model.generate_until(requests)


def test_a_request_that_cannot_be_answered_is_named(plugin, folder, videos, tmp_path):
    model = make(plugin, folder)
    missing = str(tmp_path / "absent.mp4")
    requests = asked(model, [(videos[:1], "Why?"), ([missing], "Why?")], **GREEDY)
    with pytest.raises(RequestError, match=r"document 1 of doors: .*absent\.mp4"):
        model.generate_until(requests)


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until_multi_round"])
def test_what_is_not_offered_is_said(plugin, folder, kind):
    with pytest.raises(RequestError, match="not offered: choose tasks of .* generate_until"):
        getattr(make(plugin, folder), kind)([])


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": "auto"}, {"batch_size": 0}, {"num_frames": 0.5}, {"dtype": "bf17"},
     {"max_pixels": 3}],
)  # fmt: skip
def test_a_wrong_argument_is_named(plugin, folder, wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        make(plugin, folder, **wrong)


def test_the_model_goes_when_lmms_eval_is_done(plugin, folder):
    model = make(plugin, folder, dtype="float32")
    assert str(model.device) == "cpu" and str(model.distime.model.dtype) == "torch.float32"
    model.clean()
    assert "distime" not in vars(model)


# ------------------------------------------------------------------------------- how it is found


def entry_points() -> list[EntryPoint]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    group = "lmms_eval.models"
    return [EntryPoint(*pair, group) for pair in project["entry-points"][group].items()]


def test_the_entry_point_leads_to_the_class(plugin):
    (point,) = entry_points()
    manifest = point.load()()
    assert manifest.model_id == point.name == "distime"
    module, name = manifest.simple_class_path.rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is plugin.LmmsEvalModel


def test_lmms_eval_makes_the_model_of_its_arguments(folder, videos, distime, monkeypatch):
    registry = lmms_eval("models.registry_v2").ModelRegistryV2
    monkeypatch.setattr(registry, "_select_entry_points", staticmethod(lambda _: entry_points()))
    found = registry()
    found.load_entrypoint_manifests()
    made = found.get_model_class("distime").create_from_arg_string(
        f"pretrained={folder},num_frames=4,dtype=auto",
        {"batch_size": "1", "device": "cpu", "max_batch_size": None},
    )
    (text,) = made.generate_until(asked(made, [(videos[:1], QUERIES[0])], **GREEDY))
    answer = distime.chat(videos[0], QUERIES[0], max_new_tokens=12, num_frames=4)
    assert text == answer.with_times("seconds")


def test_lmms_eval_reads_the_times_that_are_written():
    lmms_eval("api.model")
    (package,) = sys.modules["lmms_eval"].__path__
    path = Path(package, "tasks", "charades_sta", "eval_tvg.py")
    spec = importlib.util.spec_from_file_location("eval_tvg", path)
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    answer = Answer(f"The event happens in the {TIME_STAMP}", (Event(12.5, 30.0),), 40.0)
    text = importlib.import_module(MODULE).written(answer, None)
    assert reader.extract_time(text) == [[12.5, 30.0]]
