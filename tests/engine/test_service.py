"""Many threads ask one engine."""

from __future__ import annotations

import threading
import time

import pytest

from distime.engine import Busy, Decoding, Engine, EngineError, Job, Service
from engine.conftest import alone, check


@pytest.fixture
def service(model):
    service = Service(Engine(model.model, model.processor, max_rows=4), max_waiting=8)
    yield service
    service.close()


def test_threads_share_batches(model, inputs, service):
    expected = [alone(model, video, 12) for video in inputs]
    failed = []

    def ask(number):
        try:
            job = Job(lambda: inputs[number], Decoding(max_new_tokens=12))
            answers = service.submit(job).result(60).first_answers()
            check(answers, expected[number], inputs[number].duration)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(service) == 0


def test_a_slow_video_keeps_no_other_waiting(model, inputs, service):
    go = threading.Event()

    def slow():
        go.wait(60)
        return inputs[1]

    first = service.submit(Job(slow, Decoding(max_new_tokens=4)))
    time.sleep(0.1)
    second = service.submit(Job(lambda: inputs[0], Decoding(max_new_tokens=4)))
    assert second.result(30).first_answers()
    assert not first.done()
    go.set()
    assert first.result(30).first_answers()


def test_the_queue_is_bounded(inputs, service):
    go = threading.Event()

    def slow():
        go.wait(60)
        return inputs[0]

    given = [service.submit(Job(slow, Decoding(max_new_tokens=2))) for _ in range(8)]
    with pytest.raises(Busy, match="8 requests"):
        service.submit(Job(slow))
    go.set()
    assert all(future.result(60).first_answers() for future in given)


def test_a_failure_of_the_model_ends_what_it_had_and_no_more(model, inputs, service, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(service.engine, "encode", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.submit(Job(lambda: inputs[0])).result(30).first_answers()
    job = Job(lambda: inputs[0], Decoding(max_new_tokens=2))
    assert service.submit(job).result(30).first_answers()


def test_closing_finishes_what_is_there(model, inputs):
    service = Service(Engine(model.model, model.processor))
    futures = [service.submit(Job(lambda: inputs[0], Decoding(max_new_tokens=4))) for _ in range(3)]
    service.close()
    assert all(future.done() and future.result().first_answers() for future in futures)
    with pytest.raises(EngineError, match="closed"):
        service.submit(Job(lambda: inputs[0]))


def test_closing_cancels_what_takes_too_long(model, inputs):
    service = Service(Engine(model.model, model.processor))
    long = Decoding(min_new_tokens=5000, max_new_tokens=5000)
    future = service.submit(Job(lambda: inputs[0], long))
    time.sleep(0.3)
    service.close(timeout=0.1)
    assert future.result(1).answers == [[None]] * len(inputs[0].suffixes["input_ids"])
