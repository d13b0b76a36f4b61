"""The engine answers each question as if it were asked alone, whatever shares the batch."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import replace

import pytest
import torch

from distime.engine import Decoding, Engine, EngineError, Job
from distime.engine.batch import Row, _packs
from distime.engine.decoding import says_again
from distime.processing.video import VideoError
from engine.conftest import alone, check


def jobs_of(inputs, **options) -> list[Job]:
    return [Job(lambda i=i: inputs[i], tag=i, **options) for i in range(len(inputs))]


@pytest.mark.parametrize("max_rows", [1, 3, 16])
@pytest.mark.parametrize("max_batch_tokens", [1, 300, 100_000])
def test_one_by_one(model, inputs, max_rows, max_batch_tokens):
    engine = Engine(
        model.model, model.processor, max_rows=max_rows, max_batch_tokens=max_batch_tokens
    )
    finished = list(engine.run(jobs_of(inputs, decoding=Decoding(max_new_tokens=24))))
    assert sorted(one.job.tag for one in finished) == list(range(len(inputs)))
    for one in finished:
        video = inputs[one.job.tag]
        check(one.first_answers(), alone(model, video), video.duration)


def test_questions_enter_in_any_number_of_packs(model, inputs, monkeypatch):
    rows = [Row(None, [0] * length, Decoding()) for length in (3, 4, 2, 9, 1)]
    packs = [[len(row.suffix) for row in pack] for pack in _packs(rows, 7)]
    assert packs == [[3, 4], [2], [9], [1]]
    monkeypatch.setattr(
        "distime.engine.batch._packs", lambda rows, _: [rows[:1], rows[1:3], rows[3:]]
    )
    answers = Engine(model.model, model.processor).answer(inputs[3], Decoding(max_new_tokens=8))
    check(answers, alone(model, inputs[3], 8), inputs[3].duration)


def test_eager_attention(model, inputs):
    model.model.set_attn_implementation("eager")
    try:
        engine = Engine(model.model, model.processor, max_rows=4)
        for one in engine.run(jobs_of(inputs, decoding=Decoding(max_new_tokens=12))):
            video = inputs[one.job.tag]
            check(one.first_answers(), alone(model, video, 12), video.duration)
    finally:
        model.model.set_attn_implementation("sdpa")


def test_answers_that_grow_over_the_budget_begin_again(model, inputs):
    """The budget holds the prompts of several rows, but not their answers."""
    longest = max(one.prefix["input_ids"].shape[1] for one in inputs)
    engine = Engine(model.model, model.processor, max_rows=4, max_batch_tokens=4 * longest + 300)
    decoding = Decoding(max_new_tokens=120, min_new_tokens=120)
    restarts, sizes = [], []
    listener = lambda *event: restarts.append(event) if not event[2] else None  # noqa: E731
    batches = []
    make = engine.batch
    engine.batch = lambda: batches.append(make()) or batches[-1]
    for one in engine.run(jobs_of(inputs[:4], decoding=decoding, on_token=listener)):
        rows, width = batches[0].slots.shape
        sizes.append(len(batches[0].rows) * width)
        answers = engine.answer(inputs[one.job.tag], decoding)
        assert [a.text for a in one.first_answers()] == [a.text for a in answers]
    assert restarts


def test_a_slot_that_is_not_finite_spoils_no_other(model, inputs):
    """What is masked is still multiplied by zero, which not-a-number survives."""
    engine = Engine(model.model, model.processor, max_rows=2)
    batch = engine.batch()
    engine.batch = lambda: batch
    run = engine.run(jobs_of(inputs, decoding=Decoding(max_new_tokens=24)))
    first = next(run)
    for layer in batch.slots.layers:
        layer.keys[len(batch.rows) :] = layer.values[len(batch.rows) :] = torch.nan
    for one in [first, *run]:
        video = inputs[one.job.tag]
        check(one.first_answers(), alone(model, video), video.duration)


def test_errors_belong_to_their_job(model, inputs):
    def broken():
        raise VideoError("b.mp4: cut off")

    jobs = jobs_of(inputs[:3], decoding=Decoding(max_new_tokens=8))
    jobs.insert(1, Job(broken, tag="broken"))
    finished = {one.job.tag: one for one in Engine(model.model, model.processor).run(jobs)}
    assert set(finished) == {0, 1, 2, "broken"}
    with pytest.raises(VideoError, match="cut off"):
        finished["broken"].first_answers()
    for number in range(3):
        video = inputs[number]
        check(finished[number].first_answers(), alone(model, video, 8), video.duration)


def test_a_time_that_is_no_number_ends_its_job_alone(model, inputs):
    asked = replace_duration(inputs[3], float("nan"))
    jobs = [Job(lambda: asked, tag="bad"), Job(lambda: inputs[0], tag="good")]
    finished = {one.job.tag: one for one in Engine(model.model, model.processor).run(jobs)}
    assert isinstance(finished["bad"].error, EngineError)
    assert finished["good"].first_answers()


def replace_duration(inputs, duration):
    return replace(inputs, duration=duration)


def test_sampling_does_not_depend_on_the_neighbours(model, inputs):
    decoding = Decoding(do_sample=True, temperature=2.0, top_p=0.9, seed=3, max_new_tokens=10)
    texts = {}
    for max_rows in (1, 5):
        engine = Engine(model.model, model.processor, max_rows=max_rows)
        for one in engine.run(jobs_of(inputs, decoding=decoding, samples=3)):
            found = [[answer.text for answer in samples] for samples in one.answers]
            assert texts.setdefault(one.job.tag, found) == found
    assert any(len(set(samples)) > 1 for found in texts.values() for samples in found)


def test_streaming_shows_every_token_and_time(model, inputs):
    seen = {}

    def listen(question, sample, ids, intervals):
        seen.setdefault((question, sample), []).append((list(ids), len(intervals)))

    job = Job(lambda: inputs[3], Decoding(max_new_tokens=10), on_token=listen)
    (finished,) = Engine(model.model, model.processor).run(job)
    for question, answer in enumerate(finished.first_answers()):
        steps = seen[question, 0]
        assert [len(ids) for ids, _ in steps] == list(range(1, len(steps) + 1))
        assert model.processor.decode(steps[-1][0]) == answer.text
        assert steps[-1][1] == len(answer.events)


def test_cancelled_jobs_come_back_soon(model, inputs):
    jobs = jobs_of(inputs, decoding=Decoding(max_new_tokens=400, min_new_tokens=400))
    steps = []

    def cancel(question, sample, ids, intervals):
        steps.append(len(ids))
        if len(ids) == 3:
            jobs[0].cancel()
            jobs[1].cancel()

    jobs[0].on_token = cancel
    run = Engine(model.model, model.processor, max_rows=2).run(jobs[:2])
    finished = list(run)
    assert {one.job.tag for one in finished} == {0, 1}
    assert all(answer is None for one in finished for samples in one.answers for answer in samples)
    assert max(steps) == 3


def test_any_order_of_arrival(model, inputs):
    order = list(range(len(inputs))) * 2
    random.Random(0).shuffle(order)
    expected = [alone(model, video, 12) for video in inputs]
    jobs = [Job(lambda i=i: inputs[i], Decoding(max_new_tokens=12), tag=i) for i in order]
    for one in Engine(model.model, model.processor, max_rows=5, workers=3).run(jobs):
        check(one.first_answers(), expected[one.job.tag], inputs[one.job.tag].duration)


def test_attention_that_cannot_be_stacked_is_answered_video_by_video(
    model, inputs, caplog, monkeypatch
):
    monkeypatch.setattr("distime.engine.slots.Slots.can_hold", staticmethod(lambda cache: False))
    engine = Engine(model.model, model.processor)
    for one in engine.run(jobs_of(inputs[:3], decoding=Decoding(max_new_tokens=12))):
        video = inputs[one.job.tag]
        check(one.first_answers(), alone(model, video, 12), video.duration)
    assert caplog.text.count("one video is answered at a time") == 1


@pytest.mark.parametrize("stacked", [True, False])
def test_answers_that_run_away_can_be_ended(model, inputs, monkeypatch, stacked):
    say = model.processor.tokenizer("red circle", add_special_tokens=False).input_ids
    said = torch.zeros(len(model.processor.tokenizer), dtype=bool).index_fill(
        0, torch.tensor(say), 1
    )
    hook = model.model.lm_head.register_forward_hook(
        lambda _, __, logits: torch.where(said, 0.0, -torch.inf).expand_as(logits).to(logits)
    )
    monkeypatch.setattr("distime.engine.slots.Slots.can_hold", staticmethod(lambda _: stacked))

    def ask(**options):
        decoding = Decoding(max_new_tokens=60, **options)
        (finished,) = Engine(model.model, model.processor).run(Job(lambda: inputs[1], decoding))
        return finished, [
            len(model.processor.tokenizer(a.text).input_ids) for a in finished.first_answers()
        ]

    with hook:
        finished, lengths = ask()
        assert finished.ran_away == 0 and set(lengths) == {60}
        finished, lengths = ask(max_repeats=3)
        assert finished.ran_away == len(lengths) == 2 and set(lengths) == {32}


def test_what_repeats_itself():
    said = [*range(50)]
    assert says_again([*said, *[7, 8, 9] * 11], 4)
    assert says_again([*said, *said, *said], 3)
    assert says_again([1, 2, *[5] * 32], 2)
    assert not says_again([*said, *[7, 8, 9] * 10], 4)  # too short
    assert not says_again([*said, *said, *said], 4)
    assert not says_again([*said, *[7, 8, 9] * 11, 1], 4)
    assert not says_again([], 2)


def test_memory_is_given_back(model, inputs):
    engine = Engine(model.model, model.processor)
    list(engine.run(jobs_of(inputs, decoding=Decoding(max_new_tokens=4))))
    gc.collect()
    before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    for _ in range(3):
        list(engine.run(jobs_of(inputs, decoding=Decoding(max_new_tokens=4))))
    gc.collect()
    assert sum(isinstance(o, torch.Tensor) for o in gc.get_objects()) <= before + 5


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"min_new_tokens": 5, "max_new_tokens": 4},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": -1},
        {"max_repeats": 1},
    ],
)
def test_values_out_of_range_are_refused_by_name(options):
    with pytest.raises(EngineError, match=next(iter(options))):
        Decoding(**options)


def test_several_samples_of_the_likeliest_answer_are_refused():
    with pytest.raises(EngineError, match="do_sample"):
        Job(lambda: None, samples=2)


def test_a_group_is_answered_alike_to_the_last_bit(model, inputs):
    """Whatever is answered before and after, and whichever video is read first."""

    def answers(jobs, max_rows=3):
        engine = Engine(model.model.float(), model.processor, max_rows=max_rows, workers=4)
        return {one.job.tag: one.first_answers() for one in engine.run(jobs)}

    def group(number, slow=()):
        def load(i):
            time.sleep(0.05 * (i in slow))
            return inputs[i]

        decoding = Decoding(max_new_tokens=12)
        return [
            Job(lambda i=i: load(i), decoding, tag=(number, i), group=number)
            for i in ((0, 1, 2, 3) if number else (4, 5, 6))
        ]

    try:
        alone_ = answers(group(1))
        for jobs in (group(0) + group(1), group(1, slow=(0, 2)), group(1) + group(0, slow=(4,))):
            found = answers(jobs)
            for tag, expected in alone_.items():
                assert [a.to_dict() for a in found[tag]] == [a.to_dict() for a in expected]
    finally:
        model.model.double()
