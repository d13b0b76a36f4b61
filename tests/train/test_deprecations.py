"""What the package calls of other libraries is not about to go away."""

from __future__ import annotations

import logging
import re
import warnings

import pytest
import torch

from answering import QUERIES, write_answering_checkpoint, write_example_videos
from distime import DisTime, DisTimeForConditionalGeneration
from tiny_runs import train

GOING = re.compile("deprecat|removed in|will be removed|no longer be", re.I)


@pytest.fixture
def current(monkeypatch):
    """Fail a test in which a library says that something it was asked for is going away."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record):
            if GOING.search(record.getMessage()):
                said.append(record.getMessage())

    # What is said once may have been said in an earlier test.
    logging.Logger.warning_once.cache_clear()
    listener = Listener()
    loggers = [logging.getLogger(name) for name in ("transformers", "peft", "accelerate")]
    for logger in loggers:
        logger.addHandler(listener)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    for logger in loggers:
        logger.removeHandler(listener)
    kinds = (FutureWarning, DeprecationWarning)
    said += [
        f"{w.filename}:{w.lineno}: {w.message}" for w in caught if issubclass(w.category, kinds)
    ]
    assert not said


@pytest.mark.smoke
def test_training_and_going_on(workspace, tmp_path, current):
    flags = (
        "--use_llm_lora", 4, "--freeze_llm", True, "--gradient_checkpointing", True,
        "--per_device_train_batch_size", 2, "--group_by_length", True, "--save_strategy", "steps",
        "--save_steps", 1, "--lr_scheduler_type", "constant",
    )  # fmt: skip
    train(workspace, tmp_path, *flags, "--max_steps", 1)
    train(workspace, tmp_path, *flags, "--max_steps", 2, "--resume", "auto")


@pytest.mark.smoke
def test_loading_answering_and_saving(tmp_path, current):
    folder = write_answering_checkpoint(tmp_path / "checkpoint")
    (video, _), *_ = write_example_videos(tmp_path / "videos", 1)
    model = DisTime.from_pretrained(folder, device="cpu", attn_implementation="sdpa")
    model.ground(video, QUERIES, max_new_tokens=8)
    model.caption(video, max_new_tokens=8)
    sample = model.processor.load_video(video)
    inputs = model.processor(sample, QUERIES[0])
    output = model.model.generate(
        **inputs, max_new_tokens=4, do_sample=True, return_dict_in_generate=True
    )
    assert len(output.times) == 1
    del inputs["durations"]  # for people; the model knows no seconds
    with torch.no_grad():
        model.model(**inputs, use_cache=True)
    model.save_pretrained(tmp_path / "again")
    DisTimeForConditionalGeneration.from_pretrained(tmp_path / "again", dtype=torch.bfloat16)


def test_a_deprecated_call_would_be_noticed(tiny_model):
    """The names that the library gave up warn: such a call in the tests above fails them."""
    with pytest.warns(FutureWarning, match=GOING):
        tiny_model.gradient_checkpointing_enable({"use_reentrant": False})
