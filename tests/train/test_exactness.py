"""However the samples of a step are laid out, it computes the same losses and the same update."""

from __future__ import annotations

import pytest
import torch

from distime.train.trainer import DisTimeTrainer
from tiny_runs import parameters, train

EPOCHS = ("--lr_scheduler_type", "constant", "--num_train_epochs")
LAYOUTS = {
    "batch 1 x accumulation 8": (2, "1", "8", ()),
    "shared prefixes": (2, "1", "2", ("--share_video_prefix", True)),
    "packed": (1, "1", "1", ("--packing", True)),
    "packed shared prefixes": (1, "1", "1", ("--share_video_prefix", True, "--packing", True)),
}


def run(workspace, out, epochs, batch, accumulation, *flags):
    """Train; return losses and gradient norm of each step."""
    steps = []
    log = DisTimeTrainer.log

    def record(self, entries, *args, **kwargs):
        log(self, entries, *args, **kwargs)
        if "loss" in entries:
            names = ("loss", "text_loss", "distribution_loss", "iou_loss", "grad_norm")
            steps.append([entries[name] for name in names])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DisTimeTrainer, "log", record)
        train(workspace, out, *EPOCHS, epochs, "--per_device_train_batch_size", batch,
              "--gradient_accumulation_steps", accumulation, *flags)  # fmt: skip
    return steps


@pytest.fixture(scope="module")
def reference(workspace, tmp_path_factory):
    """All eight items in every step, as batch 4 x accumulation 2."""
    out = tmp_path_factory.mktemp("reference")
    return {n: (run(workspace, out / str(n), n, 4, 2), parameters(out / str(n))) for n in (1, 2)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_train_alike(workspace, tmp_path, reference, layout):
    epochs, batch, accumulation, flags = LAYOUTS[layout]
    steps = run(workspace, tmp_path / "out", epochs, batch, accumulation, *flags)
    expected_steps, expected = reference[epochs]
    assert len(steps) == epochs
    for found, wanted in zip(steps, expected_steps, strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    for name, parameter in parameters(tmp_path / "out").items():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=3e-5, msg=name)
