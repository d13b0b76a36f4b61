"""Annotation files -> groups -> rows -> batches: nothing lost, nothing repeated, all equal."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.collator import FOR_TRAINER, Collator
from distime.data.dataset import DataError, DataSettings, TrainingData
from distime.data.plan import PlannedRows, PlanSettings, make_plan
from distime.processing.video import encode_video
from distime.toy.tiny import write_tiny_checkpoint

WORDS = ["when does the red square appear ? at . yes no what is seen"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(folder, WORDS, hidden_size=32, num_layers=2, num_frames=4)
    return folder


@pytest.fixture(scope="module")
def processor(checkpoint):
    return DisTimeProcessor.from_pretrained(checkpoint)


def turn(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


GROUND = turn("<video>\nwhen does the red square appear?", "at <TIME_STAMP>.")


def write_meta(folder, lines, **entry):
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"source": {"root": str(folder), "annotation": "train.jsonl"} | entry}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos of 4 s, an image, and items of every kind about them."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4"):
        frames = noise.integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
        encode_video(folder / name, frames, fps=4)
    Image.fromarray(frames[0]).save(folder / "i.png")
    return folder


LINES = [
    {"video": "a.mp4", "tgt": [1.0, 2.5], "conversations": GROUND},
    {"video": "b.mp4", "conversations": turn("<video>\nwhat is seen?", "the square.")},
    {"video": "a.mp4", "tgt": [0.5, 0.5], "conversations": turn(
        "<video>\nwhat is seen at <TIME_STAMP>?", "the square.")},
    {"image": "i.png", "conversations": turn("<image>\nwhat is seen?", "no.")},
    {"conversations": turn("is the square red?", "yes.")},
    {"video": "a.mp4", "tgt": [0, 1, 2, 9.0], "conversations": turn(
        "<video>\nwhen?", "at <TIME_STAMP> at <TIME_STAMP>.")},
]  # fmt: skip


@pytest.fixture
def data(folder, processor):
    meta = write_meta(folder, LINES)

    def make(**settings):
        frames = {"min_num_frame": 4, "max_num_frame": 4}
        return TrainingData(meta, processor, DataSettings(**frames | settings))

    return make


def collate(processor, rows):
    batch = Collator(processor.token_ids.pad)(rows)
    return {k: v for k, v in batch.items() if k not in FOR_TRAINER}, batch


def losses_and_gradients(model, batch):
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return output.loss.item(), gradients


def assert_equal_training(actual, expected):
    assert actual[0] == pytest.approx(expected[0], abs=1e-5)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(actual[1][name], gradient, rtol=1e-4, atol=2e-6, msg=name)


def test_items_become_tensors(data):
    group = data().prepare(0)
    assert group.pixel_values.shape == (4, 3, 56, 56)
    assert group.frame_times.shape == (4,)
    torch.testing.assert_close(group.targets[0], torch.tensor([[0.25, 0.625]]))
    assert group.places[0].endswith("train.jsonl:1")
    image = data().prepare(3)
    assert image.pixel_values.shape == (1, 3, 56, 56) and len(image.frame_times) == 0
    text = data().prepare(4)
    assert len(text.pixel_values) == 0
    clamped = data().prepare(5)
    assert clamped.num_clamped == 1 and clamped.targets[0].max() == 1


def test_randomness_depends_on_seed_epoch_and_index_alone(data):
    first = data(sampling_seed=1).prepare(0, epoch=0).frame_times
    again = data(sampling_seed=1)
    again.prepare(2)  # what was read before does not matter
    assert torch.equal(again.prepare(0, epoch=0).frame_times, first)
    others = [again.prepare(0, epoch=epoch).frame_times for epoch in range(1, 6)]
    assert any(not torch.equal(other, first) for other in others)


def test_shared_prefix_trains_as_separate_items(data, processor, checkpoint):
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint).train()
    apart, shared = data(sampling_method="eval"), data(
        sampling_method="eval", share_video_prefix=True)  # fmt: skip
    assert len(shared) == 4 and shared.num_items == len(LINES)
    rows = [[apart.prepare(i)] for i in range(len(apart))]
    one_by_one, _ = collate(processor, rows)
    behind_prefixes, info = collate(processor, [[shared.prepare(i)] for i in range(len(shared))])
    assert info["num_samples"] == len(LINES)
    fewer = behind_prefixes["pixel_values"].shape[0] / one_by_one["pixel_values"].shape[0]
    assert fewer == 9 / 17
    expected = losses_and_gradients(model, one_by_one)
    assert_equal_training(losses_and_gradients(model, behind_prefixes), expected)
    packed, _ = collate(processor, [[shared.prepare(i) for i in range(len(shared))]])
    assert len(packed["input_ids"]) == 1
    assert_equal_training(losses_and_gradients(model, packed), expected)


def test_lengths_are_those_of_the_prepared_groups(data):
    uncut = max(data().lengths())
    for share, limit in [(False, 8192), (True, 8192), (False, uncut - 1), (True, uncut - 1)]:
        made = data(share_video_prefix=share, max_seq_length=limit)
        for index, length in enumerate(made.lengths()):
            group = made.prepare(index)
            tokens = len(group.prefix_ids) + sum(len(item.input_ids) for item in group.items)
            assert length == tokens


def test_cached_groups_are_prepared_once(data, monkeypatch):
    made = data(cache_samples=True, share_video_prefix=True, max_items_per_group=2)
    calls = Counter()
    load = made._load_media

    def counted(item, *args):
        calls[item.video, item.images] += 1
        return load(item, *args)

    monkeypatch.setattr(made, "_load_media", counted)
    for _ in range(2):
        for index in range(len(made)):
            made.prepare(index)
    assert set(calls.values()) == {1}  # also where two groups are about one video


def test_broken_samples_are_named_and_replaced(folder, processor):
    broken = [
        {"video": "missing.mp4", "conversations": turn("<video>\nwhat?", "no.")},
        {"video": "a.mp4", "tgt": [2.0, 1.0], "conversations": GROUND},
        {"video": "a.mp4", "tgt": [1.0], "conversations": GROUND},
    ]
    (folder / "text.mp4").write_text("no video")
    broken += [{"video": "text.mp4", "conversations": turn("<video>\nwhat?", "no.")}]
    made = TrainingData(write_meta(folder, broken + LINES[:1]), processor, DataSettings())
    for index, expected in enumerate(["missing.mp4", "reversed", "tgt", "text.mp4"]):
        group = made[index, 0]
        assert group.places[0].endswith("train.jsonl:5")
        assert f"train.jsonl:{index + 1}" in group.problems[0]
        assert expected in group.problems[0] or "end" in group.problems[0]
    only_broken = TrainingData(write_meta(folder, broken), processor, DataSettings())
    with pytest.raises(DataError, match="20 samples in a row are broken"):
        only_broken[0, 0]


def about_a(
    question="<video>\nwhen does the red square appear?", answer="at <TIME_STAMP>.", **more
):
    times = {"tgt": [1, 2] * (question + answer).count("<TIME_STAMP>")}
    return {"video": "a.mp4", **times, "conversations": turn(question, answer)} | more


def trained(folder, processor, lines, **flags):
    """Places, problems and warnings of every group, behind shared prefixes."""
    frames = {"min_num_frame": 4, "max_num_frame": 4, "sampling_method": "middle"}
    data = TrainingData(
        write_meta(folder, lines),
        processor,
        DataSettings(share_video_prefix=True, **frames | flags),
    )
    return [data[index, 0] for index in range(len(data))]


def lines_of(groups):
    return sorted(int(place.rpartition(":")[2]) for group in groups for place in group.places)


WORDING = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "what is seen? ", "when ", "at <TIME_STAMP> "]),
    st.sampled_from(["", "<video>", "<video>\n"]),
    st.sampled_from(["when?", "what is seen?", "yes no"]),
)


@given(
    questions=st.lists(WORDING, min_size=1, max_size=8),
    systems=st.lists(st.sampled_from([None, "s", "at <TIME_STAMP>"]), min_size=8, max_size=8),
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_all_items_of_a_video_are_trained_however_they_are_worded(
    folder, processor, questions, systems
):
    lines = []
    for question, system in zip(questions, systems, strict=False):
        line = about_a(question, "at <TIME_STAMP>.")
        if system is not None:
            line["conversations"].insert(0, {"from": "system", "value": system})
            line["tgt"] += [1, 2] * system.count("<TIME_STAMP>")
        lines.append(line)
    groups = trained(folder, processor, lines)
    assert not [problem for group in groups for problem in group.problems]
    assert lines_of(groups) == list(range(1, len(lines) + 1))
    alike = [
        question
        for question, system in zip(questions, systems, strict=False)
        if system is None and not question.rpartition("<video>")[0]
    ]
    assert max(len(group.items) for group in groups) >= len(alike)


def test_what_stands_before_the_tag_keeps_items_apart(folder, processor):
    lines = [about_a()] * 9 + [about_a("what is seen? <video>", "the square.")]
    groups = trained(folder, processor, lines)
    assert sorted(len(group.items) for group in groups) == [1, 9]
    assert lines_of(groups) == list(range(1, 11)) and not groups[0].problems


BROKEN_ITEMS = {
    "empty answer": about_a(answer=" "),
    "too few times": about_a(tgt=[1]),
    "more times": about_a(tgt=[1, 2, 3, 4]),
    "reversed": about_a(tgt=[2, 1]),
    "milliseconds": about_a(tgt=[1000, 2000]),
    "no turns": about_a(conversations=[]),
    "tag in an answer": about_a(answer="<video>"),
    "too long a question": about_a("<video>\n" + "red " * 900),
    "surrogate": about_a(answer="\ud800"),
    "video is a list": about_a(video=["a.mp4"]),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN_ITEMS.values(), ids=BROKEN_ITEMS.keys())
def test_one_broken_item_costs_one_item(folder, processor, broken):
    good = [about_a(tgt=[n / 4, n / 2]) for n in range(4)]
    groups = trained(folder, processor, [*good[:2], broken, *good[2:]], max_seq_length=500)
    problems = [problem for group in groups for problem in group.problems]
    assert len(problems) == 1 and "train.jsonl:3: " in problems[0]
    (whole,) = trained(folder, processor, good, max_seq_length=500)
    group = next(group for group in groups if len(group.items) == 4)
    assert lines_of([group]) == [1, 2, 4, 5]
    assert group.prefix_ids == whole.prefix_ids and group.items == whole.items
    assert torch.equal(torch.cat(group.targets), torch.cat(whole.targets))


def test_a_broken_video_costs_each_of_its_items(folder, processor):
    lines = [about_a()] + [about_a(video="gone.mp4")] * 3
    (good, replaced) = trained(folder, processor, lines)
    assert not good.problems and lines_of([replaced]) == [1]
    assert [f"train.jsonl:{n}: " in p for n, p in enumerate(replaced.problems, 2)] == [True] * 3
    assert all(problem.startswith("replaced a broken sample: ") for problem in replaced.problems)


def test_times_that_are_cut_off_are_named_and_counted(folder, processor):
    long = about_a(answer="at <TIME_STAMP>." + " red" * 50 + " at <TIME_STAMP>.")
    (alone,) = trained(folder, processor, [long])
    length = len(alone.items[0].input_ids)
    for cut, lost in ((1, 0), (20, 1), (56, 2)):
        (group,) = trained(folder, processor, [long], max_seq_length=length - cut)
        assert (group.num_lost, len(group.targets[0])) == (lost, 2 - lost)
        (warning,) = group.warnings
        assert f"train.jsonl:1: {cut} of {length} tokens will be cut off the end" in warning
        assert (f"and {lost} of its intervals with them" in warning) == bool(lost)
        assert Collator(0)([[group]])["num_lost"] == lost


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted), min_size=1))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_intervals_behind_the_video_are_errors_and_those_across_its_end_are_named(
    folder, processor, halves
):
    times = [half / 2 for pair in halves for half in pair]
    line = about_a(answer="at <TIME_STAMP>. " * len(halves), tgt=times)
    first, second = trained(folder, processor, [line, about_a(video="b.mp4")])
    assert not second.problems
    if max(times[::2]) > 4:
        assert "begins behind the end of the video at 4 seconds" in first.problems[0]
        assert lines_of([first]) == [2]
    else:
        assert not first.problems
        assert first.num_clamped == len(first.warnings) == sum(end > 4 for end in times[1::2])
        assert all("train.jsonl:1: interval [" in warning for warning in first.warnings)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"min_num_frame": 5, "max_num_frame": 4}, "--min_num_frame 5 and --max_num_frame 4"),
        ({"sampling_method": "fps"}, "--sampling_method fps: choose rand, middle or eval"),
        ({"max_seq_length": 0}, "--max_seq_length"),
    ],
)
def test_settings_name_the_flag(flags, message):
    with pytest.raises(DataError, match=message):
        DataSettings(**flags)


def test_an_empty_data_set_is_an_error(folder, processor):
    with pytest.raises(DataError, match="no items"):
        TrainingData(write_meta(folder, []), processor)


# ---------------------------------------------------------------------- plan


@given(
    num_groups=st.integers(1, 60),
    epochs=st.sampled_from([1, 2, 0.5, 2.5]),
    packed=st.booleans(),
    seed=st.integers(0, 5),
)
def test_a_plan_holds_every_group_of_every_epoch_once(num_groups, epochs, packed, seed):
    lengths = [random.Random(i).randint(1, 50) for i in range(num_groups)]
    settings = PlanSettings(
        epochs=epochs, seed=seed, group_by_length=True, packed_length=64 if packed else None,
        window=16, rows_per_step=4,
    )  # fmt: skip
    plan = make_plan(num_groups, settings, lengths)
    keys = [key for row in plan for key in row]
    assert len(keys) == len(set(keys)) == round(num_groups * epochs)
    whole = [key for key in keys if key[1] < int(epochs)]
    assert len(whole) == num_groups * int(epochs)
    assert plan == make_plan(num_groups, settings, lengths)
    if packed:
        assert all(sum(lengths[group] for group, _ in row) <= 64 for row in plan)


def test_lengths_group_rows_that_are_alike():
    lengths = [random.Random(i).randint(10, 1000) for i in range(512)]

    def padding(**settings):
        plan = make_plan(512, PlanSettings(rows_per_step=8, **settings), lengths)
        steps = [plan[i : i + 8] for i in range(0, 512, 8)]
        return sum(
            max(lengths[row[0][0]] for row in step) * len(step)
            - sum(lengths[row[0][0]] for row in step)
            for step in steps
        )

    assert padding(group_by_length=True) < padding() / 5


def test_lengths_are_required_where_they_are_used():
    with pytest.raises(ValueError, match="lengths are needed"):
        make_plan(3, PlanSettings(group_by_length=True))


def test_rows_are_prepared_on_demand(data):
    made = data()
    rows = PlannedRows(made, [[(0, 0), (4, 0)], [(1, 0)]])
    assert len(rows) == 2
    assert [len(group.items) for group in rows[0]] == [1, 1]
