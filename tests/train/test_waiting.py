"""A training step asks the device for no number but those that are listed here.

On a GPU each such question waits until all that was asked of it before is done, and leaves it idle
until the next is asked. Here every operation that asks is counted, without a GPU, in a step of the
real trainer.
"""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

import distime
from distime.train import finetune
from distime.train.trainer import DisTimeTrainer

aten = torch.ops.aten
PACKAGES = tuple(f"{Path(one.__file__).parent}/" for one in (distime, transformers))
ASKING = {
    aten._local_scalar_dense,  # item, int, float, bool, if
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.is_nonzero,
    aten.unique_consecutive,
    aten._unique2,
}
"""Operations whose outcome, or its size, the CPU must know before it goes on."""


class Questions(TorchDispatchMode):
    """Counts them by the place in this package or in transformers that asks."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def note(self, kind: str) -> None:
        frames = traceback.extract_stack()
        ours = [f for f in frames if f.filename.startswith(PACKAGES)]
        place = f"{Path(ours[-1].filename).name} {ours[-1].name}" if ours else "elsewhere"
        self.counts[f"{place} {kind}"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in ASKING:
            self.note(packet.__name__)
        elif packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            if any(one is not None and one.dtype == torch.bool for one in args[1]):
                self.note(packet.__name__)
        elif packet is aten.repeat_interleave and kwargs.get("output_size") is None:
            self.note(packet.__name__)
        return func(*args, **kwargs)


def count(monkeypatch) -> Counter[str]:
    """Count from when the batches of a step are there to when those of the next are asked for."""
    questions, is_on = Questions(), []
    fetch, finish = DisTimeTrainer.get_batch_samples, DisTimeTrainer._finalize_training
    tolist = torch.Tensor.tolist

    def stop():
        if is_on:
            is_on.pop().__exit__(None, None, None)

    def watched_fetch(self, *args, **kwargs):
        stop()
        batches = fetch(self, *args, **kwargs)
        is_on.append(questions.__enter__())
        return batches

    def watched_finish(self, *args, **kwargs):
        stop()
        return finish(self, *args, **kwargs)

    def watched_tolist(
        tensor,
    ):  # on the CPU it is no operation
        if is_on:
            questions.note("tolist")
        return tolist(tensor)

    monkeypatch.setattr(DisTimeTrainer, "get_batch_samples", watched_fetch)
    monkeypatch.setattr(DisTimeTrainer, "_finalize_training", watched_finish)
    monkeypatch.setattr(torch.Tensor, "tolist", watched_tolist)
    return questions.counts


def train(workspace, out, *flags):
    arguments = {
        "--model_name_or_path": workspace / "tiny", "--meta_path": workspace / "meta.json",
        "--output_dir": out, "--use_cpu": True, "--report_to": "none", "--save_strategy": "no",
        "--min_num_frame": 4, "--max_num_frame": 4, "--learning_rate": 1e-3, "--max_steps": STEPS,
        "--disable_tqdm": True, "--dataloader_num_workers": 0, "--gradient_accumulation_steps": 2,
    }  # fmt: skip
    argv = [str(word) for pair in arguments.items() for word in pair] + [str(f) for f in flags]
    assert finetune.main(argv) == 0


STEPS = 2
PER_STEP = {
    "trainer.py _check_losses _local_scalar_dense": 1,  # is any loss not finite?
    "trainer.py _read_counts tolist": 1,  # what it was trained on; on the CPU for one process
    "trainer.py _get_grad_norm _local_scalar_dense": 1,  # is the gradient finite?
}
PER_LINE_OF_THE_LOG = {
    "trainer.py log tolist": 1,  # the parts of the loss
    "trainer.py _maybe_log_save_evaluate _local_scalar_dense": 2,  # loss and norm, to write them
}


@pytest.mark.parametrize(
    "flags",
    [
        ("--per_device_train_batch_size", 3),
        ("--per_device_train_batch_size", 2, "--packing", True, "--share_video_prefix", True),
    ],
)
def test_a_step_asks_for_no_more_than_is_listed(workspace, tmp_path, monkeypatch, flags):
    counts = count(monkeypatch)
    train(workspace, tmp_path / "out", "--logging_steps", STEPS, *flags)
    expected = {place: STEPS * number for place, number in PER_STEP.items()}
    assert dict(counts) == expected | PER_LINE_OF_THE_LOG


def test_the_counter_counts():
    with Questions() as questions:
        tensor = torch.arange(4)
        tensor[tensor > 2], tensor.max().item(), tensor.nonzero(), bool(tensor.any())
    assert sorted(questions.counts.values()) == [1, 1, 2]
