"""The expected reward: against its definition, its sampled estimate, and in training."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distime.data.collator import Collator
from distime.data.dataset import SampleGroup
from distime.model.time_modules import draw_times, time_log_prob
from distime.processing.prompt import Encoded
from distime.train.arguments import TrainArguments
from distime.train.chosen_rewards import Scene, read_rewards
from distime.train.objectives.expected_reward import (
    ExpectedReward,
    expected_value,
    reward_grid,
    tiou_grid,
)
from distime.train.objectives.supervised import Supervised
from tiny_models import FRAME, IM_END, IMAGE, TIME, make_tiny_model
from tiny_runs import train

BINS = 9
time = st.integers(0, 64).map(lambda value: value / 64)


@given(time, time, st.floats(0.5, 500))
def test_the_fast_grid_is_the_reward_of_every_pair(one, other, duration):
    target = sorted((one, other))
    seconds = [edge * duration for edge in target]
    (tiou,) = read_rewards(["tiou"])
    found = tiou_grid(torch.tensor([target]), BINS)[0]
    torch.testing.assert_close(found, reward_grid(tiou, seconds, duration, BINS), atol=1e-5, rtol=0)


def test_a_pair_in_the_wrong_order_earns_what_the_reward_says():
    (tiou, distance) = read_rewards(["tiou", "boundary_distance"])
    for reward, worst in ((tiou, 0.0), (distance, -1.0)):
        grid = reward_grid(reward, (2.0, 6.0), 8.0, BINS)
        assert (grid.tril() == torch.full_like(grid, worst).tril()).all()
        assert grid.max() == grid[2, 6] > worst


def test_a_reward_in_seconds_sees_the_duration():
    (reward,) = read_rewards(["iou_v2"])
    grid = reward_grid(reward, (2.0, 6.0), 16.0, BINS)
    assert grid[1, 4] == pytest.approx(4 / 6 * 1 * (1 - 2 / 16))


def test_the_gradient_is_that_of_sampled_answers():
    """Score-function estimate of the policy gradient, within three standard errors."""
    torch.manual_seed(0)
    logits = torch.randn(1, 2, BINS, dtype=torch.float64, requires_grad=True)
    (reward,) = read_rewards(["tiou"])
    target, duration, draws = (0.2, 0.7), 10.0, 20_000
    grid = tiou_grid(torch.tensor([target]), BINS)
    (exact,) = torch.autograd.grad(expected_value(logits, grid).sum(), logits)
    repeated = logits.detach().repeat(draws, 1, 1).requires_grad_()
    drawn = draw_times(repeated.detach(), torch.Generator().manual_seed(0))
    truth = [tuple(edge * duration for edge in target)]
    pairs = [tuple(pair) for pair in (drawn.double() * duration).tolist()]
    earned = {pair: reward.value(Scene([pair], truth, duration), "here") for pair in set(pairs)}
    rewards = torch.tensor([earned[pair] for pair in pairs])
    (scores,) = torch.autograd.grad(time_log_prob(repeated, drawn).sum(), repeated)
    estimates = rewards.double()[:, None, None] * scores
    error = estimates.std(0) / draws**0.5
    assert ((estimates.mean(0) - exact[0]).abs() < 3 * error).all()


# ---------------------------------------------------------------------- batches

PREFIX = [FRAME, IMAGE, FRAME, IMAGE]
ANSWERS = [[10, TIME, IM_END], [11, TIME, 12, TIME, IM_END], [13, IM_END]]
TARGETS = [[(0.1, 0.6)], [(0.0, 0.25), (0.5, 1.0)], []]


def item(prompt, answer):
    return Encoded([*prompt, *answer], [-100] * len(prompt) + answer, answer.count(TIME))


def group(numbers, shared):
    prompts = [([20 + n], ANSWERS[n]) for n in numbers]
    items = [item(prompt if shared else [*PREFIX, *prompt], answer) for prompt, answer in prompts]
    return SampleGroup(
        PREFIX if shared else [],
        items,
        [torch.tensor(TARGETS[n]).view(-1, 2) for n in numbers],
        torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8),
        torch.tensor([0.0, 0.5]),
        [f"file:{n}" for n in numbers],
        duration=20.0,
    )


LAYOUTS = {
    "alone": [[[group([n], False)]] for n in range(3)],
    "padded": [[[group([n], False)] for n in range(3)]],
    "packed": [[[group([n], False) for n in range(3)]]],
    "shared": [[[group([0, 1, 2], True)]]],
}


def objective(tmp_path, model, *rewards):
    training = TrainArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    training.rewards = list(rewards) or None
    training.reward_weight = 5.0
    made = ExpectedReward(training)
    made.attach(model, None)
    return made


@pytest.mark.parametrize("rewards", [(), ("boundary_distance:0.5", "tiou")])
def test_layouts_have_one_loss_and_gradient(tmp_path, rewards):
    model = make_tiny_model().train()
    made = objective(tmp_path, model, *rewards)
    found = {}
    for layout, rows in LAYOUTS.items():
        model.zero_grad()
        batches = made.prepare([Collator(0)(one) for one in rows], 0, None)
        for batch in batches:
            loss, outputs = made.compute(model, batch, 3.0)
            loss.backward()
            found[layout] = found.get(layout, 0) + torch.stack([loss, outputs.expected_reward])
        gradient = model.time_decoder.layers[-1].weight.grad.clone()
        found[layout] = torch.cat([found[layout].detach(), gradient.flatten()])
    for layout in LAYOUTS:
        torch.testing.assert_close(found[layout], found["alone"], rtol=1e-4, atol=1e-5, msg=layout)


def test_it_is_the_supervised_loss_less_the_weighted_mean_of_the_samples(tmp_path):
    model = make_tiny_model().train()
    made = objective(tmp_path, model)
    (batch,) = made.prepare([Collator(0)(LAYOUTS["padded"][0])], 0, None)
    loss, outputs = made.compute(model, batch, None)
    of_events = expected_value(outputs.time_logits, tiou_grid(torch.tensor(sum(TARGETS, [])), 9))
    by_hand = (of_events[0] + of_events[1:].mean() + 0) / 3
    assert outputs.expected_reward.item() == pytest.approx(by_hand.item(), rel=1e-5)
    supervised = Supervised.run(model, batch, None).loss
    assert loss.item() == pytest.approx((supervised - 5 * by_hand).item(), rel=1e-5)


# ---------------------------------------------------------------------- the entry point


def test_it_raises_the_expected_reward(workspace, tmp_path):
    flags = ("--objective", "expected_reward", "--reward_weight", 5, "--max_steps", 8,
             "--per_device_train_batch_size", 8)  # fmt: skip
    train(workspace, tmp_path / "out", *flags, "--save_strategy", "steps", "--save_steps", 8)
    state = json.loads((tmp_path / "out/checkpoint-8/trainer_state.json").read_text())
    rewards = [line["expected_reward"] for line in state["log_history"] if "loss" in line]
    assert rewards[-1] > rewards[0] + 0.02
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["losses"]["expected_reward"] == pytest.approx(rewards[-1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--objective reinforce", "--objective reinforce: choose expected_reward or grpo or"),
        ("--objective expected_reward --rewards tioux", "did you mean tiou"),
        ("--objective expected_reward --rewards tiou:much", "'much' is no weight"),
        ("--objective expected_reward --rewards tiou tiou:2", "names tiou twice"),
        ("--objective expected_reward --rewards format", "looks at words"),
        ("--objective expected_reward --num_generations 4", "give --objective grpo"),
        ("--reward_weight 2", "give --objective expected_reward"),
        ("--rewards tiou", "give --objective expected_reward or grpo"),
    ],
)
def test_wrong_flags_are_refused_at_the_start(workspace, tmp_path, caplog, flags, message):
    train(workspace, tmp_path / "out", *flags.split(), expect=2)
    assert message in caplog.text
    assert not (tmp_path / "out").exists()


def test_a_reward_that_is_no_number_names_itself_and_the_interval(workspace, tmp_path, caplog):
    (tmp_path / "mine.py").write_text("def bad(predicted, truth): return float('nan')\n")
    flags = ("--objective", "expected_reward", "--rewards", f"{tmp_path / 'mine.py'}:bad:2")
    train(workspace, tmp_path / "out", *flags, expect=1)
    assert "train.jsonl:" in caplog.text
    assert "mine.py:bad returned nan for (" in caplog.text
    assert "one finite number" in caplog.text
