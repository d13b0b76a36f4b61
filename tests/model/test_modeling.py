"""Batches, packing, generation, shared prefixes: each must equal the samples one by one."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from distime import DisTimeForConditionalGeneration
from distime.model.packing import PADDING, SHARED
from tiny_models import FRAME, IM_END, IMAGE, TIME, VOCABULARY, tiny_config

pytestmark = pytest.mark.smoke
PROMPT = [10, 11]  # what every sample begins with


def video_sample(seed: int, events: int, frames: int = 3) -> dict[str, torch.Tensor]:
    """One sample alone: a video, a question, and an answer with some times."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(10, VOCABULARY, (12,), generator=generator).tolist()
    ids = PROMPT + [FRAME, IMAGE] * frames + words[: 4 + seed % 3]
    answer_start = len(ids)
    for event in range(events):
        ids += [words[event], TIME, words[event + 5]]
    ids += [words[-1], IM_END]
    labels = [-100] * answer_start + ids[answer_start:]
    starts_ends = torch.rand(events, 2, generator=generator).sort(-1).values
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "pixel_values": torch.randn(frames, 3, 8, 8, generator=generator),
        "frame_times": torch.rand(frames, generator=generator).sort().values,
        "time_targets": starts_ends,
    }


def text_sample() -> dict[str, torch.Tensor]:
    ids = PROMPT + [20, 21, 22, 23, IM_END]
    labels = [-100] * 4 + ids[4:]
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}


def samples() -> list[dict[str, torch.Tensor]]:
    """0, 1, 2 and 3 events; the one without is text alone."""
    return [video_sample(1, 1), text_sample(), video_sample(2, 2), video_sample(3, 3)]


MEDIA = ("pixel_values", "frame_times", "time_targets")


def media_of(parts: list[dict]) -> dict[str, torch.Tensor]:
    return {
        key: torch.cat([part[key] for part in parts if key in part])
        for key in MEDIA
        if any(key in part for part in parts)
    }


def pad(parts: list[dict], side: str) -> dict[str, torch.Tensor]:
    length = max(part["input_ids"].shape[1] for part in parts)

    def grow(row: torch.Tensor, value: int) -> torch.Tensor:
        fill = torch.full((1, length - row.shape[1]), value)
        return torch.cat([fill, row] if side == "left" else [row, fill], dim=1)

    ids = torch.cat([grow(part["input_ids"], 0) for part in parts])
    mask = torch.cat([grow(torch.ones_like(part["input_ids"]), 0) for part in parts])
    batch = {"input_ids": ids, "attention_mask": mask} | media_of(parts)
    if "labels" in parts[0]:
        batch["labels"] = torch.cat([grow(part["labels"], -100) for part in parts])
    return batch


def pack(parts: list[dict]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.cat([part["input_ids"] for part in parts], 1),
        "labels": torch.cat([part["labels"] for part in parts], 1),
        "position_ids": torch.cat([torch.arange(p["input_ids"].shape[1]) for p in parts])[None],
    } | media_of(parts)


def loss_and_gradients(model, batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    losses = {
        name: getattr(output, name).item()
        for name in ("loss", "text_loss", "distribution_loss", "iou_loss")
    }
    return losses, {name: p.grad.clone() for name, p in model.named_parameters()}


def mean_alone(model, parts) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    alone = [loss_and_gradients(model, part) for part in parts]
    losses = {name: sum(loss[name] for loss, _ in alone) / len(alone) for name in alone[0][0]}
    gradients = {
        name: torch.stack([gradient[name] for _, gradient in alone]).mean(0) for name in alone[0][1]
    }
    return losses, gradients


def assert_same(actual, expected) -> None:
    for name, loss in expected[0].items():
        assert actual[0][name] == pytest.approx(loss, abs=1e-5), name
    for name, gradient in expected[1].items():
        torch.testing.assert_close(actual[1][name], gradient, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["left", "right", "packed"])
def test_batch_is_the_mean_of_its_samples(tiny_model, layout, training):
    tiny_model.train(training)
    parts = samples()
    if not training:  # without a training step nothing keeps unused modules in the graph
        parts = [part for part in parts if "pixel_values" in part]
    batch = pack(parts) if layout == "packed" else pad(parts, layout)
    assert_same(loss_and_gradients(tiny_model, batch), mean_alone(tiny_model, parts))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations_agree_on_packed_rows(attention):
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration._from_config(
        tiny_config(), attn_implementation=attention
    ).train()
    parts = samples()
    assert_same(loss_and_gradients(model, pack(parts)), mean_alone(model, parts))


def shared_prefix_batch(items: list[dict], prefix_length: int) -> dict[str, torch.Tensor]:
    """Two groups in one row: `items` about one video behind its frames, and a text sample."""
    ids, labels, positions, groups, owners = [], [], [], [], []

    def append(part_ids, part_labels, start, group, owner):
        ids.append(part_ids)
        labels.append(part_labels)
        positions.append(torch.arange(start, start + len(part_ids)))
        groups.append(torch.full_like(part_ids, group))
        owners.append(torch.full_like(part_ids, owner))

    prefix = items[0]["input_ids"][0, :prefix_length]
    append(prefix, torch.full_like(prefix, -100), 0, 0, SHARED)
    for owner, item in enumerate(items):
        append(
            item["input_ids"][0, prefix_length:], item["labels"][0, prefix_length:],
            prefix_length, 0, owner,
        )  # fmt: skip
    text = text_sample()
    append(text["input_ids"][0], text["labels"][0], 0, 1, len(items))
    padding = torch.zeros(3, dtype=torch.long)
    append(padding, torch.full_like(padding, -100), 0, PADDING, SHARED)
    names = ("input_ids", "labels", "position_ids", "group_ids", "sample_ids")
    columns = (ids, labels, positions, groups, owners)
    batch = {name: torch.cat(column)[None] for name, column in zip(names, columns, strict=True)}
    return batch | {
        "pixel_values": items[0]["pixel_values"],
        "frame_times": items[0]["frame_times"],
        "time_targets": torch.cat([item["time_targets"] for item in items]),
    }


def items_about_one_video() -> tuple[list[dict], int]:
    items = [video_sample(seed, events) for seed, events in ((4, 1), (5, 0), (6, 3))]
    for item in items[1:]:
        item["pixel_values"] = items[0]["pixel_values"]
        item["frame_times"] = items[0]["frame_times"]
    return items, len(PROMPT) + 6


def test_shared_prefix_trains_as_separate_samples(tiny_model):
    tiny_model.train()
    items, prefix_length = items_about_one_video()
    shared = loss_and_gradients(tiny_model, shared_prefix_batch(items, prefix_length))
    assert_same(shared, mean_alone(tiny_model, [*items, text_sample()]))


def test_gradient_checkpointing_changes_nothing(tiny_model):
    tiny_model.train()
    items, prefix_length = items_about_one_video()
    batch = shared_prefix_batch(items, prefix_length)
    expected = loss_and_gradients(tiny_model, batch)
    tiny_model.activation_checkpointing_enable({"use_reentrant": False})
    assert_same(loss_and_gradients(tiny_model, batch), expected)


def test_every_parameter_has_a_gradient_whatever_the_batch_holds(tiny_model):
    tiny_model.train()
    losses, gradients = loss_and_gradients(tiny_model, text_sample())
    assert losses["distribution_loss"] == losses["iou_loss"] == 0
    assert len(gradients) == len(list(tiny_model.parameters()))
    for name, gradient in gradients.items():
        idle = name.startswith(("model.vision", "model.multi_modal", "time_"))
        assert gradient.isfinite().all() and (not gradient.any()) == idle, name


def test_training_logits_are_the_supervised_rows_of_the_full_ones(tiny_model):
    batch = pad(samples(), "right")
    full = tiny_model.eval()(**batch)
    step = tiny_model.train()(**batch)
    supervised = batch["labels"][:, 1:] != -100
    torch.testing.assert_close(step.logits, full.logits[:, :-1][supervised])
    assert step.loss.item() == pytest.approx(full.loss.item(), abs=1e-6)


def test_loss_divisor_makes_accumulation_exact(tiny_model):
    tiny_model.train()
    parts = samples()
    whole = loss_and_gradients(tiny_model, pad(parts, "right"))
    tiny_model.zero_grad()
    for micro in (parts[:1], parts[1:]):  # uneven micro batches
        tiny_model(**pad(micro, "right"), loss_divisor=len(parts)).loss.backward()
    for name, parameter in tiny_model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[1][name], rtol=1e-4, atol=2e-6, msg=name)


def test_time_in_a_question_is_input_alone(tiny_model):
    sample = video_sample(7, 2)
    sample["labels"][sample["input_ids"] == TIME] = -100
    output = tiny_model(**sample)
    assert output.distribution_loss == output.iou_loss == 0
    moved = tiny_model(**sample | {"time_targets": sample["time_targets"].flip(0)})
    assert (output.logits != moved.logits).any()


def test_mean_distribution_loss_is_the_sum_rescaled(tiny_model):
    sample = video_sample(3, 3)
    summed = tiny_model(**sample).distribution_loss
    tiny_model.config.distribution_loss_reduction = "mean"
    mean = tiny_model(**sample).distribution_loss
    assert mean.item() == pytest.approx(summed.item() * tiny_model.config.reg_max / 6, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_targets": torch.zeros(3, 2)}, "1 <TIME_STAMP> tokens, but there are 3 intervals"),
        ({"time_targets": None}, "1 supervised <TIME_STAMP> tokens have no time_targets"),
        ({"frame_times": torch.zeros(5)}, "3 <FRAME_TIME_REF> tokens, but there are 5 entries"),
        ({"pixel_values": torch.zeros(2, 3, 8, 8)}, "3 <IMG_CONTEXT> tokens, but there are 2"),
    ],
)
def test_counts_that_do_not_match_are_errors(tiny_model, change, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**video_sample(1, 1) | change)


# ---------------------------------------------------------------------- generation


class Scripted(LogitsProcessor):
    """Give every row its own token ids; rows are told apart by their order."""

    def __init__(self, scripts: list[list[int]], prompt_length: int):
        self.scripts, self.prompt_length = scripts, prompt_length

    def __call__(self, input_ids, scores):
        step = input_ids.shape[1] - self.prompt_length
        forced = torch.full_like(scores, -torch.inf)
        for row, script in enumerate(self.scripts):
            forced[row, script[min(step, len(script) - 1)]] = 0
        return forced


# Times at different steps, twice running, none at all, and as the very last token allowed.
SCRIPTS = [
    [TIME, 12, TIME, TIME, IM_END],
    [13, 14, IM_END],
    [15, TIME, IM_END],
    [16, 17, 18, 19, 20, TIME],
]


def prompt(sample: dict) -> dict[str, torch.Tensor]:
    """The question of a sample without its answer."""
    length = int((sample["labels"][0] == -100).sum())
    parts = {"input_ids": sample["input_ids"][:, :length]}
    return parts | {key: sample[key] for key in ("pixel_values", "frame_times") if key in sample}


def generate(model, batch, scripts, **kwargs):
    length = batch["input_ids"].shape[1]
    output = model.generate(
        **batch,
        max_new_tokens=6,
        return_dict_in_generate=True,
        logits_processor=LogitsProcessorList([Scripted(scripts, length)]),
        **kwargs,
    )
    return output, output.sequences[:, length:]


def assert_answers_equal(outputs, new_ids, alone) -> None:
    for row, (output, ids) in enumerate(alone):
        kept = ids[0]
        assert torch.equal(new_ids[row, : len(kept)], kept)
        torch.testing.assert_close(outputs.times[row], output.times[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            outputs.time_distributions[row], output.time_distributions[0], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("use_cache", [True, False])
def test_generated_batch_equals_one_by_one(tiny_model, use_cache):
    prompts = [prompt(sample) for sample in samples()]
    alone = [
        generate(tiny_model, part, [script], use_cache=use_cache)
        for part, script in zip(prompts, SCRIPTS, strict=True)
    ]
    batch = pad(prompts, "left")
    output, new_ids = generate(tiny_model, batch, SCRIPTS, use_cache=use_cache)
    assert [len(times) for times in output.times] == [3, 0, 1, 1]
    assert_answers_equal(output, new_ids, alone)


def test_free_generation_of_a_batch_equals_one_by_one(tiny_model):
    with torch.no_grad():  # wherever the model would say 18, it now names a time
        tiny_model.lm_head.weight[TIME] = tiny_model.lm_head.weight[18] * 1.5
    prompts = [prompt(sample) for sample in samples()]
    settings = {"max_new_tokens": 12, "return_dict_in_generate": True}
    output = tiny_model.generate(**pad(prompts, "left"), **settings)
    new_ids = output.sequences[:, -12:]
    assert (new_ids == TIME).any()
    alone = []
    for part in prompts:
        single = tiny_model.generate(**part, **settings)
        alone.append((single, single.sequences[:, part["input_ids"].shape[1] :]))
    assert_answers_equal(output, new_ids, alone)


def test_shared_prefix_answers_as_one_by_one(tiny_model):
    items, prefix_length = items_about_one_video()
    prompts = [prompt(item) for item in items]
    alone = [
        generate(tiny_model, part, [script]) for part, script in zip(prompts, SCRIPTS, strict=False)
    ]
    media = {key: prompts[0][key] for key in ("pixel_values", "frame_times")}
    prefix = tiny_model.encode_prefix(prompts[0]["input_ids"][:, :prefix_length], **media)
    suffixes = pad([{"input_ids": p["input_ids"][:, prefix_length:]} for p in prompts], "left")
    length = suffixes["input_ids"].shape[1]
    for _ in range(2):  # the prefix can be used again
        output = tiny_model.generate_from_prefix(
            prefix,
            **suffixes,
            max_new_tokens=6,
            return_dict_in_generate=True,
            logits_processor=LogitsProcessorList([Scripted(SCRIPTS[:3], length)]),
        )
        assert_answers_equal(output, output.sequences[:, length:], alone)


def test_fed_embedding_is_that_of_the_decoded_time(tiny_model):
    """A generated time must act on what follows just as the same time given in the prompt."""
    part = prompt(video_sample(1, 1))
    output, new_ids = generate(tiny_model, part, [[TIME, 12, IM_END]], output_logits=True)
    again = tiny_model(
        **part | {"input_ids": torch.cat([part["input_ids"], new_ids], 1)},
        time_targets=output.times[0],
    )
    last = part["input_ids"].shape[1]
    torch.testing.assert_close(again.logits[0, last], output.logits[1][0], rtol=0, atol=1e-5)


def test_times_of_the_prompt_are_used_when_given(tiny_model):
    sample = video_sample(2, 2)
    part = prompt(sample) | {"input_ids": sample["input_ids"][:, :-2]}
    plain = tiny_model.generate(**part, max_new_tokens=1, return_dict_in_generate=True,
                                output_logits=True)  # fmt: skip
    timed = tiny_model.generate(**part, time_targets=sample["time_targets"], max_new_tokens=1,
                                return_dict_in_generate=True, output_logits=True)  # fmt: skip
    assert (plain.logits[0] != timed.logits[0]).any()
    assert [len(times) for times in timed.times] == [int(timed.sequences[0, -1] == TIME)]


def test_several_samples_of_each_prompt(tiny_model):
    prompts = [prompt(video_sample(1, 1)), prompt(video_sample(2, 1, frames=2))]
    batch = pad(prompts, "left")
    scripts = [[TIME, IM_END]] * 4
    output, _ = generate(tiny_model, batch, scripts, do_sample=True, num_return_sequences=2)
    alone = [generate(tiny_model, part, [[TIME, IM_END]])[0].times[0] for part in prompts]
    for row, times in enumerate(output.times):
        torch.testing.assert_close(times, alone[row // 2], rtol=0, atol=1e-5)


def test_generation_runs_the_same_modules_whatever_is_emitted(tiny_model):
    """Under ZeRO-3 a rank that left one out would keep the others waiting."""
    calls = []
    for name in ("time_encoder", "time_decoder"):
        module = getattr(tiny_model, name)
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    sample = video_sample(1, 0)
    inputs = {key: sample[key] for key in ("input_ids", "pixel_values", "frame_times")}
    seen = []
    for suppressed in ([TIME, IM_END], [token for token in range(VOCABULARY) if token != TIME]):
        calls.clear()
        output = tiny_model.generate(
            **inputs, suppress_tokens=suppressed, max_new_tokens=3, return_dict_in_generate=True
        )
        seen.append((len(output.times[0]), list(calls)))
    (none, without), (three, with_times) = seen
    assert (none, three) == (0, 3)
    assert without == with_times


def test_streaming(tiny_model):
    class Collect:
        def __init__(self):
            self.tokens = []

        def put(self, tokens):
            self.tokens += tokens.flatten().tolist()

        def end(self):
            self.tokens.append("end")

    collect, part = Collect(), prompt(video_sample(1, 1))
    _, new_ids = generate(tiny_model, part, [[12, TIME, IM_END]], streamer=collect)
    assert collect.tokens == part["input_ids"][0].tolist() + new_ids[0].tolist() + ["end"]


def test_beam_search_is_refused(tiny_model):
    with pytest.raises(ValueError, match="Use num_beams=1"):
        tiny_model.generate(**prompt(video_sample(1, 1)), num_beams=2, max_new_tokens=2)
