"""DeepSpeed and plain processes against one process: losses, weights, resuming.

Two processes run all jobs of `JOBS` after one another (`distributed_worker.py`), over gloo. Four of
the sixteen samples have a video, so that ranks hold different modalities, or no event between them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.processing.video import encode_video
from distime.toy.tiny import write_tiny_checkpoint
from distime.train import finetune
from distime.train.trainer import DisTimeTrainer
from tiny_models import make_tiny_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"
)

ROOT = Path(finetune.__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
LAUNCH = ROOT / "shell/distime/launch.sh"
STEPS, SAVED = 3, 2
LEARNING_RATE = 1e-3
LOSS = {"rtol": 1e-4, "atol": 1e-5}
# Adam turns rounding into steps where a gradient is zero but for it (biases of keys).
WEIGHT = {"rtol": 0, "atol": LEARNING_RATE / 20}

LORA = (
    "--use_llm_lora", 4, "--freeze_llm", True, "--freeze_backbone", True, "--freeze_mlp", True,
    "--lora_dropout", 0, "--gradient_checkpointing", True,
)  # fmt: skip
NEW_ROWS = ("--train_embeddings", "new_rows")
SAVE, RESUME = ("--save_strategy", "steps", "--save_steps", SAVED), ("--resume", "auto")


CHANGED = ("--learning_rate", LEARNING_RATE / 10, "--weight_decay", 0.25, "--adam_beta1", 0.5)
EVALUATE = ("--eval_path", "held_out.jsonl", "--eval_max_new_tokens", 4)


def zero(stage):
    return "--deepspeed", f"zero{stage}.json"


# name: (start checkpoint, job whose checkpoint it goes on from, flags)
JOBS = {
    "ddp": ("tied", None, ()),
    "zero1": ("tied", None, zero(1)),
    "zero2": ("tied", None, (*zero(2), *SAVE)),
    "zero2 resumed": ("tied", "zero2", (*zero(2), *RESUME)),
    "zero2 changed": ("tied", "zero2", (*zero(2), *RESUME, *CHANGED)),
    "zero3": ("tied", None, (*zero(3), *EVALUATE)),
    "lora zero3": ("tied", None, (*LORA, *zero(3), *SAVE)),
    "lora zero3 resumed": ("tied", "lora zero3", (*LORA, *zero(3), *RESUME)),
    "untied lora zero3": ("untied", None, (*LORA, *zero(3))),
    "new rows zero3": ("tied", None, (*LORA, *zero(3), *NEW_ROWS)),
    "untied new rows zero3": ("untied", None, (*LORA, *zero(3), *NEW_ROWS)),
    "qwen zero2": ("qwen", None, zero(2)),
    "qwen zero3": ("qwen", None, zero(3)),
    "bf16 zero2": ("tied", None, (*zero(2), "--bf16", True, "--max_steps", 1)),
    "other stage": ("tied", "zero2", (*zero(3), *RESUME)),
    "no DeepSpeed": ("tied", "zero2", RESUME),
}
ALONE = {
    "full": ("tied", None, EVALUATE),
    "qwen": ("qwen", None, ()),
    "lora": ("tied", None, LORA),
    "untied lora": ("untied", None, LORA),
    "new rows": ("tied", None, (*LORA, *NEW_ROWS)),
    "untied new rows": ("untied", None, (*LORA, *NEW_ROWS)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints with tied and untied embeddings, and data of which a quarter is video."""
    folder = tmp_path_factory.mktemp("deep speed")
    words = ["when does the red square appear ? at . no what is seen"]
    for name, backbone in (("tied", "internvl"), ("qwen", "qwen3_vl")):
        write_tiny_checkpoint(
            folder / name, words, hidden_size=32, num_layers=2, num_frames=4, backbone=backbone
        )
    model = DisTimeForConditionalGeneration.from_pretrained(folder / "tied")
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(1.1 * model.lm_head.weight.detach())
    model.save_pretrained(folder / "untied")
    DisTimeProcessor.from_pretrained(folder / "tied").save_pretrained(folder / "untied")
    frames = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
    encode_video(folder / "a.mp4", frames, fps=4)

    def conversation(question, answer):
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]

    lines = []
    for start in range(4):
        turns = conversation("<video>\nwhen does the red square appear?", "at <TIME_STAMP>.")
        lines.append({"video": "a.mp4", "tgt": [start / 2, 2], "conversations": turns})
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lines += [{"conversations": conversation("what is seen?", "no.")}] * 12
    (folder / "mixed.jsonl").write_text("\n".join(map(json.dumps, lines)))
    meta = {"mixed": {"root": ".", "annotation": "mixed.jsonl"}}
    (folder / "meta.json").write_text(json.dumps(meta))
    for stage in (1, 2, 3):
        config = json.loads((ROOT / f"zero_stage{stage}_config.json").read_text())
        if stage == 3:  # which otherwise leaves small parameters whole: all of a tiny model's
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        (folder / f"zero{stage}.json").write_text(json.dumps(config))
    return folder


def job(name, model, source, flags, num_processes):
    """A job of the worker in `folder`; see there."""
    arguments = {
        "--model_name_or_path": model, "--meta_path": "meta.json", "--output_dir": name,
        "--use_cpu": True, "--report_to": "none", "--save_strategy": "no", "--min_num_frame": 4,
        "--max_num_frame": 4, "--sampling_method": "middle", "--learning_rate": LEARNING_RATE,
        "--weight_decay": 0.5, "--logging_steps": 1, "--disable_tqdm": True, "--max_steps": STEPS,
        "--per_device_train_batch_size": 1, "--gradient_accumulation_steps": 4 // num_processes,
    }  # fmt: skip
    argv = [str(word) for pair in arguments.items() for word in pair] + [str(f) for f in flags]
    where = f"checkpoint-{SAVED}"
    copy = source and [f"{source}/{where}", f"{name}/{where}"]
    return {"name": name, "argv": argv, "copy": copy}


def run(folder, table, num_processes):
    """Run a table of jobs; return what every rank saw, by the name of the job."""
    file = folder / f"jobs of {num_processes}.json"
    file.write_text(json.dumps([job(n, *j, num_processes) for n, j in table.items()]))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    command = [*launch, str(num_processes), str(WORKER), str(file)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    ranks = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{file.stem}.[0-9].json"))]
    return {name: [rank[name] for rank in ranks] for name in table}


@pytest.fixture(scope="module")
def alone(folder):
    """What one process sees."""
    return run(folder, ALONE, 1)


@pytest.fixture(scope="module")
def together(folder):
    """What two processes see."""
    return run(folder, JOBS, 2)


def losses(seen, since=0):
    """The logged losses of a job, per step after `since`."""
    names = ("loss", "text_loss", "distribution_loss", "iou_loss", "grad_norm", "learning_rate")
    logs = [log for log in seen[0]["logs"] if "loss" in log]
    return torch.tensor([[log[name] for name in names] for log in logs[since:]])


def assert_same_weights(folder, one, other, **tolerance):
    one, other = (
        dict(DisTimeForConditionalGeneration.from_pretrained(folder / name).named_parameters())
        for name in (one, other)
    )
    assert one.keys() == other.keys()
    for name, parameter in one.items():
        torch.testing.assert_close(parameter, other[name], **tolerance, msg=name)


def test_ranks_hold_different_modalities(together):
    """What the other tests rest on: a video beside text on the other rank, and text on both."""
    ranks = together["zero3"]
    assert [seen["exit"] for seen in ranks] == [0, 0]
    kinds = Counter(tuple(t is not None for t in times) for times in _pairs(ranks))
    assert kinds[False, False] > 0
    assert kinds[True, False] + kinds[False, True] > 0


def _pairs(ranks):
    return zip(ranks[0]["times"], ranks[1]["times"], strict=True)


@pytest.mark.parametrize(
    ("two", "one"),
    [
        ("ddp", "full"),
        ("zero1", "full"),
        ("zero2", "full"),
        ("zero3", "full"),
        ("qwen zero2", "qwen"),
        ("qwen zero3", "qwen"),
        ("lora zero3", "lora"),
        ("untied lora zero3", "untied lora"),
        ("new rows zero3", "new rows"),
        ("untied new rows zero3", "untied new rows"),
    ],
)
def test_two_processes_train_as_one(folder, alone, together, two, one):
    expected, found = losses(alone[one]), losses(together[two])
    assert len(expected) == STEPS
    torch.testing.assert_close(found, expected, **LOSS)
    assert_same_weights(folder, two, one, **WEIGHT)


def test_evaluation_scores_as_in_one_process(alone, together):
    """The second rank has no question, and must keep step with the first all the same."""
    for name in ("eval_miou", "eval_answered"):
        one, two = ([log[name] for log in seen[0]["logs"] if name in log] for seen in
                    (alone["full"], together["zero3"]))  # fmt: skip
        assert len(one) == 1
        assert two == pytest.approx(one)


def test_flags_changed_on_resuming_take_effect(together):
    """Of the engine's optimizer too, whose state has those of the run before."""
    (log,) = [log for log in together["zero2 changed"][0]["logs"] if "loss" in log]
    expected = losses(together["zero2"], since=SAVED)
    assert log["loss"] == pytest.approx(expected[0, 0].item())  # it is of before the update
    assert log["learning_rate"] == pytest.approx(expected[0, -1].item() / 10)
    for seen in together["zero2 changed"]:
        assert {settings[1] for settings in seen["settings"]} == {0.5}
        assert {settings[0] for settings in seen["settings"]} == {0.25, 0.0}


@pytest.mark.parametrize("name", ["zero2", "lora zero3"])
def test_resumed_goes_on_exactly(folder, together, name):
    expected = losses(together[name], since=SAVED)
    found = losses(together[f"{name} resumed"])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert_same_weights(folder, name, f"{name} resumed", rtol=0, atol=0)


def test_checkpoints_leave_out_frozen_weights(folder, together):
    """DeepSpeed's part of a LoRA checkpoint grows with what is trained, not with the model."""
    states = folder / "lora zero3" / f"checkpoint-{SAVED}" / f"global_step{SAVED}"
    state = torch.load(next(states.glob("*rank_0*model_states.pt")), weights_only=False)
    assert any("lora_A" in name for name in state["module"])
    assert not any("vision_tower" in name for name in state["module"])


def test_half_precision_keeps_times_exact(together):
    times = {kind for seen in together["bf16 zero2"] for kind in seen["times"]}
    assert times == {None, "torch.float32"}
    assert losses(together["bf16 zero2"]).isfinite().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other stage", "was written with ZeRO-1 or ZeRO-2: give a --deepspeed configuration"),
        ("no DeepSpeed", "was written with DeepSpeed: give the same --deepspeed, or --resume none"),
    ],
)
def test_checkpoint_of_another_kind_is_refused(together, name, message):
    for seen in together[name]:
        assert seen["exit"] == 2
        assert message in seen["errors"][-1]


def test_other_number_of_processes_goes_on(folder, together):
    """Through the launch script, in one process, from what two have written."""
    name = "lora zero3 in one"
    started = job(name, *JOBS["lora zero3 resumed"], 1)
    shutil.copytree(*(folder / one for one in started["copy"]))
    environment = os.environ | {
        "GPUS": "1", "BATCH_SIZE": "4", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = ["sh", str(LAUNCH), *started["argv"]]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    assert "from 2 processes" in done.stderr
    assert_same_weights(folder, "lora zero3", name, **WEIGHT)


def test_optimizer_has_no_empty_group(tmp_path):
    """LoRA alone trains nothing that is kept from weight decay."""
    model = make_tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("q_proj.weight"))
    arguments = finetune.TrainArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    optimizer = DisTimeTrainer(
        model=model, args=arguments, exporter=None, record=None, objective=None
    ).create_optimizer()
    assert [len(group["params"]) for group in optimizer.param_groups] == [4]
