"""What may change when a run goes on, what is applied and what is refused: after the table."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from distime.train import finetune
from distime.train.arguments import DataArguments, ModelArguments, TrainArguments
from distime.train.checkpoints import RECORD, complete_checkpoints
from distime.train.distributed import ResumeError
from distime.train.flags import ArgumentError, known_flags
from distime.train.resume import (
    ON_RESUME,
    Change,
    OnResume,
    Schedule,
    changed_flags,
    changes,
    check_rates,
    judge,
    recorded_flags,
)
from distime.train.trainer import DisTimeTrainer
from tiny_runs import parameters, train

RUN = ("--per_device_train_batch_size", 2, "--num_train_epochs", 2)  # 8 steps of 2 samples
SAVING = ("--save_strategy", "steps", "--save_steps", 2, "--resume", "auto")
LORA = ("--use_llm_lora", 2, "--freeze_llm", True, "--train_embeddings", "none")


def log_of(folder, step):
    """Lines of the log of a run until a checkpoint, by step."""
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return {line["step"]: line for line in state["log_history"] if "loss" in line}


def rates(folder, step):
    return {number: line["learning_rate"] for number, line in log_of(folder, step).items()}


@pytest.fixture(scope="module")
def whole(workspace, tmp_path_factory):
    """A run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    train(workspace, folder, *RUN, *SAVING)
    return folder


@pytest.fixture
def stopped(whole, tmp_path):
    """The folder of the same run, as a kill after step 6 leaves it."""
    for step in (4, 6):
        shutil.copytree(whole / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    return tmp_path


# ------------------------------------------------------------------------------- the table


def test_every_flag_is_in_the_table_once():
    assert ON_RESUME.keys() == known_flags()
    everywhere = {one.name for group in (ModelArguments, DataArguments, TrainArguments)
                  for one in fields(group)}  # fmt: skip
    assert known_flags() <= everywhere


@pytest.mark.parametrize("name", sorted(ON_RESUME))
def test_a_changed_flag_is_refused_by_name_or_logged_with_both_values(name, tmp_path, caplog):
    caplog.set_level("INFO")
    found = changes({name: "old value"}, {name: "new value"})
    assert found == [Change(name, "old value", "new value")]
    if ON_RESUME[name] is OnResume.REFUSED:
        with pytest.raises(ResumeError, match=f"--{name} was old value, is new value.*Put it back"):
            judge(tmp_path, found)
    else:
        judge(tmp_path, found)
        assert f"--{name} was old value, is new value; it {ON_RESUME[name].value}" in caplog.text


def test_an_unchanged_flag_is_not_mentioned(tmp_path, caplog):
    caplog.set_level("INFO")
    flags = dict.fromkeys(ON_RESUME, 1)
    judge(tmp_path, changes(flags, flags))
    assert not caplog.text


# --------------------------------------------------------------------------------- applied


APPLIED = {
    "learning_rate": 4e-4, "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9,
    "adam_epsilon": 1e-6, "max_grad_norm": 0.01,
}  # fmt: skip


def test_settings_of_the_optimizer_are_applied(workspace, stopped, whole, caplog, monkeypatch):
    seen = []
    log = DisTimeTrainer.log

    def look(self, logs, *args, **kwargs):
        seen.extend(dict(group, params=0) for group in self.optimizer.param_groups)
        log(self, logs, *args, **kwargs)

    monkeypatch.setattr(DisTimeTrainer, "log", look)
    words = [word for name, value in APPLIED.items() for word in (f"--{name}", value)]
    train(workspace, stopped, *RUN, *SAVING, *words, "--save_steps", 1)
    for group in seen:
        assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-6)
    assert {group["weight_decay"] for group in seen} == {0.0, 0.1}
    assert rates(stopped, 8)[7] == pytest.approx(rates(whole, 8)[7] * 0.4)
    for name, value in APPLIED.items():
        assert f"is {value}; it takes effect from the next step on" in caplog.text, name
    assert (
        "the learning rate goes on at 0.0001; without a change it would be 0.00025" in caplog.text
    )
    assert list(complete_checkpoints(stopped)) == [4, 6, 7, 8]  # --save_steps, too


def test_one_setting_alone_changes_what_it_should(workspace, stopped, whole):
    """Each could hide behind the others."""
    for name in ("adam_beta1", "max_grad_norm"):
        for step in (7, 8):
            shutil.rmtree(stopped / f"checkpoint-{step}", ignore_errors=True)
        train(workspace, stopped, *RUN, *SAVING, f"--{name}", APPLIED[name])
        assert log_of(stopped, 8)[7]["loss"] == log_of(whole, 8)[7]["loss"]
        assert log_of(stopped, 8)[8]["loss"] != log_of(whole, 8)[8]["loss"], name


def test_more_epochs_stretch_what_is_left_of_the_schedule(workspace, stopped, whole):
    longer = (*RUN, *SAVING, "--num_train_epochs", 3, "--save_steps", 1)
    train(workspace, stopped, *longer)  # 12 steps instead of 8
    found = rates(stopped, 12)
    assert {step: found[step] for step in range(1, 7)} == {
        step: rate for step, rate in rates(whole, 8).items() if step < 7
    }
    assert found[7] == rates(whole, 8)[7]  # it does not jump
    steps = [found[step] - found[step + 1] for step in range(7, 12)]
    assert steps == pytest.approx([found[7] / 6] * 5)  # and comes to 0 at the new end
    losses = {step: line["loss"] for step, line in log_of(stopped, 12).items()}
    for step in (9, 10, 11, 12):
        shutil.rmtree(stopped / f"checkpoint-{step}")
    before = parameters(stopped)
    train(workspace, stopped, *longer)  # and again, from a checkpoint of the longer run
    assert {step: line["loss"] for step, line in log_of(stopped, 12).items()} == losses
    for name, parameter in parameters(stopped).items():
        assert torch.equal(parameter, before[name]), name


@given(
    st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), max_size=4),
    st.sampled_from([lambda place: 1 - place, lambda place: (1 - place) ** 2]),
)  # fmt: skip
def test_a_stretched_schedule_never_jumps_and_ends_where_it_should(steps, resumed, shape):
    schedule, step = Schedule(steps, steps), 0
    for share, more in resumed:
        step += int(share * (schedule.end - step))
        end = max(step + more, 1)
        longer = schedule.to(end, step)
        assert longer.place_of(step) == pytest.approx(schedule.place_of(step))
        schedule = longer
    if schedule.end > step:
        assert schedule.place_of(schedule.end) == pytest.approx(steps)
        places = [schedule.place_of(one) for one in range(step, schedule.end + 1)]
        assert places == sorted(places)
        assert shape(min(places[0] / steps, 1)) >= shape(min(places[-1] / steps, 1))


def test_an_unstretched_schedule_is_the_library_s_own_function():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = LambdaLR(optimizer, rate := lambda step: 1 / (1 + step))
    Schedule(10, 10).apply(scheduler)
    assert scheduler.lr_lambdas == [rate]


def test_another_kind_of_schedule_is_applied(workspace, stopped, caplog):
    train(workspace, stopped, *RUN, *SAVING, "--lr_scheduler_type", "constant")
    assert rates(stopped, 8)[7] == rates(stopped, 8)[8] == 1e-3
    assert "--lr_scheduler_type was linear, is constant" in caplog.text


# --------------------------------------------------------------------------------- refused


def test_a_schedule_that_has_ended_is_not_gone_on_with(workspace, whole, tmp_path, caplog):
    shutil.copytree(whole / "checkpoint-8", tmp_path / "checkpoint-8")
    train(workspace, tmp_path, *RUN, *SAVING, "--num_train_epochs", 3, expect=2)
    assert "the learning rate has come to 0 at step 8" in caplog.text
    assert "--model_name_or_path" in caplog.text


def test_a_finished_run_only_writes_its_result(workspace, whole, tmp_path):
    shutil.copytree(whole / "checkpoint-8", tmp_path / "checkpoint-8")
    train(workspace, tmp_path, *RUN, *SAVING)
    wanted = parameters(whole)
    for name, parameter in parameters(tmp_path).items():
        assert torch.equal(parameter, wanted[name]), name


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"]
)
def test_a_missing_file_is_named_with_the_checkpoint_before_it(workspace, stopped, caplog, name):
    (stopped / "checkpoint-6" / name).unlink()
    train(workspace, stopped, *RUN, *SAVING, expect=2)
    assert name in caplog.text and "delete the folder to go on from checkpoint-4" in caplog.text
    assert list(complete_checkpoints(stopped)) == [4, 6]


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
@pytest.mark.parametrize(
    "name",
    ["optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth", RECORD,
     "model.safetensors"],
)  # fmt: skip
def test_a_truncated_file_is_named(workspace, stopped, caplog, name, share):
    path = stopped / "checkpoint-6" / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    train(workspace, stopped, *RUN, *SAVING, expect=2)
    assert name in caplog.text


def test_a_checkpoint_of_the_model_alone_is_not_gone_on_from(workspace, tmp_path, caplog):
    saving = (*RUN, *SAVING[:-2], "--max_steps", 2, "--save_only_model", True)
    train(workspace, tmp_path, *saving)
    train(workspace, tmp_path, *RUN, *SAVING, "--max_steps", 4, expect=2)
    assert "optimizer.pt is missing (--save_only_model" in caplog.text


@pytest.mark.parametrize("change", ["order", "a word"])
def test_changed_annotations_of_the_same_length_are_noticed(
    workspace, stopped, tmp_path_factory, caplog, change
):
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(workspace, folder, dirs_exist_ok=True)
    lines = (folder / "train.jsonl").read_text().splitlines()
    lines = lines[::-1] if change == "order" else [*lines[:-1], lines[-1].replace("red", "rad")]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    train(folder, stopped, *RUN, *SAVING, expect=2)
    assert "the annotation digest of source tiny was" in caplog.text


def test_frozen_weights_of_another_start_are_noticed(workspace, tmp_path, caplog):
    from distime.toy.tiny import write_tiny_checkpoint

    train(workspace, tmp_path, *RUN, *SAVING, *LORA, "--max_steps", 2)
    words = ["when does the red square appear ? at . yes no what is seen"]
    shape = {"hidden_size": 32, "num_layers": 2, "num_frames": 4}
    write_tiny_checkpoint(workspace / "other", words, **shape, seed=7)
    other = ("--model_name_or_path", workspace / "other", "--lr_scheduler_type", "constant")
    train(workspace, tmp_path, *RUN, *SAVING, *LORA, "--max_steps", 4, *other, expect=2)
    assert "the frozen weights of --model_name_or_path" in caplog.text


# ------------------------------------------------------------------------------ no-op runs


def test_a_run_of_warm_up_alone_is_refused_with_the_batch_first(workspace, tmp_path, caplog):
    batch = ("--per_device_train_batch_size", 12, "--lr_scheduler_type", "cosine",
             "--warmup_steps", 0.03)  # fmt: skip
    train(workspace, tmp_path, *batch, expect=2)
    assert "8 rows, but one step takes 12: lower BATCH_SIZE" in caplog.text
    caplog.clear()
    train(workspace, tmp_path, *batch, "--num_train_epochs", 1.5, expect=2)
    assert "nothing would be learned" in caplog.text
    assert caplog.text.index("Lower BATCH_SIZE") < caplog.text.index("raise --num_train_epochs")
    assert not (tmp_path / "config.json").exists()


@given(
    steps=st.integers(1, 12), warmup=st.floats(0, 15), first=st.integers(0, 12),
    name=st.sampled_from(["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"]),
)  # fmt: skip
def test_refused_are_exactly_the_runs_whose_every_rate_is_zero(
    tmp_path_factory, steps, warmup, first, name
):
    from transformers import get_scheduler

    training = TrainArguments(
        output_dir=str(tmp_path_factory.getbasetemp()), use_cpu=True, lr_scheduler_type=name,
        warmup_steps=warmup,
    )  # fmt: skip
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=training.learning_rate)
    scheduler = get_scheduler(name, optimizer, training.get_warmup_steps(steps), steps)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    schedule = Schedule(steps, steps)
    if any(found[first:]) or first >= steps:
        check_rates(training, schedule, first, steps)
    else:
        with pytest.raises(ArgumentError, match="learn"):
            check_rates(training, schedule, first, steps)


def test_a_run_that_changed_no_weight_writes_nothing(workspace, tmp_path, caplog):
    """Text alone has nothing to teach the time modules."""
    turns = [{"from": "human", "value": "what is seen?"}, {"from": "gpt", "value": "no."}]
    (tmp_path / "text.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    meta = tmp_path / "text.json"
    meta.write_text(json.dumps({"text": {"root": ".", "annotation": "text.jsonl"}}))
    frozen = [w for part in ("llm", "backbone", "mlp") for w in (f"--freeze_{part}", True)]
    train(
        workspace, tmp_path / "out", "--meta_path", meta, "--per_device_train_batch_size", 1,
        *frozen, "--train_embeddings", "none", expect=1,
    )  # fmt: skip
    assert "have changed no weight" in caplog.text
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_schedule_without_steps_behind_its_warm_up_is_refused(workspace, tmp_path, caplog):
    """Transformers would divide by zero behind the last step."""
    words = ("--lr_scheduler_type", "polynomial", "--warmup_steps", 8)
    train(workspace, tmp_path, *RUN, *words, expect=2)
    assert "--lr_scheduler_type polynomial" in caplog.text and "--warmup_steps" in caplog.text


# ---------------------------------------------------------------- what is kept, log, result


def test_the_newest_checkpoint_stays_beside_the_best(workspace, tmp_path, monkeypatch):
    from distime.train.evaluation import HeldOut

    scores = iter([3.0, 2.0, 1.0, 0.0])
    names = ("r1_0.3", "r1_0.5", "r1_0.7", "answered")
    monkeypatch.setattr(
        HeldOut, "score", lambda self, *_, **__: {"miou": next(scores)} | dict.fromkeys(names, 0.0)
    )
    train(
        workspace, tmp_path, *RUN, *SAVING, "--save_total_limit", 1, "--eval_path",
        workspace / "train.jsonl", "--eval_strategy", "steps", "--eval_steps", 2,
        "--load_best_model_at_end", True,
    )  # fmt: skip
    assert list(complete_checkpoints(tmp_path)) == [2, 8]


def test_the_log_counts_true_epochs_and_saves_once_an_epoch(workspace, tmp_path):
    train(workspace, tmp_path, *RUN, "--num_train_epochs", 3, "--save_strategy", "epoch")
    assert list(complete_checkpoints(tmp_path)) == [4, 8, 12]
    epochs = {step: line["epoch"] for step, line in log_of(tmp_path, 12).items()}
    assert epochs == {step: step / 4 for step in range(1, 13)}


def test_the_result_says_how_it_came_about(workspace, whole):
    run = json.loads((whole / "run.json").read_text())
    assert run["flags"]["learning_rate"] == 1e-3 and run["flags"]["num_train_epochs"] == 2
    assert "adam_beta1" not in run["flags"]  # at its default
    assert run["data"]["tiny"]["number of items"] == 8
    assert len(run["data"]["tiny"]["annotation digest"]) == 64
    assert (run["steps"], run["epochs"], run["samples"]["samples"]) == (8, 2, 16)
    assert run["losses"]["loss"] == log_of(whole, 8)[8]["loss"]
    assert run["seconds"] > 0 and run["versions"]["torch"] == torch.__version__
    card = (whole / "README.md").read_text()
    assert "| flags.learning_rate | 0.001 |" in card and "| losses.loss |" in card


def test_flags_at_their_defaults_are_left_out(workspace, tmp_path):
    from distime.train.arguments import parse
    from tiny_runs import command_line

    flags = recorded_flags(*parse(command_line(workspace, tmp_path, "--weight_decay", 0.05)))
    assert flags.keys() == known_flags()
    changed = changed_flags(flags)
    assert changed["weight_decay"] == 0.05 and "seed" not in changed and "packing" not in changed
    assert json.loads(json.dumps(flags)) == flags


@pytest.mark.parametrize("flags", [(), LORA])
def test_bf16_writes_a_result_of_half_the_size(workspace, tmp_path, flags, caplog):
    from distime import DisTimeForConditionalGeneration
    from distime.cli import main

    settings = (*RUN, *flags, "--max_steps", 2, "--bf16", True, "--export", "both")
    train(workspace, tmp_path / "half", *settings)
    train(workspace, tmp_path / "full", *settings, "--export_dtype", "float32")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    model = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert "in bfloat16" in caplog.text
    adapter = tmp_path / "half" / "adapter"
    assert main(["merge", str(workspace / "tiny"), str(adapter), str(tmp_path / "merged")]) == 0
    wanted = (tmp_path / "half" / "model.safetensors").read_bytes()
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == wanted


@pytest.mark.parametrize("flags", [(), LORA])
def test_training_starts_from_a_checkpoint_or_an_adapter(workspace, tmp_path, flags):
    first = (*RUN, *flags, "--max_steps", 2, "--save_strategy", "steps", "--save_steps", 2)
    train(workspace, tmp_path / "one", *first, "--export", "adapter")
    starts = (tmp_path / "one" / "checkpoint-2", tmp_path / "one" / "adapter")
    results = []
    for start in starts:
        out = tmp_path / f"from {start.name}"
        again = ("--model_name_or_path", start, "--max_steps", 1, "--export", "both")
        train(workspace, out, *RUN, *flags, *again)
        results.append(parameters(out))
        merged = parameters(out / "adapter")  # an adapter of an adapter
        assert all(torch.equal(parameter, merged[name]) for name, parameter in results[-1].items())
    assert all(torch.equal(results[0][name], other) for name, other in results[1].items())


def test_a_folder_of_checkpoints_is_told_from_a_checkpoint(workspace, tmp_path, caplog):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-2" / "adapter.json").touch()
    train(workspace, tmp_path / "out", "--model_name_or_path", tmp_path / "run", expect=2)
    assert "it holds checkpoint-2: give one of these folders" in caplog.text


def test_weights_are_summed_exactly():
    model = torch.nn.Linear(3, 2)
    before = finetune.weight_sums(model)
    assert before == finetune.weight_sums(model)
    with torch.no_grad():
        model.weight[0, 0] += 1e-3
    assert before != finetune.weight_sums(model)
