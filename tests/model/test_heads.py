"""Time heads: each trains, answers the same in a batch as alone, and reads back as it was saved."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_modeling import SCRIPTS, generate, pad, prompt, samples, video_sample

from distime import DisTimeForConditionalGeneration
from distime.model.heads import HEAD_NAMES, HeadError, head_class, saved_head
from distime.model.heads.text import TextHead
from distime.model.tokens import TIME_STAMP
from distime.model.weights import CheckpointError
from tiny_models import TIME, make_tiny_model, tiny_config

WITH_TOKEN = [name for name in HEAD_NAMES if not head_class(name).in_words]
KINDS = [(name, reencodes) for name in WITH_TOKEN for reencodes in (True, False)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def model(request):
    return make_tiny_model(time_head=request.param[0], reencode_times=request.param[1])


def in_words(sample):
    """A sample without tokens of time."""
    keep = {name: sample[name] for name in ("pixel_values",) if name in sample}
    is_time = (sample["input_ids"][0] == TIME) | (sample["input_ids"][0] == 4)
    return keep | {name: sample[name][:, ~is_time] for name in ("input_ids", "labels")}


def test_there_are_three():
    assert HEAD_NAMES == ("distribution", "regression", "text")
    with pytest.raises(ValueError, match="distribution, regression, text, got 'tape'"):
        head_class("tape")
    with pytest.raises(ValueError, match="time_head must be one of"):
        tiny_config(time_head="tape")


def test_every_parameter_has_a_gradient(model):
    for batch in (pad(samples(), "right"), pad(samples()[1:2], "right")):
        model.train()
        model.zero_grad()
        output = model(**batch)
        output.loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        model.eval()
        names = [f"{name}_loss" for name in model.time_head.losses]
        parts = [output.text_loss, *(output[name] for name in names)]
        torch.testing.assert_close(output.loss, sum(parts))
        others = {"distribution_loss", "iou_loss", "distance_loss"} - set(names)
        assert all(getattr(output, name) is None for name in others)


def test_a_batch_of_each_is_the_mean_of_its_samples(model):
    alone = [model(**sample) for sample in samples()]
    together = model(**pad(samples(), "right"))
    for name in ("loss", "text_loss", *(f"{one}_loss" for one in model.time_head.losses)):
        mean = sum(one[name] for one in alone) / len(alone)
        torch.testing.assert_close(together[name], mean, rtol=1e-5, atol=1e-6)


def test_only_what_is_re_encoded_tells_later_words_of_earlier_times(model):
    sample = video_sample(2, 2)
    other = sample | {"time_targets": sample["time_targets"].flip(0)}
    ids, first = sample["input_ids"][0], int((sample["input_ids"][0] == TIME).nonzero()[0])
    with torch.no_grad():
        states = [model(**one).last_hidden_state[0] for one in (sample, other)]
    torch.testing.assert_close(states[0][:first], states[1][:first])
    is_same = torch.allclose(states[0][first:], states[1][first:], atol=1e-6)
    assert is_same != model.config.reencode_times
    # A time in a question is given, not predicted: it is always read.
    asked = {"labels": torch.where(torch.arange(len(ids)) <= first, -100, sample["labels"])}
    with torch.no_grad():
        states = [model(**one | asked).last_hidden_state[0] for one in (sample, other)]
    assert not torch.allclose(states[0][first:], states[1][first:], atol=1e-6)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_generated_batch_is_what_training_sees(model, use_cache):
    prompts = [prompt(sample) for sample in samples()]
    output, new = generate(model, pad(prompts, "left"), SCRIPTS, use_cache=use_cache)
    for row, (one, script) in enumerate(zip(prompts, SCRIPTS, strict=True)):
        alone, ids = generate(model, one, [script], use_cache=use_cache)
        assert torch.equal(new[row, : ids.shape[1]], ids[0])
        torch.testing.assert_close(output.times[row], alone.times[0], rtol=0, atol=1e-5)
        # Fed with these times as targets, the forward pass predicts each of them again.
        count = one["input_ids"].shape[1]
        length = count + len([token for token in ids[0].tolist() if token != 0])
        whole = one | {"input_ids": alone.sequences[:, :length]}
        labels = whole["input_ids"].clone()
        labels[:, :count] = -100
        is_time = labels[0] == TIME
        targets = alone.times[0][: int(is_time.sum())]
        with torch.no_grad():
            states = model(**whole, labels=labels, time_targets=targets).last_hidden_state[0]
            again, _ = model.decode_times(states[is_time.roll(-1)])
        torch.testing.assert_close(again, targets, rtol=0, atol=1e-5)
    if model.time_head.has_distribution:
        expected = [len(times) for times in output.times]
        assert [len(one) for one in output.time_distributions] == expected
    else:
        assert output.time_distributions is None


def test_drawn_times_come_as_often_as_their_probability_says():
    head = head_class("distribution")(tiny_config())
    logits = torch.randn(1, 2, 9, generator=torch.Generator().manual_seed(0))
    drawn = head.sample(logits.expand(20_000, -1, -1), torch.Generator().manual_seed(1))
    pairs, counts = (drawn * 8).round().long().unique(dim=0, return_counts=True)
    logs = head.log_prob(logits.expand(len(pairs), -1, -1), pairs / 8)
    p = logs.exp()
    errors = (counts / 20_000 - p) / (p * (1 - p) / 20_000).sqrt()
    assert errors.abs().max() < 4.5
    start, end = logits[0].log_softmax(-1)
    assert logs[0].item() == pytest.approx((start[pairs[0, 0]] + end[pairs[0, 1]]).item())
    every = torch.cartesian_prod(torch.arange(9), torch.arange(9)) / 8
    total = head.log_prob(logits.expand(81, -1, -1), every).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_a_head_without_distribution_draws_nothing():
    head = head_class("regression")(tiny_config())
    with pytest.raises(NotImplementedError, match="RegressionHead has no distribution"):
        head.sample(torch.zeros(1, 2))


def test_regression_answers_within_the_video_and_learns_from_beyond_it():
    head = head_class("regression")(tiny_config())
    logits = torch.tensor([[-0.5, 1.5]], requires_grad=True)
    assert head.decode(logits).tolist() == [[0, 1]]
    losses = head.loss(logits, torch.tensor([[0.0, 1.0]]), torch.tensor([0]), 2)
    assert losses["distance"].tolist() == [0.5, 0]
    losses["distance"].sum().backward()
    assert logits.grad.tolist() == [[-0.5, 0.5]]


def test_words_need_no_module():
    model = make_tiny_model(time_head="text")
    assert not [name for name, _ in model.named_parameters() if name.startswith("time_")]
    batch = pad([in_words(sample) for sample in samples()], "right")
    output = model.train()(**batch)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert output.loss == output.text_loss and output.iou_loss is None
    model.eval()
    prompts = pad([prompt(in_words(sample)) for sample in samples()], "left")
    output, _ = generate(model, prompts, SCRIPTS)  # in which the token is as good as any other
    assert [len(times) for times in output.times] == [0] * len(SCRIPTS)
    assert output.time_distributions is None
    with pytest.raises(ValueError, match="reads times as words"):
        model(**samples()[0])


@pytest.mark.parametrize("kind", [*KINDS, ("text", True)], ids=lambda kind: f"{kind[0]}-{kind[1]}")
def test_saved_and_read(kind, tmp_path):
    saved = make_tiny_model(time_head=kind[0], reencode_times=kind[1])
    saved.save_pretrained(tmp_path)
    assert saved_head(tmp_path) == kind[0]
    read = DisTimeForConditionalGeneration.from_pretrained(tmp_path)
    assert (read.config.time_head, read.config.reencode_times) == kind
    assert type(read.time_head) is head_class(kind[0])
    expected = saved.state_dict()
    assert read.state_dict().keys() == expected.keys()
    assert all(torch.equal(one, expected[name]) for name, one in read.state_dict().items())
    if kind != ("distribution", True):
        with pytest.raises(CheckpointError, match=f"time_head {kind[0]} and"):
            read.write_published(tmp_path / "published", None)


def test_a_configuration_that_does_not_say_has_a_distribution(tmp_path):
    make_tiny_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["time_head"], config["reencode_times"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = DisTimeForConditionalGeneration.from_pretrained(tmp_path)
    assert read.config.time_head == "distribution" and read.config.reencode_times


def test_a_configuration_with_an_unknown_head_is_named(tmp_path):
    make_tiny_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"time_head": "tape"}))
    for read in (saved_head, DisTimeForConditionalGeneration.from_pretrained):
        with pytest.raises(HeadError, match="config.json: unknown time_head 'tape'; there are"):
            read(tmp_path)


@pytest.mark.parametrize("saved", HEAD_NAMES)
@pytest.mark.parametrize("asked", HEAD_NAMES)
def test_a_trained_head_starts_no_other(saved, asked, tmp_path):
    make_tiny_model(time_head=saved).save_pretrained(tmp_path)
    overrides = {"time_head": asked}
    if saved not in (asked, "text"):
        with pytest.raises(HeadError, match=f"has the time head {saved}, .* such as {asked}"):
            DisTimeForConditionalGeneration.from_pretrained(tmp_path, config_overrides=overrides)
        return
    read, info = DisTimeForConditionalGeneration.from_pretrained(
        tmp_path, config_overrides=overrides, output_loading_info=True
    )
    assert type(read.time_head) is head_class(asked)
    fresh = {name for name, _ in read.named_parameters() if name.startswith("time_")}
    assert set(info["missing_keys"]) == (fresh if saved != asked else set())
    assert all(parameter.isfinite().all() for parameter in read.parameters())


# ------------------------------------------------------------------ words


@pytest.mark.parametrize("start", [0, 0.04, 9.95, 123.456])
@pytest.mark.parametrize("length", [0, 3.3, 4000])
def test_written_times_are_read_back(start, length):
    words = TextHead.written(start, start + length)
    text, (found,) = TextHead.read(f"It happens at {words}, then stops.")
    assert text == f"It happens at {TIME_STAMP}, then stops."
    assert all(
        math.isclose(a, b, abs_tol=0.0501)
        for a, b in zip(found, (start, start + length), strict=True)
    )


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("12.5 - 30.0 seconds", [(12.5, 30)]),
        ("From 3 to 4.5 seconds, and 7s - 8s.", [(3, 4.5), (7, 8)]),
        ("3 - 4 seconds, a dog; 4 – 9 sec, a cat", [(3, 4), (4, 9)]),
        ("3 seconds to 4 SECONDS", [(3, 4)]),
        ("3 - 5 people, 12 - 14 steps", []),
        ("at 12.5 seconds", []),
        ("version 1.2.3 - 4 s", []),
        ("", []),
    ],
)
def test_intervals_with_a_unit_are_times(text, spans):
    read, found = TextHead.read(text)
    assert list(found) == spans and read.count(TIME_STAMP) == len(spans)


def test_what_is_settled_of_a_growing_text_stays():
    whole = "A dog runs at 12.5 - 30.0 seconds and 2 cats at 3.0 - 4.0 seconds, so 5."
    final, _ = TextHead.read(whole)
    for end in range(len(whole) + 1):
        settled, _ = TextHead.read(TextHead.settled(whole[:end]))
        assert final.startswith(settled), whole[:end]
