"""GRPO: what is drawn has the probability that is learned, and runs repeat themselves."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.dataset import DataSettings, TrainingData
from distime.engine import batch as engine_batch
from distime.engine.decoding import logits_of
from distime.train.arguments import TrainArguments
from distime.train.objectives.grpo import GRPO, keep_rows
from distime.train.policy import clipped_loss, group_advantages, k3
from distime.train.rollouts import split
from tiny_runs import command_line, parameters, train

FLAGS = ("--objective", "grpo", "--num_generations", 4, "--max_completion_length", 6,
         "--share_video_prefix", True, "--max_items_per_group", 2,
         "--per_device_train_batch_size", 2)  # fmt: skip


@pytest.fixture(scope="module")
def length(workspace):
    """A reward in which answers of a random model differ."""
    (workspace / "mine.py").write_text("def length(text): return float(len(text.split()))\n")
    return f"{workspace / 'mine.py'}:length"


@pytest.fixture(scope="module")
def flags(length):
    return (*FLAGS, "--rewards", "tiou", "format:0.1", f"{length}:0.5")


# ---------------------------------------------------------------------- by hand


def test_advantages_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.5])
    assert group_advantages(rewards).tolist() == [0.5, -0.5, 0.0, 0.0]
    std = math.sqrt((0.25 + 0.25) / 3)  # n - 1
    scaled = group_advantages(rewards, scale=True).tolist()
    assert scaled == pytest.approx([0.5 / (std + 1e-4), -0.5 / (std + 1e-4), 0, 0])


def test_the_clip_holds_what_has_moved_too_far_its_way():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    losses, held = clipped_loss(ratios.log(), torch.zeros(5), advantages, 0.2)
    assert losses.tolist() == pytest.approx([-2.4, 3.0, -1.0, 1.6, -2.2])
    assert held.tolist() == [True, False, False, True, False]


def test_k3_by_hand_and_its_mean_is_the_divergence():
    assert k3(torch.tensor(-1.0), torch.tensor(-1.0)) == 0
    assert k3(torch.tensor(-1.0), torch.tensor(-2.0)).item() == pytest.approx(math.exp(-1) + 1 - 1)
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    mean = (p * k3(p.log(), q.log())).sum()
    assert mean.item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)


# ---------------------------------------------------------------------- one step


def objective(workspace, model, processor, **flags):
    training = TrainArguments(output_dir="out", use_cpu=True, report_to="none")
    for name, value in {"num_generations": 4, "max_completion_length": 8, **flags}.items():
        setattr(training, name, value)
    made = GRPO(training)
    made.attach(model, processor)
    return made


@pytest.fixture
def start(workspace):
    """Model, processor and the rows of its data: four items behind each of two videos."""
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny").train()
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    settings = DataSettings(
        min_num_frame=4, max_num_frame=4, sampling_method="middle", share_video_prefix=True
    )
    data = TrainingData(workspace / "meta.json", processor, settings)
    return model, processor, [[data[index, 0]] for index in range(len(data))]


def no_autocast():
    return torch.autocast("cpu", enabled=False)


def test_the_learner_s_probability_is_that_of_the_draw(workspace, length, start):
    """Ratio 1 on the first pass: token by token, against the engine's own distributions."""
    model, processor, rows = start
    made = objective(workspace, model, processor, temperature=0.7, rewards=[length])
    drawn = {}  # of each row: sum of log-probabilities
    choose = engine_batch.Batch.choose

    def watched(self):
        logits = logits_of(self.model.lm_head, self.hidden).float() / 0.7
        logits[:, made.never] = -torch.inf
        times = (self.model.time_decoder(self.hidden) / 0.7).log_softmax(-1)
        rows = list(self.rows)
        ended = choose(self)
        for i, row in enumerate(rows):
            token = row.ids[-1]
            value = logits[i].log_softmax(-1)[token]
            if token == made.time_token_id:
                start, end = (row.intervals[-1] * model.config.reg_max).round().long().tolist()
                value = value + times[i, 0, start] + times[i, 1, end]
            drawn.setdefault(row, []).append(value.item())
        return ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_batch.Batch, "choose", watched)
        (batch,) = made.prepare([keep_rows(rows)], 0, no_autocast)
    assert model.training
    answers = {(tuple(row.ids), tuple(values)) for row, values in drawn.items()}
    made.compute(model, batch, None)
    learned = batch["objective"].old
    labels = batch["labels"][batch["labels"] != -100]
    assert len(drawn) == 8 * 4 and (labels == made.time_token_id).any()
    # Every answer that is learned was drawn, with these probabilities.
    sample_ids = batch["sample_ids"][batch["labels"] != -100]
    for sample in range(int(sample_ids.max()) + 1):
        ids = tuple(labels[sample_ids == sample].tolist())
        values = learned[sample_ids == sample].tolist()
        same = [v for i, v in answers if i == ids]
        assert any(values == pytest.approx(v, abs=1e-4) for v in same)


def test_first_gradient_is_the_advantage_times_the_score(workspace, length, start):
    model, processor, rows = start
    made = objective(workspace, model, processor, rewards=[length])
    (batch,) = made.prepare([keep_rows(rows)], 0, no_autocast)
    judged = batch["objective"]
    assert batch["num_samples"] == len(judged.advantages) > 0
    assert judged.advantages.view(-1, 4).sum(-1).abs().max() < 1e-6
    loss, outputs = made.compute(model, batch, None)
    loss.backward()
    found = model.lm_head.weight.grad.clone()
    model.zero_grad()
    owner = batch["sample_ids"][batch["labels"] != -100]
    log_probs = made._log_probs(made.run(model, batch, 1.0), batch)
    total = sum(
        -advantage * log_probs[owner == sample].mean()
        for sample, advantage in enumerate(judged.advantages.float())
    )
    (total / len(judged.advantages)).backward()
    torch.testing.assert_close(found, model.lm_head.weight.grad, rtol=1e-4, atol=1e-7)


def test_groups_that_earn_the_same_are_left_out_and_counted(workspace, tmp_path, start):
    (tmp_path / "same.py").write_text("def one(text): return 1\n")
    model, processor, rows = start
    made = objective(workspace, model, processor, rewards=[f"{tmp_path / 'same.py'}:one"])
    (batch,) = made.prepare([keep_rows(rows)], 0, no_autocast)
    assert batch["num_samples"] == 0 and made.sums["equal_groups"] == [8.0, 8.0]
    loss, _ = made.compute(model, batch, torch.tensor(0.0))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(one is not None and one.abs().max() == 0 for one in gradients)


def test_draws_depend_on_the_question_not_on_what_is_beside_it(workspace, length, start):
    model, processor, rows = start
    made = objective(workspace, model, processor, rewards=[length])
    together = made.prepare([keep_rows(rows)], 3, no_autocast)[0]
    apart = [made.prepare([keep_rows([row])], 3, no_autocast)[0] for row in rows]
    assert together["num_samples"] == sum(batch["num_samples"] for batch in apart)
    learned = [batch["labels"][batch["labels"] != -100] for batch in apart if batch["num_samples"]]
    assert together["labels"][together["labels"] != -100].tolist() == torch.cat(learned).tolist()
    other = made.prepare([keep_rows(rows)], 4, no_autocast)[0]
    assert other["input_ids"].tolist() != together["input_ids"].tolist()


def test_a_time_in_the_question_is_told_to_the_sampler(workspace, start, tmp_path):
    turns = [
        {"from": "human", "value": "<video>\nwhat is seen at <TIME_STAMP>?"},
        {"from": "gpt", "value": "red at <TIME_STAMP>."},
        {"from": "human", "value": "when does the square appear?"},
        {"from": "gpt", "value": "at <TIME_STAMP> at <TIME_STAMP>."},
    ]
    item = {"video": "a.mp4", "tgt": [1, 1, 0, 2, 1, 2, 2, 4], "conversations": turns}
    (tmp_path / "one.jsonl").write_text(json.dumps(item) + "\n")
    meta = {"one": {"root": str(workspace), "annotation": "one.jsonl"}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    model, processor, _ = start
    settings = DataSettings(min_num_frame=4, max_num_frame=4, sampling_method="middle")
    group = TrainingData(tmp_path / "meta.json", processor, settings)[0, 0]
    prefix, (asked,) = split(processor, group)
    assert asked.given.tolist() == [[0.25, 0.25], [0.0, 0.5]]
    assert asked.truth == [(1.0, 2.0), (2.0, 4.0)]
    assert asked.true_text == "at <TIME_STAMP> at <TIME_STAMP> ."
    assert processor.token_ids.time_stamp not in prefix
    assert [*prefix, *asked.suffix] == group.items[0].input_ids[: len(prefix) + len(asked.suffix)]
    seen = []
    model.time_encoder.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    made = objective(workspace, model, processor)
    made.prepare([keep_rows([[group]])], 0, no_autocast)
    # The video's frames once, then the times of the question, for each of the answers.
    assert len(seen[0]) == 4
    assert torch.cat(seen[1:])[:8].tolist() == asked.given.tolist() * 4


# ---------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def whole(workspace, flags, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    train(workspace, out, *flags, "--max_steps", 4, "--save_strategy", "steps", "--save_steps", 2)
    return out


def test_the_log_says_what_was_earned(whole):
    state = json.loads((whole / "checkpoint-4/trainer_state.json").read_text())
    lines = [line for line in state["log_history"] if "loss" in line]
    assert len(lines) == 4
    for line in lines:
        named = ("reward_std", "unfinished", "equal_groups", "policy_loss", "kl")
        assert all(math.isfinite(line[name]) for name in named)
        mine = line["reward_mine.py:length"]
        assert line["reward"] == pytest.approx(
            line["reward_tiou"] + 0.1 * line["reward_format"] + 0.5 * mine
        )
        assert 1 <= line["answer_tokens"] <= 6


def test_killed_and_resumed_is_as_uninterrupted(workspace, whole, flags, tmp_path):
    shutil.copytree(whole / "checkpoint-2", tmp_path / "out/checkpoint-2")
    train(workspace, tmp_path / "out", *flags, "--max_steps", 4, "--save_strategy", "steps",
          "--save_steps", 2, "--resume", "auto")  # fmt: skip
    expected = parameters(whole)
    for name, parameter in parameters(tmp_path / "out").items():
        assert torch.equal(parameter, expected[name]), name


@pytest.mark.slow
def test_two_processes_train_as_one(workspace, whole, flags, tmp_path):
    flags = (*flags, "--max_steps", 4, "--per_device_train_batch_size", 1)
    argv = command_line(workspace, tmp_path / "out", *flags)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
               "2", "-m", "distime.train.finetune", *argv]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = parameters(whole)
    for name, parameter in parameters(tmp_path / "out").items():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=3e-5, msg=name)


def test_several_steps_on_the_same_answers_and_kl_to_the_start(workspace, flags, tmp_path):
    lora = ("--use_llm_lora", 4, "--freeze_llm", True, "--freeze_backbone", True, "--freeze_mlp",
            True, "--train_embeddings", "new_rows")  # fmt: skip
    train(workspace, tmp_path / "out", *flags, *lora, "--max_steps", 4, "--kl_weight", 0.1,
          "--num_iterations", 2, "--learning_rate", 1e-2, "--lr_scheduler_type", "constant",
          "--lora_dropout", 0, "--save_strategy", "steps", "--save_steps", 4,
          "--eval_path", workspace / "train.jsonl", "--export", "adapter")  # fmt: skip
    state = json.loads((tmp_path / "out/checkpoint-4/trainer_state.json").read_text())
    lines = [line for line in state["log_history"] if "loss" in line]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert all(line["kl"] > 1e-6 for line in lines[1:])
    assert ["reward" in line for line in lines] == [True, False, True, False]
    assert lines[-1]["epoch"] == pytest.approx(2 * 4 / 8)
    record = json.loads((tmp_path / "out/adapter/run.json").read_text())
    assert "eval_miou" in record["evaluation"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--kl_weight 0.1", "--use_llm_lora RANK"),
        ("--freeze_time_head True", "--freeze_time_head True leaves the former as it is"),
        ("--iou_loss_weight 2", "--iou_loss_weight does nothing with --objective grpo"),
        ("--reward_weight 2", "give --objective expected_reward"),
        ("--num_generations 1", "--num_generations 1: give at least 2"),
        ("--clip_epsilon 1", "--clip_epsilon 1: give more than 0 and below 1"),
        ("--attn_implementation flex_attention", "choose sdpa"),
        ("--rewards twas", "did you mean twass"),
        ("--rewards nowhere.py:one", "no such file"),
        ("--num_iterations 3 --save_strategy steps --save_steps 4", "a multiple of 3"),
    ],
)
def test_wrong_flags_are_refused_at_the_start(workspace, tmp_path, caplog, flags, message):
    words = ("--objective", "grpo", *flags.split())
    train(workspace, tmp_path / "out", *words, expect=2)
    assert message in caplog.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("float('nan')", "returned nan for"),
        ("[1.0, 2.0]", "returned 2 values, [1.0, 2.0] for"),
        ("'good'", "returned 'good' for"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_reward_that_is_no_number_names_itself_and_the_sample(
    workspace, tmp_path, caplog, body, message
):
    (tmp_path / "mine.py").write_text(f"def bad(text): return {body}\n")
    words = ("--rewards", f"{tmp_path / 'mine.py'}:bad:0.5")
    train(workspace, tmp_path / "out", *FLAGS, *words, expect=1)
    assert message in caplog.text
    assert "mine.py:bad" in caplog.text and "train.jsonl:" in caplog.text
