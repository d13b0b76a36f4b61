"""Evaluation and logging during training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distime import DisTime, DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.dataset import DataError
from distime.data.problems import AnnotationError
from distime.metrics.intervals import iou
from distime.model.tokens import TIME_STAMP
from distime.train import finetune
from distime.train.evaluation import METRICS, HeldOut, _by_video
from distime.train.trainer import DisTimeTrainer
from tiny_runs import LAUNCH, command_line, parameters, train

LORA = ("--use_llm_lora", 4, "--freeze_llm", True, "--lora_dropout", 0.3)


@pytest.fixture
def logs(monkeypatch):
    """Everything that is logged, in order."""
    lines = []
    log = DisTimeTrainer.log

    def record(self, entries, *args, **kwargs):
        log(self, entries, *args, **kwargs)
        lines.append(dict(entries))

    monkeypatch.setattr(DisTimeTrainer, "log", record)
    return lines


@pytest.fixture(scope="module")
def held_out(workspace):
    """Grounding items about both videos, and others that evaluation leaves out."""
    lines = (workspace / "train.jsonl").read_text().splitlines()
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "no."}]
    two = json.loads(lines[0])
    two["conversations"][-1]["value"], two["tgt"] = f"{TIME_STAMP}{TIME_STAMP}", [0, 1, 1, 2]
    others = [{"conversations": talk}, {"video": "a.mp4", "conversations": talk}, two]
    path = workspace / "held_out.jsonl"
    path.write_text("\n".join(lines[:5] + [json.dumps(other) for other in others]))
    return path


def test_training_is_the_same_with_and_without(workspace, held_out, tmp_path, logs):
    steps = ("--max_steps", 4, "--per_device_train_batch_size", 2, *LORA)
    train(workspace, tmp_path / "without", *steps)
    expected = [line for line in logs if "loss" in line]
    logs.clear()
    train(workspace, tmp_path / "with", *steps, "--eval_path", held_out, "--eval_steps", 3,
          "--per_device_eval_batch_size", 2)  # fmt: skip
    trained = [line for line in logs if "loss" in line]
    for name in ("loss", "text_loss", "distribution_loss", "iou_loss", "grad_norm"):
        assert [line[name] for line in trained] == [line[name] for line in expected]
    after = parameters(tmp_path / "with")
    for name, parameter in parameters(tmp_path / "without").items():
        assert torch.equal(parameter, after[name]), name
    kinds = [
        "eval" if "eval_miou" in line else "train" for line in logs if "train_loss" not in line
    ]
    assert kinds == ["train"] * 3 + ["eval", "train", "eval"]  # every 3 steps and at the end


def test_scores_are_those_of_the_answers(workspace, held_out):
    model = DisTime.from_pretrained(workspace / "tiny")
    time = model.processor.token_ids.time_stamp
    # With random weights hardly any answer has a time; so all have.
    bias = torch.zeros(len(model.processor.tokenizer)).index_fill(0, torch.tensor(time), 100)
    model.model.lm_head.register_forward_hook(lambda _, __, logits: logits + bias)
    questions = HeldOut(held_out, model.processor, num_frames=4, batch_size=2)
    assert len(questions) == 5
    scores = questions.score(model.model.train())
    assert model.model.training
    model.model.eval()
    ious = []
    for item in questions.questions:
        question = "\n" + item.turns[0].text.removeprefix("<video>\n")
        event = model.ask(item.video, [question], max_new_tokens=1)[0].events[0]
        ious.append(iou((event.start, event.end), item.targets[0]))
    assert scores["miou"] == pytest.approx(100 * sum(ious) / 5, abs=1e-3)
    assert scores["miou"] > 0 and scores["answered"] == 100
    assert scores["r1_0.3"] == 20 * sum(value >= 0.3 for value in ious)


def test_every_rank_takes_its_share_and_as_many_turns(workspace, held_out, monkeypatch):
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny")
    questions = HeldOut(held_out, processor, num_frames=4, max_new_tokens=2)
    assert len(questions.batches) == 2
    turns = []
    encode = model.encode_prefix
    monkeypatch.setattr(model, "encode_prefix", lambda **k: turns.append(1) or encode(**k))
    found = []
    for rank in range(3):
        turns.clear()
        found += questions._answer_share(model, rank, 3, False)
        assert len(turns) == 1  # also the rank that has no video
    assert sorted(one.number for one in found) == list(range(5))


def test_a_video_that_cannot_be_read_counts_as_not_answered(workspace, tmp_path, caplog):
    lines = (workspace / "train.jsonl").read_text().splitlines()[:1]
    (tmp_path / "held_out.jsonl").write_text(lines[0])
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny")
    questions = HeldOut(tmp_path / "held_out.jsonl", processor, num_frames=4)
    assert questions.score(model) == dict.fromkeys((*METRICS, "answered"), 0)
    assert "1 questions count as not answered" in caplog.text and "a.mp4" in caplog.text


def test_questions_are_read_and_limited(workspace, held_out, tmp_path):
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    by_meta = HeldOut(workspace / "meta.json", processor, num_frames=4, limit=3)
    assert len(by_meta) == 3 and _by_video(by_meta.questions, 1) == [(0,), (2,), (1,)]
    (tmp_path / "talk.jsonl").write_text(held_out.read_text().splitlines()[5])
    with pytest.raises(DataError, match="none of its 1 items is a grounding question"):
        HeldOut(tmp_path / "talk.jsonl", processor, num_frames=4)
    (tmp_path / "broken.jsonl").write_text('{"video": "a.mp4"}')
    with pytest.raises(AnnotationError, match=r"broken\.jsonl:1: .*conversations"):
        HeldOut(tmp_path / "broken.jsonl", processor, num_frames=4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--eval_steps", 2), "--eval_steps needs --eval_path"),
        (("--eval_strategy", "steps"), "--eval_strategy needs --eval_path"),
        (("--load_best_model_at_end", True), "--load_best_model_at_end needs --eval_path"),
        (("--eval_path", "nowhere.jsonl"), "--eval_path nowhere.jsonl: no such file"),
        (("--eval_path", __file__, "--eval_limit", 0), "--eval_limit 0: give at least 1"),
        (
            ("--eval_path", __file__, "--eval_strategy", "epoch", "--num_train_epochs", 2),
            "give --eval_strategy steps",
        ),
        (
            ("--eval_path", __file__, "--metric_for_best_model", "loss"),
            "--metric_for_best_model loss: choose one of eval_miou",
        ),
        (("--report_to", "wandb"), "--report_to wandb: wandb is not installed"),
    ],
)
def test_wrong_flags_fail_at_the_start(workspace, tmp_path, caplog, monkeypatch, flags, message):
    monkeypatch.setattr("distime.train.arguments.find_spec", lambda name: None)
    train(workspace, tmp_path / "out", *flags, expect=2)
    assert message in caplog.text


def test_the_best_model_is_what_remains(workspace, held_out, tmp_path, monkeypatch):
    scores = iter([30.0, 50.0, 40.0])
    monkeypatch.setattr(HeldOut, "score", lambda *_, **__: {"miou": next(scores)})
    saving = ("--save_strategy", "steps", "--save_steps", 1, "--save_total_limit", 3)
    train(workspace, tmp_path / "out", "--max_steps", 3, "--per_device_train_batch_size", 2,
          "--eval_path", held_out, "--eval_strategy", "steps", "--eval_steps", 1, *saving,
          "--load_best_model_at_end", True)  # fmt: skip
    train(workspace, tmp_path / "two", "--max_steps", 3, "--per_device_train_batch_size", 2,
          *saving)  # fmt: skip
    best, last = parameters(tmp_path / "out"), parameters(tmp_path / "two")
    assert any(not torch.equal(best[name], last[name]) for name in best)
    state = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_metric"] == 50 and state["best_global_step"] == 2


def test_tensorboard_has_every_curve(workspace, held_out, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    train(workspace, tmp_path / "out", "--max_steps", 2, "--per_device_train_batch_size", 2,
          "--report_to", "tensorboard", "--eval_path", held_out, "--eval_limit", 2,
          "--disable_tqdm", False)  # fmt: skip
    curves = EventAccumulator(str(tmp_path / "curves")).Reload()
    names = (
        "loss", "text_loss", "distribution_loss", "iou_loss", "grad_norm", "learning_rate",
        "tokens_per_second", "samples_per_second", "padding_share", "data_wait_share", "memory_gib",
    )  # fmt: skip
    assert {f"train/{name}" for name in names} <= set(curves.Tags()["scalars"])
    assert {f"eval/{name}" for name in METRICS} <= set(curves.Tags()["scalars"])
    values = {name: [e.value for e in curves.Scalars(f"train/{name}")] for name in names}
    assert all(len(steps) == 2 for steps in values.values())
    parts = [values[name][0] for name in ("text_loss", "distribution_loss", "iou_loss")]
    assert values["loss"][0] == pytest.approx(sum(parts), rel=1e-4)
    assert 0.05 < values["memory_gib"][0] < 64
    assert 0 <= values["data_wait_share"][0] <= 1
    assert re.search(r"2/2", capfd.readouterr().err)  # the bar


def test_arguments_reach_the_questions(workspace, held_out, tmp_path):
    flags = ("--eval_limit", 2, "--eval_max_new_tokens", 7, "--per_device_eval_batch_size", 1)
    argv = [
        "--model_name_or_path", workspace / "tiny", "--meta_path", workspace / "meta.json",
        "--output_dir", tmp_path, "--use_cpu", True, "--eval_path", held_out, *flags,
        "--max_num_frame", 5, "--min_num_frame", 3,
    ]  # fmt: skip
    _, data, training = finetune.parse([str(word) for word in argv])
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    questions = finetune.read_held_out(processor, data, training)
    assert (len(questions), questions.num_frames, questions.max_new_tokens) == (2, 5, 7)
    assert len(questions.batches) == 2


@pytest.mark.slow
def test_two_processes_evaluate_as_one_and_stop_together(workspace, held_out, tmp_path):
    """Three turns for two processes; and the loss breaks down after two steps."""
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny")
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    model.generation_config.sequence_bias = [[[processor.token_ids.time_stamp], 100.0]]
    model.save_pretrained(tmp_path / "tiny")
    processor.save_pretrained(tmp_path / "tiny")
    questions = HeldOut(held_out, processor, num_frames=4, batch_size=2)
    assert len(questions.batches) == 3
    expected = questions.score(model)
    assert expected["miou"] > 0
    flags = (
        "--model_name_or_path", tmp_path / "tiny", "--eval_path", held_out,
        "--per_device_eval_batch_size", 2,
        "--eval_steps", 1, "--max_steps", 4, "--learning_rate", 1e30, "--max_grad_norm", 1e30,
        "--warmup_steps", 1,
    )  # fmt: skip
    environment = os.environ | {
        "GPUS": "2", "BATCH_SIZE": "2", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = ["sh", LAUNCH, *command_line(workspace, tmp_path / "out", *flags)]
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 1, run.stderr
    # Warm-up begins at a rate of 0: the first evaluation is of the start checkpoint.
    mious = [float(value) for value in re.findall(r"'eval_miou': '?([\d.]+)", run.stdout)]
    assert mious[0] == pytest.approx(expected["miou"], rel=1e-3)
    (message,) = re.findall(r"ERROR .*the loss is not finite.*", run.stderr)
    assert len(re.findall(r"train\.jsonl:\d", message)) == 2  # of both processes
