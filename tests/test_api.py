"""`DisTime`: what people call. Batches equal single calls, and results explain themselves."""

import json
import socket
import threading
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from answering import QUERIES, write_answering_checkpoint, write_example_videos
from distime import (
    Answer,
    DisTime,
    DisTimeForConditionalGeneration,
    DisTimeProcessor,
    Event,
    Events,
)
from distime.api import BatchError, RequestError
from distime.model.hub import HubError
from distime.processing.answers import confidence
from distime.processing.questions import (
    EVENT_CAPTIONING,
    JOIN,
    STEP_CAPTIONING,
    moment_retrieval_question,
)
from distime.processing.video import VideoError
from distime.show.clips import write_srt
from distime.show.timeline import timeline_svg

SHORT = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_answering_checkpoint(tmp_path_factory.mktemp("api") / "checkpoint")


@pytest.fixture(scope="module")
def model(folder):
    return DisTime.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return [path for path, _ in write_example_videos(tmp_path_factory.mktemp("videos"))]


def same(a, b):
    """Whether answers agree: words exactly, times and distributions nearly."""
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.text == other.text
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=1e-3)
        assert one.distribution == pytest.approx(other.distribution, abs=1e-4)


@pytest.mark.smoke
def test_ground_asks_the_published_question(model, videos):
    inputs = model.processor(videos[0], moment_retrieval_question(QUERIES[1]), join=JOIN["demo"])
    output = model.model.generate(
        **inputs, max_new_tokens=12, min_new_tokens=1, return_dict_in_generate=True
    )
    duration = inputs["durations"].item()
    events = model.ground(videos[0], QUERIES[1], **SHORT)
    assert events.duration == duration == model.processor.load_video(videos[0]).duration
    expected = output.times[0].sort(-1).values * duration
    assert len(expected) > 0
    # The likeliest first.
    sure = [confidence(bins.numpy()) for bins in output.time_distributions[0]]
    order = sorted(range(len(sure)), key=lambda i: -sure[i])
    found = np.array([(e.start, e.end) for e in events])
    assert found == pytest.approx(expected.numpy()[order], abs=1e-3)
    new_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    assert events.answer == model.processor.decode(new_ids)


def test_events_are_ordered_inside_the_video_and_named(model, videos):
    found = model.ground(videos, QUERIES[:2], **SHORT) + model.ground(videos[0], QUERIES, **SHORT)
    events = [(event, group.duration) for group in found for event in group]
    assert len(events) > 5
    for event, duration in events:
        assert 0 <= event.start <= event.end <= duration
        assert 0 < event.confidence < 1
        assert event.distribution.shape == (2, 33)
        expectation = (event.distribution * np.arange(33)).sum(-1) / 32 * duration
        assert expectation == pytest.approx([event.start, event.end], abs=1e-2)
    assert {event.text for event, _ in events} <= set(QUERIES)


def test_times_are_on_the_clock_of_players(model, videos, tmp_path):
    """The pictures begin 2.5 s later than the sound: all that people are told does, too."""
    usual = model.processor.load_video(videos[0])
    late = replace(usual, start=2.5)
    for question in QUERIES:
        events, moved = (model.ground(sample, question, **SHORT) for sample in (usual, late))
        assert moved.duration == events.duration
        assert len(events) > 0
        for event, other in zip(events, moved, strict=True):
            assert (other.start - 2.5, other.end - 2.5) == pytest.approx((event.start, event.end))
        assert f'data-start="{moved[0].start:.3f}"' in moved._repr_html_()
        start = moved[0].start
        text = write_srt(tmp_path / "a.srt", moved[:1]).read_text()
        assert f"00:00:{int(start):02}" in text
    # The model is shown the same times again.
    answers = [model.chat(sample, QUERIES[0], **SHORT) for sample in (usual, late)]
    assert answers[0].text == answers[1].text
    assert answers[1].readable != answers[0].readable
    follow = [
        model.chat(sample, QUERIES[1], history=[(QUERIES[0], answer)], **SHORT)
        for sample, answer in zip((usual, late), answers, strict=True)
    ]
    same(follow[0].events, follow[1].on_clock(0.0).events)


def test_several_questions_equal_one_by_one(model, videos):
    together = model.chat(videos[0], QUERIES, **SHORT)
    alone = [model.chat(videos[0], question, **SHORT) for question in QUERIES]
    assert [a.text for a in together] == [a.text for a in alone]
    assert len({a.text for a in alone}) == len(QUERIES)
    for a, b in zip(together, alone, strict=True):
        same(a.events, b.events)


def test_small_batches_change_nothing(folder, videos):
    one_at_a_time = DisTime.from_pretrained(folder, device="cpu")
    one_at_a_time.batch_size = 1
    together = DisTime.from_pretrained(folder, device="cpu").chat(videos[0], QUERIES, **SHORT)
    assert [a.text for a in one_at_a_time.chat(videos[0], QUERIES, **SHORT)] == [
        a.text for a in together
    ]


def test_lists_of_videos_and_queries_pair_up_and_share(model, videos, monkeypatch):
    expected = [
        model.ground(video, query, **SHORT)
        for video, query in [
            (videos[0], QUERIES[0]),
            (videos[1], QUERIES[1]),
            (videos[0], QUERIES[2]),
        ]
    ]
    passes = []
    encode = model.model.encode_prefix
    monkeypatch.setattr(
        model.model, "encode_prefix", lambda *a, **k: passes.append(1) or encode(*a, **k)
    )
    found = model.ground([videos[0], videos[1], str(videos[0])], QUERIES, **SHORT)
    assert len(passes) == 2  # three queries about two videos
    for a, b in zip(found, expected, strict=True):
        same(a, b)
    one_query = model.ground(videos, QUERIES[0], **SHORT)
    assert [events.duration for events in one_query] == [e.duration for e in expected[:2]]


def test_caption_pairs_words_with_times(model, videos, monkeypatch):
    asked = []
    job = model.job
    monkeypatch.setattr(model, "job", lambda v, q, **k: asked.append(q) or job(v, q, **k))
    events = model.caption(videos[0], **SHORT)
    several = model.caption(videos, question=STEP_CAPTIONING, **SHORT)
    assert asked == [[EVENT_CAPTIONING], [STEP_CAPTIONING], [STEP_CAPTIONING]]
    assert isinstance(events, Events) and len(several) == 2
    answer = model.chat(videos[0], EVENT_CAPTIONING, **SHORT)
    assert answer.events == tuple(events)
    assert [e.text for e in events] == [
        piece.removeprefix(",").strip() for piece in answer.text.split("<TIME_STAMP>")[1:]
    ]


def test_a_conversation_shows_the_model_its_earlier_words_and_times(model, videos):
    video = model.processor.load_video(videos[0])
    first = model.chat(video, QUERIES[0], **SHORT)
    assert first.events
    history = [(QUERIES[0], first)]
    second = model.chat(video, QUERIES[1], history, **SHORT)

    # The same, asked of the model in one piece.
    prompt = model.processor.shared_prefix(
        video, [QUERIES[1]], join=JOIN["demo"], history=[(QUERIES[0], first.text)]
    )
    ids = torch.cat([prompt.prefix["input_ids"], prompt.suffixes["input_ids"]], dim=1)
    times = torch.tensor([[e.start, e.end] for e in first.events]) / first.duration
    output = model.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=prompt.prefix["pixel_values"],
        frame_times=prompt.prefix["frame_times"],
        time_targets=times,
        min_new_tokens=1,
        **SHORT,
    )
    assert model.processor.decode(output[0, ids.shape[1] :]) == second.text

    # Other times, or times only written, make another prompt: the answer's hidden states differ.
    moved = replace(first, events=tuple(replace(e, start=0.0, end=1.0) for e in first.events))
    answers = [
        model.chat(video, QUERIES[2], [(QUERIES[0], one)], **SHORT)
        for one in (first, moved, first.text)
    ]
    seen = {(a.text, *((e.start, e.end) for e in a.events)) for a in answers}
    assert len(seen) == 3


def test_an_answer_without_its_events_counts_as_written(model, videos):
    answer = Answer("at <TIME_STAMP> and <TIME_STAMP>", (), 10.0)
    a = model.chat(videos[0], QUERIES[0], [("when?", answer)], **SHORT)
    b = model.chat(videos[0], QUERIES[0], [("when?", answer.text)], **SHORT)
    assert a.text == b.text


def test_prompt_is_what_the_model_reads(model, videos):
    question = QUERIES[0]
    text = model.prompt(videos[0], question, [("a", "b")])
    sample = model.processor.load_video(videos[0])
    inputs = model.processor.shared_prefix(
        sample, [question], join=JOIN["demo"], history=[("a", "b")]
    )
    ids = torch.cat([inputs.prefix["input_ids"], inputs.suffixes["input_ids"]], dim=1)[0]
    counted = text.replace("<IMG_CONTEXT> x 1", "<IMG_CONTEXT>")
    assert model.processor.tokenizer(counted, add_special_tokens=False).input_ids == ids.tolist()


def test_sampling_is_passed_on(model, videos):
    torch.manual_seed(0)
    sampled = {
        model.chat(videos[0], QUERIES[0], do_sample=True, temperature=5.0, **SHORT).text
        for _ in range(4)
    }
    assert len(sampled) > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, v: m.ground(v, QUERIES), "2 videos and 3 texts: give one query"),
        (lambda m, v: m.ground(v[0], []), "0 videos and 0 texts"),
        (lambda m, v: m.chat(v, QUERIES[0], [("a", "b")]), "one video"),
        (lambda m, v: m.ask(v[0], []), "at least one"),
    ],
)
def test_impossible_requests_say_what_to_give(model, videos, call, message):
    with pytest.raises(RequestError, match=message):
        call(model, videos)


def test_bad_paths_are_named(model, tmp_path):
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        model.ground(tmp_path / "gone.mp4", QUERIES[0])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_file_costs_its_own_answers_alone(model, videos, tmp_path, place):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    asked = [videos[0], videos[1]]
    asked.insert(place, bad)
    good = [video for video in asked if video != bad]
    for call, iterate, text in (
        (model.ground, model.iter_ground, [QUERIES[0]]),
        (model.caption, model.iter_caption, []),
        (model.chat, model.iter_chat, [QUERIES[0]]),
    ):
        with pytest.raises(BatchError, match=r"1 of 3 could not .*bad\.mp4") as raised:
            call(asked, *text, **SHORT)
        expected = call(good, *text, **SHORT)
        results = raised.value.results
        assert results[place] is None
        assert [str(r) for r in results if r is not None] == [str(r) for r in expected]
        items = sorted(iterate(asked, *text, **SHORT), key=lambda item: item.index)
        assert [item.video for item in items] == asked
        assert [item.error is None for item in items] == [video != bad for video in asked]
        assert [item.result is None for item in items] == [video == bad for video in asked]


def test_items_come_as_they_are_known(model, videos, monkeypatch):
    go, load = threading.Event(), model.processor.load_video

    def slow(video, *args, **options):
        if video == videos[0]:
            go.wait(60)
        return load(video, *args, **options)

    monkeypatch.setattr(model.processor, "load_video", slow)
    items = model.iter_ground(videos, QUERIES[0], **SHORT)
    assert next(items).index == 1  # while the first one is still being read
    go.set()
    assert next(items).index == 0
    assert next(items, None) is None


def test_a_bad_question_costs_its_own_answer_alone(model, videos):
    questions = [QUERIES[0], "what does <IMG_CONTEXT> mean?", QUERIES[1]]
    items = sorted(model.iter_chat(videos[0], questions, **SHORT), key=lambda item: item.index)
    assert [item.error is None for item in items] == [True, False, True]
    assert items[2].result.text == model.chat(videos[0], QUERIES[1], **SHORT).text


def test_the_likeliest_event_comes_first(model, videos, monkeypatch):
    events = [Event(i, i + 1.0, sure) for i, sure in enumerate([0.2, 0.9, 0.5, 0.9])]
    answer = Answer("<TIME_STAMP>" * 4, tuple(events), 10.0)
    monkeypatch.setattr(model, "results", lambda finished: [answer] * len(finished.answers))
    assert [event.start for event in model.ground(videos[0], "q")] == [1, 3, 2, 0]
    assert [event.start for event in model.caption(videos[0])] == [0, 1, 2, 3]


def test_an_answer_without_times_keeps_its_words(model, videos, monkeypatch):
    answer = Answer("I cannot see a door.", (), 10.0)
    monkeypatch.setattr(model, "results", lambda finished: [answer] * len(finished.answers))
    events = model.ground(videos[0], QUERIES[0])
    assert not events and events.answer == answer.text
    assert events.to_dict() == {"duration": 10.0, "answer": answer.text, "events": []}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:0"}, "cuda:0.*no such GPU"),
        ({"device": "gpu"}, "'gpu': give one such as"),
        ({"attn_implementation": "foo"}, "'foo': choose one of sdpa"),
    ],
)
def test_devices_and_kernels_that_are_not_there(options, message, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match=message):
        DisTime.from_pretrained(tmp_path / "not looked for", **options)


def test_a_batch_holds_something(model):
    with pytest.raises(RequestError, match="batch_size 0"):
        DisTime(model.model, model.processor, batch_size=0)


LOADERS = [DisTime, DisTimeForConditionalGeneration, DisTimeProcessor]


@pytest.mark.parametrize("kind", LOADERS)
def test_checkpoints_that_are_nowhere(kind, tmp_path, monkeypatch):
    with pytest.raises(HubError, match="no such folder"):
        kind.from_pretrained(tmp_path / "gone")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="somebody/nothing: neither a folder nor"):
        kind.from_pretrained("somebody/nothing")


@pytest.mark.parametrize("kind", LOADERS)
def test_a_hub_name_is_fetched_and_loaded(kind, folder, videos, model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, revision=None: asked.append((name, revision)) or str(folder),
    )
    fetched = kind.from_pretrained("somebody/distime", revision="v1")
    assert asked == [("somebody/distime", "v1")]
    if kind is DisTime:
        again = fetched.ground(videos[0], QUERIES[0], **SHORT)
        same(again, model.ground(videos[0], QUERIES[0], **SHORT))


def test_dtype_and_attention_are_passed_on(folder, videos):
    model = DisTime.from_pretrained(
        folder, dtype=torch.bfloat16, device="cpu", attn_implementation="eager"
    )
    assert model.model.dtype == torch.bfloat16
    assert model.model.config._attn_implementation == "eager"
    assert isinstance(model.ground(videos[0], QUERIES[0], **SHORT), Events)


def test_saved_folder_is_ready_for_a_hub_and_loads_offline(model, videos, tmp_path, monkeypatch):
    folder = tmp_path / "to hub"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"learning_rate": 4e-5, "data": {"name": "a|b"}}))
    metrics = {"benchmark": "charades", "metrics": {"R1@0.5": 51.234}, "counts": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    model.save_pretrained(folder)
    card = (folder / "README.md").read_text()
    assert "| learning_rate | 4e-05 |" in card and "| data.name | a\\|b |" in card
    assert "| R1@0.5 | 51.23 |" in card and "# to hub" in card
    assert "$" not in card
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json", "generation_config.json", "model.safetensors", "processor_config.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    # Loading a folder asks nobody, whatever the network.
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it used the network"))
    again = DisTime.from_pretrained(folder, device="cpu")
    same(again.ground(videos[0], QUERIES[0], **SHORT), model.ground(videos[0], QUERIES[0], **SHORT))

    (folder / "README.md").write_text("my own words")
    (folder / "run.json").write_text("not json")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "my own words"


# ------------------------------------------------------------------------------ what results show

NASTY = '<script>alert("&")</script>'


def elements(html, name):
    """All elements of a name in a piece of HTML that is also XML."""
    root = ElementTree.fromstring(f"<div>{html}</div>")
    return [element for element in root.iter() if element.tag.split("}")[-1] == name]


def test_results_are_plain_json(model, videos):
    answer = model.chat(videos[0], QUERIES[0], **SHORT)
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False)) == answer.to_dict()
    events = model.ground(videos[0], QUERIES[0], **SHORT)
    value = json.loads(json.dumps(events.to_dict(), allow_nan=False))
    assert value["duration"] == events.duration
    assert value["events"][0]["start"] == events[0].start
    assert np.shape(value["events"][0]["distribution"]) == (2, 33)


def test_notebooks_show_an_escaped_timeline():
    distribution = np.full((2, 9), 1 / 9)
    events = Events([Event(2, 5, 0.5, distribution, NASTY), Event(6, 7)], duration=10.0)
    for html in (events._repr_html_(), Answer(NASTY, tuple(events), 10.0)._repr_html_()):
        assert not elements(html, "script")
        assert any(NASTY in "".join(one.itertext()) for one in elements(html, "title"))
        groups = elements(html, "g")
        assert [g.get("data-start") for g in groups] == ["2.000", "6.000"]
        assert len(elements(html, "polyline")) == 2
        assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert Events()._repr_html_() == "<p>no events</p>"
    assert Answer("nothing", (), 10.0)._repr_html_() == "<p>nothing</p>"


def test_timeline_puts_bars_at_their_times():
    svg = timeline_svg([Event(2, 5), Event(9, 30)], duration=10.0)
    bars = [r for r in elements(svg, "rect") if r.get("rx")]
    places = [[float(bar.get(name).removesuffix("%")) for name in ("x", "width")] for bar in bars]
    assert places == [[20, 30], [90, 10]]


def test_timeline_is_as_high_on_a_narrow_screen():
    """Words keep their size, and a row is large enough for a finger."""
    events = [Event(2, 5, 0.5, np.full((2, 9), 1 / 9), "opens the door"), Event(6, 7)]
    svg = timeline_svg(events, duration=10.0)
    (outer, *_) = elements(svg, "svg")
    assert outer.get("viewBox") is None and float(outer.get("height")) > 150
    rows = [r for r in elements(svg, "rect") if r.get("fill") == "transparent"]
    assert all(float(row.get("height")) >= 44 for row in rows)
    assert all(float(t.get("font-size", 15)) >= 13 for t in elements(svg, "text"))
    assert {"start", "end", "answer"} <= {t.text for t in elements(svg, "text")}
    # Without curves there is nothing to explain.
    assert "answer" not in {t.text for t in elements(timeline_svg([Event(6, 7)], 10.0), "text")}


@pytest.mark.parametrize("duration", [0.3, 1, 9.99, 32, 119, 121, 600, 5400, 40000])
def test_timeline_has_a_readable_axis(duration):
    ticks = elements(timeline_svg([], duration), "text")
    assert 2 <= len(ticks) <= 7


def test_timeline_needs_a_duration():
    with pytest.raises(ValueError, match="nan seconds"):
        timeline_svg([], float("nan"))
