"""Parity with tensors recorded from the published implementation."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from distime import DisTimeForConditionalGeneration
from distime.model.losses import distance_iou_loss, distribution_focal_loss
from distime.model.time_modules import expected_time, gaussian_bins

pytestmark = pytest.mark.golden

EXACT = ["qwen2", "qwen2_lora", "qwen2_lora_merged"]
TOLERANCE = 1e-4
# Differences that the published bfloat16 Gaussians make (loss by loss).
BF16_LOSSES = {"text_loss": 0.0269, "distribution_loss": 0.0032, "iou_loss": 0.0228, "loss": 0.0256}
LOSSES = {
    "text_loss": "loss_text",
    "distribution_loss": "loss_dfl",
    "iou_loss": "loss_diou",
    "loss": "loss_total",
}


@pytest.fixture(scope="module", params=EXACT)
def golden(request, load_golden):
    golden = load_golden(request.param)
    golden.model = DisTimeForConditionalGeneration.from_pretrained(golden.checkpoint).eval()
    return golden


def forward_inputs(golden, case: str, prefix: str = "forward") -> dict[str, torch.Tensor]:
    tensors, numbers = golden.case(f"{prefix}/{case}"), golden.numbers[prefix][case]
    duration = numbers["duration"]
    targets = None
    if numbers["time_gt"] is not None:
        targets = torch.tensor(numbers["time_gt_clamped"]).view(-1, 2) / duration
    return {
        "input_ids": tensors["input_ids"],
        "attention_mask": tensors["attention_mask"],
        "position_ids": tensors["position_ids"],
        "labels": tensors["labels"],
        "pixel_values": golden.pixels[f"train/{case}"],
        "frame_times": tensors["frame_times"][::2] / duration,
        "time_targets": targets,
    }


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_vision(golden):
    tensors = golden.case("vision")
    features = golden.model.get_image_features(pixel_values=tensors["pixel_values"]).pooler_output
    close(features, tensors["features"])
    tower = golden.model.model.vision_tower
    close(tower(tensors["pixel_values"]).last_hidden_state, tensors["vit_last_hidden"])
    wide = tower(tensors["pixel_values_84x56"]).last_hidden_state
    close(wide, tensors["vit_last_hidden_84x56"])


def test_time_encoder(golden):
    encoder = golden.model.time_encoder
    for name, numbers in golden.numbers["frame_times"].items():
        tensors = golden.case(f"frame_times/{name}")
        times = torch.tensor(numbers["times"]) / numbers["duration"]
        intervals = times[:, None].expand(-1, 2)
        bins = gaussian_bins(intervals, encoder.reg_max, encoder.sigma)
        close(bins.flatten(1), tensors["gaussians"])
        close(encoder(intervals), tensors["embeddings"])
    tensors = golden.case("intervals")
    intervals = tensors["seconds"] / golden.numbers["intervals"]["duration"]
    close(encoder(intervals), tensors["embeddings"])


def test_forward(golden):
    for case, numbers in golden.numbers["forward"].items():
        expected = golden.case(f"forward/{case}")
        with torch.no_grad():
            output = golden.model(**forward_inputs(golden, case))
        supervised = output.logits[0, expected["supervised_positions"]]
        close(supervised, expected["supervised_logits"])
        if "logits" in expected:
            close(output.logits, expected["logits"])
            close(output.last_hidden_state, expected["last_hidden"])
        for ours, theirs in LOSSES.items():
            # A time in a question is input alone in ours; the published one is trained on it.
            if case != "time_in_question" or ours == "text_loss":
                assert getattr(output, ours).item() == pytest.approx(numbers[theirs], abs=TOLERANCE)
        if case == "time_in_question":
            assert output.distribution_loss == output.iou_loss == 0
        if numbers["time_head_positions"]:
            hidden = output.last_hidden_state[0, numbers["time_head_positions"]]
            logits = golden.model.time_decoder(hidden)
            close(logits.flatten(1), expected["time_head_logits"].view(len(hidden), -1))
            seconds = expected_time(logits.softmax(-1)) * numbers["duration"]
            close(seconds, expected["time_pred_seconds"])


def test_weighted_text_loss(golden):
    if not golden.numbers.get("forward_weighted"):
        pytest.skip("not recorded for this model")
    for case, numbers in golden.numbers["forward_weighted"].items():
        weight = golden.case(f"forward_weighted/{case}")["loss_weight"]
        output = golden.model(**forward_inputs(golden, case), loss_weight=weight)
        assert output.text_loss.item() == pytest.approx(numbers["loss_text"], abs=TOLERANCE)
        assert output.loss.item() == pytest.approx(numbers["loss_total"], abs=TOLERANCE)


class Forced(LogitsProcessor):
    """Make generation emit given ids, whatever the logits."""

    def __init__(self, ids: list[int], prompt_length: int):
        self.ids, self.prompt_length = ids, prompt_length

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.ids[input_ids.shape[1] - self.prompt_length]] = 0
        return forced


def generate(golden, case: str, **kwargs):
    numbers, tensors = golden.numbers["generate"][case], golden.case(f"generate/{case}")
    prompt = tensors["prompt_ids"]
    if numbers["forced_ids"]:
        processor = Forced(numbers["forced_ids"], prompt.shape[1])
        kwargs["logits_processor"] = LogitsProcessorList([processor])
    video = numbers["video"]
    output = golden.model.generate(
        input_ids=prompt,
        pixel_values=golden.pixels[f"eval/{video}/{numbers['frames']}"],
        frame_times=torch.tensor(numbers["frame_times"][::2]) / numbers["duration"],
        max_new_tokens=numbers["max_new_tokens"],
        return_dict_in_generate=True,
        output_logits=True,
        **kwargs,
    )
    return output, output.sequences[:, prompt.shape[1] :]


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate(golden, use_cache):
    if "generate" not in golden.numbers:
        pytest.skip("no generation recorded for this model")
    for case in golden.numbers["generate"]:
        expected = golden.case(f"generate/{case}")
        output, new_ids = generate(golden, case, use_cache=use_cache)
        assert torch.equal(new_ids, expected["sequence"]), case
        close(output.times[0] * golden.numbers["reg_max"], expected["pred_time_units"])
        # The random models amplify rounding: logits of size 12 agree to a few 1e-5 of that.
        close(torch.stack(output.logits, 1)[0], expected["step_logits"], 5 * TOLERANCE)


@pytest.fixture
def trainable(load_golden):
    """The float32 model with what the published recipe trains in full, without LoRA."""
    golden = load_golden("qwen2")
    golden.model = DisTimeForConditionalGeneration.from_pretrained(golden.checkpoint).train()
    full = ("time_encoder", "time_decoder", "lm_head", "model.language_model.embed_tokens")
    for name, parameter in golden.model.named_parameters():
        parameter.requires_grad_(name.startswith(full))
    return golden


PUBLISHED_NAMES = {
    "time_encoder.": "time_enc.",
    "time_decoder.": "time_gen.",
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
}


def published_name(name: str) -> str:
    ours = next(prefix for prefix in PUBLISHED_NAMES if name.startswith(prefix))
    return PUBLISHED_NAMES[ours] + name.removeprefix(ours)


@pytest.mark.parametrize("case", ["two_events", "no_time"])
def test_gradients(trainable, case):
    trainable.model(**forward_inputs(trainable, case)).loss.backward()
    recorded = trainable.case(f"grad/recipe_{case}")
    norms = trainable.numbers["grad"][f"recipe_{case}"]["param_norms"]
    for name, parameter in trainable.model.named_parameters():
        if parameter.requires_grad:
            theirs = published_name(name)
            assert parameter.grad.norm().item() == pytest.approx(norms[theirs], abs=TOLERANCE), name
            if theirs in recorded:
                close(parameter.grad, recorded[theirs])


def test_three_training_steps(trainable):
    expected = trainable.numbers["train_steps"]
    parameters = [p for p in trainable.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
    for case, loss in zip(expected["batches"], expected["losses"], strict=True):
        output = trainable.model(**forward_inputs(trainable, case))
        assert output.loss.item() == pytest.approx(loss, abs=TOLERANCE)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in trainable.model.named_parameters():
        if parameter.requires_grad:
            norm = expected["final_norms"][published_name(name)]
            # Adam divides by the gradient's size, which turns rounding of tiny gradients into
            # whole steps of 1e-3: a norm of 100 agrees to a few 1e-4.
            assert parameter.norm().item() == pytest.approx(norm, abs=TOLERANCE, rel=1e-5), name


def test_bfloat16_gaussians_differ_as_published(load_golden):
    golden = load_golden("qwen2_bf16enc")
    golden.model = DisTimeForConditionalGeneration.from_pretrained(golden.checkpoint).eval()
    for case, numbers in golden.numbers["forward"].items():
        with torch.no_grad():
            output = golden.model(**forward_inputs(golden, case))
        for ours, theirs in LOSSES.items():
            if case != "time_in_question" or ours == "text_loss":
                error = abs(getattr(output, ours).item() - numbers[theirs])
                assert error <= BF16_LOSSES[ours] + 1e-4, (case, ours)
    for case in golden.numbers["generate"]:
        output, new_ids = generate(golden, case)
        expected = golden.case(f"generate/{case}")
        assert torch.equal(new_ids, expected["sequence"]), case
        close(output.times[0] * golden.numbers["reg_max"], expected["pred_time_units"], 0.084)


def test_base_checkpoint(load_golden, caplog):
    golden = load_golden("qwen2_base")
    numbers = golden.numbers
    with caplog.at_level("INFO", logger="distime"):
        torch.manual_seed(0)
        model = DisTimeForConditionalGeneration.from_pretrained(golden.checkpoint)
    assert "2 new token rows" in caplog.text and "start fresh" in caplog.text
    assert model.config.time_token_id == numbers["token_ids_after"]["<TIME_STAMP>"]
    assert model.config.frame_time_token_id == numbers["token_ids_after"]["<FRAME_TIME_REF>"]
    old, rows = numbers["vocab_before"], numbers["vocab_after"]
    head, embedding = model.lm_head.weight, model.get_input_embeddings().weight
    assert head.shape[0] == embedding.shape[0] == rows == model.config.text_config.vocab_size
    close(head[old:], head[:old].mean(0).expand(rows - old, -1), 1e-6)
    assert 0.01 < embedding[old:].std() < 0.03
    for name, bound in numbers["xavier_bound"].items():
        ours = name.replace("time_enc", "time_encoder").replace("time_gen", "time_decoder")
        largest = model.get_parameter(ours).abs().max().item()
        assert 0.9 * bound < largest <= bound
        assert not model.get_parameter(ours.replace("weight", "bias")).any()


def test_losses_match_recorded_ones(golden_root):
    from safetensors.torch import load_file

    tensors = load_file(golden_root / "common" / "cases.safetensors")
    predicted = tensors["diou/pred"].float()
    ours = distance_iou_loss(predicted, tensors["diou/gt"].float())
    recorded = tensors["diou/loss"].float()
    exploded = recorded > 1e6
    assert exploded.any() and ours.isfinite().all()
    close(ours[~exploded], recorded[~exploded])
    logits, labels = tensors["dfl/logits"].float(), tensors["dfl/labels"].float()
    logits.requires_grad_()
    loss = distribution_focal_loss(logits, labels / 32)
    close(loss, tensors["dfl/loss_none"].float())
    loss.mean().backward()
    gradient = tensors["dfl/grad"].float()
    scale = gradient.norm() / logits.grad.norm()
    close(logits.grad * scale, gradient)
