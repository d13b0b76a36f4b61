"""Runs with every time head: trained, evaluated, gone on with, exported, asked and refused."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch

from answering import QUERIES
from distime import DisTime, DisTimeProcessor
from distime.backbones import BACKBONES
from distime.cli import main
from distime.data.dataset import DataSettings, TrainingData
from distime.data.lengths import count_lengths
from distime.engine import Decoding, EngineError
from distime.evaluate import Settings, SettingsError, run
from distime.evaluate.journal import answer_from_dict, answer_to_dict
from distime.model.heads import HEAD_NAMES, head_class
from distime.model.tokens import FRAME_TIME_REF, TIME_STAMP
from distime.processing.answers import read_words
from distime.serve.served_request import Growing, ServedRequest
from distime.toy.stages import (
    Stage,
    StageError,
    stage_flags,
    synthetic_benchmark,
    train_stage_here,
)
from distime.toy.synthetic import write_videos
from distime.toy.tiny import write_tiny_checkpoint
from distime.train.arguments import parse
from distime.train.evaluation import HeldOut
from distime.train.flags import ArgumentError
from tiny_runs import command_line, parameters, train

DIGITS = " ".join(f"{number} ." for number in range(10)) + " seconds -"
WORDS = ["when does the red square appear ? at . yes no what is seen", *QUERIES, DIGITS]
LORA = ("--use_llm_lora", 4, "--freeze_llm", True, "--train_embeddings", "new_rows")


@pytest.fixture(scope="module")
def start(workspace):
    """A tiny model that knows nothing of time yet, from which every head can start."""
    folder = workspace / "wordy"
    options = {"hidden_size": 32, "num_layers": 2, "num_frames": 4, "time_head": "text"}
    write_tiny_checkpoint(folder, WORDS, **options)
    return folder


@pytest.fixture(scope="module", params=[*HEAD_NAMES, "not re-encoded"])
def trained(request, workspace, start, tmp_path_factory):
    """A short run with held-out questions; its flags, its folder and its time head."""
    name = request.param if request.param in HEAD_NAMES else "regression"
    flags = ["--model_name_or_path", start, "--time_head", name, "--max_steps", 2,
             "--save_steps", 1, "--save_strategy", "steps", "--per_device_train_batch_size", 2,
             "--eval_path", workspace / "train.jsonl", "--eval_max_new_tokens", 4]  # fmt: skip
    if name != request.param:
        flags += ["--reencode_times", False]
    folder = tmp_path_factory.mktemp("run") / "out"
    train(workspace, folder, *flags)
    return flags, folder, name


def test_a_run_says_what_its_head_has_lost(trained):
    _, folder, name = trained
    outcome = json.loads((folder / "run.json").read_text())
    losses = {"loss", "text_loss", *(f"{one}_loss" for one in head_class(name).losses)}
    assert set(outcome["losses"]) == losses
    assert "eval_miou" in outcome["evaluation"]
    assert head_class(name).how[:25] in (folder / "README.md").read_text()
    assert DisTimeProcessor.from_pretrained(folder).settings.time_head == name


def test_a_run_that_is_gone_on_with_ends_the_same(trained, workspace, tmp_path, caplog):
    flags, folder, name = trained
    train(workspace, tmp_path / "out", *flags, "--save_total_limit", 2)
    (tmp_path / "out" / "model.safetensors").unlink()
    for left in (tmp_path / "out").glob("checkpoint-2/*"):
        left.unlink()
    (tmp_path / "out" / "checkpoint-2").rmdir()
    train(workspace, tmp_path / "out", *flags, "--resume", "auto")
    expected = parameters(folder)
    for key, parameter in parameters(tmp_path / "out").items():
        assert torch.equal(parameter, expected[key]), key
    other = next(one for one in HEAD_NAMES if one != name)
    changed = [other if flag == name else flag for flag in flags]
    caplog.clear()
    train(workspace, tmp_path / "out", *changed, "--resume", "auto", expect=2)
    assert "time_head" in caplog.text


def answering(folder, seed) -> DisTime:
    """The trained model with weights that make it say much, times among it."""
    model = DisTime.from_pretrained(folder, dtype=torch.float64, device="cpu")
    processor, generator = model.processor, torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3, generator=generator)
        rows = model.model.get_input_embeddings().weight
        rows[processor.token_ids.time_stamp] *= 2.5
        for name in (FRAME_TIME_REF, "<IMG_CONTEXT>", "<img>", "</img>"):
            rows[processor.tokenizer.convert_tokens_to_ids(name)] *= 0.1
    return model


def test_answers_are_the_same_by_engine_and_generate_and_hold_what_there_is(trained, workspace):
    _, folder, name = trained
    head, decoding = head_class(name), Decoding(max_new_tokens=12)
    for seed in range(1, 20):  # some random words hold times, if there are tokens for them
        model = answering(folder, seed)
        inputs = model.processor.shared_prefix(workspace / "a.mp4", QUERIES)
        together = model.engine.answer(inputs, decoding)
        events = [event for answer in together for event in answer.events]
        if events or head.in_words:
            break
    assert bool(events) != head.in_words
    refs = int((inputs.prefix["input_ids"] == model.processor.token_ids.frame_time_ref).sum())
    assert refs == len(inputs.prefix["frame_times"]) == (0 if head.in_words else 4)
    in_step = model.engine.answer_in_step(inputs, decoding)
    for query, one, other in zip(QUERIES, together, in_step, strict=True):
        alone = model.processor.shared_prefix(workspace / "a.mp4", [query])
        (by_itself,) = model.engine.answer(alone, decoding)
        assert one.text == other.text == by_itself.text
        for events in (other.events, by_itself.events):
            spans = [(event.start, event.end) for event in events]
            expected = [(event.start, event.end) for event in one.events]
            torch.testing.assert_close(torch.tensor(spans), torch.tensor(expected))
    for event in events:
        assert (event.distribution is not None) == head.has_distribution
        assert 0 <= event.start <= 4 and 0 <= event.end <= 4
    for answer in together:
        values = json.loads(json.dumps(answer_to_dict(answer), allow_nan=False))
        again = answer_from_dict(values)
        assert again.text == answer.text and again.readable == answer.readable
    model.ground(workspace / "a.mp4", QUERIES[0], max_new_tokens=8)._repr_html_()
    first = model.chat(workspace / "a.mp4", QUERIES[0], max_new_tokens=8)
    model.chat(workspace / "a.mp4", "what?", [(QUERIES[0], first)], max_new_tokens=4)


def test_a_benchmark_is_run_and_drawn(trained, tmp_path):
    _, folder, name = trained
    specs = write_videos(tmp_path / "videos", 1, seed=3, workers=1)
    annotation, truth = synthetic_benchmark().of_synthetic(specs, tmp_path)
    settings = {
        "checkpoint": folder, "benchmark": synthetic_benchmark().name, "device": "cpu",
        "annotation": annotation, "ground_truth": truth, "video_root": tmp_path / "videos",
        "out_dir": tmp_path / "out", "num_segments": 4, "max_new_tokens": 4, "dtype": "fp32",
        "plots": 1,
    }  # fmt: skip
    result = run(Settings(**settings))
    assert not result.problem and "mIoU" in result.score.metrics
    assert (tmp_path / "out" / "plots" / "index.html").is_file()
    if not head_class(name).has_distribution:
        with pytest.raises(SettingsError, match=f"--dump-distributions True: the time head {name}"):
            Settings(**settings, dump_distributions=True)


def test_words_go_into_prompts_and_training_and_come_back_as_events(workspace, start, monkeypatch):
    model = DisTime.from_pretrained(start, device="cpu")
    processor = model.processor
    data = TrainingData(
        workspace / "meta.json", processor,
        DataSettings(min_num_frame=4, max_num_frame=4, sampling_method="middle"),
    )  # fmt: skip
    group = data.prepare(3)
    text = processor.decode(group.items[0].input_ids)  # up to the end of the system's turn
    whole = processor.tokenizer.decode(group.items[0].input_ids)
    assert "at 0.7 - 1.7 seconds" in whole.replace("0.8 - 1.8", "0.7 - 1.7") and text in whole
    assert whole.count("seconds") == 4 + 1 and TIME_STAMP not in whole
    assert not len(group.targets[0]) and not len(group.frame_times) and not group.num_lost
    assert "0.2 seconds" in model.prompt(workspace / "a.mp4", "when?")
    bounds = list(count_lengths(data, range(len(data))))
    true = [len(data.prepare(i).items[0].input_ids) for i in range(len(data))]
    assert all(0 <= bound - length <= 2 * 4 for bound, length in zip(bounds, true, strict=True))

    said = iter(["red at 1.0 - 3.5 seconds, blue at 2 to 99 s.", "no time"])
    monkeypatch.setattr(DisTimeProcessor, "decode", lambda *_: next(said))
    answer = model.chat(workspace / "a.mp4", "when?", max_new_tokens=1)
    assert answer.text == f"red at {TIME_STAMP}, blue at {TIME_STAMP}."
    assert [(event.start, event.end) for event in answer.events] == [(1, 3.5), (2, 4)]
    assert answer.readable == "red at 1.0 - 3.5 s, blue at 2.0 - 4.0 s."
    assert model.ground(workspace / "a.mp4", "red", max_new_tokens=1) == []
    prompt = model.prompt(workspace / "a.mp4", "and then?", [("when?", answer)])
    assert "red at 1.0 - 3.5 seconds, blue at 2.0 - 4.0 seconds." in prompt


def test_a_stream_holds_words_back_until_they_are_settled(workspace, start, monkeypatch):
    model, heard = DisTime.from_pretrained(start, device="cpu"), []
    asked = ServedRequest(model, None, "", ["when?"], on_text=lambda *told: heard.append(told))
    asked.inputs = model.processor.shared_prefix(workspace / "a.mp4", ["when?"])
    whole, growing, sent = "red at 1.0 - 3.5 seconds, then 2 more.", Growing(), ""
    for end in range(1, len(whole) + 1):
        monkeypatch.setattr(DisTimeProcessor, "decode", lambda *_, end=end: whole[:end])
        asked.hear(0, 0, [1], [])
        _, text, events = heard[-1]
        sent += growing.piece(text, events)[0]
    assert read_words(model.processor, whole, 4).readable.startswith(sent)
    assert sent == "red at 1.0 - 3.5 s, then 2 more."
    assert [(event.start, event.end) for event in events] == [(1, 3.5)]


def test_times_beyond_the_video_are_cut_before_they_are_written(workspace, start):
    item = json.loads((workspace / "train.jsonl").read_text().splitlines()[0])
    item["tgt"] = [1, 99]
    (workspace / "beyond.jsonl").write_text(json.dumps(item) + "\n")
    (workspace / "beyond.json").write_text(
        json.dumps({"one": {"root": ".", "annotation": "beyond.jsonl"}})
    )
    processor = DisTimeProcessor.from_pretrained(start)
    data = TrainingData(workspace / "beyond.json", processor)
    group = data.prepare(0)
    assert "at 1.0 - 4.0 seconds" in processor.tokenizer.decode(group.items[0].input_ids)
    assert group.num_clamped == 1 and "ends beyond" in group.warnings[0]


@pytest.mark.parametrize("backbone", sorted(BACKBONES.keys() - {"internvl"}))
def test_words_on_every_backbone(workspace, tmp_path, backbone):
    (tmp_path / "words.txt").write_text(" ".join(WORDS))
    words = ("--words", str(tmp_path / "words.txt"), "--time-head", "text")
    assert main(["tiny", backbone, str(tmp_path / "start"), *words]) == 0
    train(workspace, tmp_path / "out", "--model_name_or_path", tmp_path / "start",
          "--max_steps", 1, "--per_device_train_batch_size", 2)  # fmt: skip
    model = DisTime.from_pretrained(tmp_path / "out", device="cpu")
    assert model.model.config.time_head == "text"
    assert "seconds" in model.prompt(workspace / "a.mp4", "when?")
    one, other = model.ask(workspace / "a.mp4", ["when?", "what is seen?"], max_new_tokens=6)
    (alone,) = model.ask(workspace / "a.mp4", ["what is seen?"], max_new_tokens=6)
    assert alone.text == other.text and not one.events


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_an_adapter_of_each_is_the_model(workspace, start, tmp_path, name):
    flags = ("--model_name_or_path", start, "--time_head", name, "--max_steps", 1, *LORA)
    train(workspace, tmp_path, *flags, "--export", "both")
    expected = parameters(tmp_path)
    assert any(key.startswith("time_") for key in expected) == (not head_class(name).in_words)
    for key, parameter in parameters(tmp_path / "adapter").items():
        torch.testing.assert_close(parameter, expected[key], rtol=1e-5, atol=1e-6)
    model = DisTime.from_pretrained(tmp_path / "adapter", device="cpu")
    assert model.model.config.time_head == model.processor.settings.time_head == name
    assert main(["merge", str(start), str(tmp_path / "adapter"), str(tmp_path / "merged")]) == 0
    for key, parameter in parameters(tmp_path / "merged").items():
        torch.testing.assert_close(parameter, expected[key], rtol=1e-5, atol=1e-6)
    wrong = next(one for one in HEAD_NAMES if one != name)
    if not head_class(name).in_words:
        with pytest.raises(ArgumentError, match=f"--time_head {wrong}: .*has the time head {name}"):
            words = ("--model_name_or_path", tmp_path / "adapter", "--time_head", wrong)
            parse(command_line(workspace, tmp_path, *words))


def test_the_toys_stages_give_a_head_the_flags_that_it_has(workspace, start, tmp_path):
    given = (start, tmp_path, workspace / "meta.json", Stage(1, 2), 4, 0)
    for name in HEAD_NAMES:
        words = stage_flags(*given, "--time_head", name, "--use_cpu", "True")
        parse(words)
        reduces = "--distribution_loss_reduction" in words
        assert reduces == ("distribution" in head_class(name).losses)
    assert "--distribution_loss_reduction" not in stage_flags(*given)
    quick = ("--warmup_steps", "0", "--disable_tqdm", "True")
    train_stage_here(*given, "--time_head", "regression", *quick)
    assert DisTimeProcessor.from_pretrained(tmp_path).settings.time_head == "regression"
    with pytest.raises(StageError, match="ended with exit code 2"):
        train_stage_here(*given, "--time_head", "tape")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--time_head", "tape"), "--time_head tape: choose distribution or regression or text"),
        (("--time_head", "text"), "has the time head distribution, whose weights fit no other"),
        (("--time_head", "regression"), "such as regression: .*start from a base model"),
        (("--reencode_times", "perhaps"), "reencode_times"),
        (("--distance_loss_weight", 2), "--distance_loss_weight 2.0: the time head distribution"),
        (("--distance_loss_weight", -1), "--distance_loss_weight -1: give at least 0"),
    ],
)
def test_a_start_with_a_distribution_refuses(workspace, tmp_path, words, message):
    with pytest.raises(ArgumentError, match=message):
        parse(command_line(workspace, tmp_path, *words))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("text", ("--reencode_times", False)),
        ("text", ("--iou_loss_weight", 1.0)),
        ("text", ("--dec_reg", 16)),
        ("regression", ("--distribution_loss_weight", 1.0)),
        ("regression", ("--distribution_loss_reduction", "mean")),
    ],
)
def test_flags_without_use_are_refused(workspace, start, tmp_path, head, words):
    flags = ("--model_name_or_path", start, "--time_head", head, *words)
    message = f"{words[0]} {words[1]}: the time head {head} has no use for it"
    with pytest.raises(ArgumentError, match=message):
        parse(command_line(workspace, tmp_path, *flags))


def test_nothing_to_learn_is_refused_for_each_head(workspace, start, tmp_path):
    text = ("--model_name_or_path", start, "--text_loss_weight", 0)
    with pytest.raises(ArgumentError, match="--text_loss_weight is 0"):
        parse(command_line(workspace, tmp_path, *text))
    parse(command_line(workspace, tmp_path, *text, "--time_head", "regression"))


def test_a_processor_of_another_head_is_refused(workspace, start, tmp_path):
    from distime import DisTimeForConditionalGeneration
    from distime.processing.processor import ProcessorError

    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    model = DisTimeForConditionalGeneration.from_pretrained(start)
    with pytest.raises(ProcessorError, match="time_head is distribution here, text there"):
        DisTime(model, processor)
    processor.settings = dataclasses.replace(processor.settings, time_head="tape")
    processor.save_pretrained(tmp_path)
    with pytest.raises(ProcessorError, match="unknown time_head 'tape'; there are distribution"):
        DisTimeProcessor.from_pretrained(tmp_path)


def test_held_out_questions_of_words_are_scored_by_the_times_in_them(workspace, start, monkeypatch):
    model = DisTime.from_pretrained(start, device="cpu")
    questions = HeldOut(workspace / "train.jsonl", model.processor, num_frames=4, limit=1)
    logging.getLogger("distime").setLevel(logging.WARNING)
    monkeypatch.setattr(DisTimeProcessor, "decode", lambda *_: "at 0.0 - 1.0 seconds.")
    assert questions.score(model.model)["miou"] == pytest.approx(100)
    with pytest.raises(EngineError):
        Decoding(max_new_tokens=0)
