"""What must hold of DisTime on any backbone that is registered."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import pytest
import torch
from backbone_samples import assert_same, padded_left, video, words
from plain_classes import PLAIN_CLASS, PLAIN_INPUTS
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
)

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.conversion import convert
from distime.engine import Decoding, Engine, Job
from distime.engine.batch import Row
from distime.processing.answers import read_answer
from distime.processing.subtitles import Subtitle, SubtitledProcessor
from distime.processing.video import VideoError

# ------------------------------------------------------------------ training


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_is_the_mean_of_its_samples(tiny, side):
    groups = tiny.groups()
    alone = tiny.mean_of([tiny.collate([group]) for group in groups])
    batch = tiny.collate(*[[group] for group in groups])
    assert_same(tiny.loss_and_gradients(padded_left(batch) if side == "left" else batch), alone)


def test_packed_is_separate(tiny):
    groups = tiny.groups()
    alone = tiny.mean_of([tiny.collate([group]) for group in groups])
    assert_same(tiny.loss_and_gradients(tiny.collate(groups[:3], groups[3:])), alone)
    assert_same(tiny.loss_and_gradients(tiny.collate(groups)), alone)


def test_a_shared_prefix_is_separate(tiny):
    if reason := tiny.model.limits.get("share_video_prefix"):
        pytest.skip(reason)
    first, second, items = video(1), video(2, frames=6), [(1, 1), (2, 0), (3, 3)]
    shared = [tiny.about_video(first, *items), tiny.about_video(second, *items[1:])]
    alone = [tiny.about_video(first, item) for item in items]
    alone += [tiny.about_video(second, item) for item in items[1:]]
    expected = tiny.mean_of([tiny.collate([group]) for group in alone])
    assert_same(tiny.loss_and_gradients(tiny.collate(*[[group] for group in shared])), expected)
    assert_same(tiny.loss_and_gradients(tiny.collate(shared)), expected)


def test_every_parameter_has_a_gradient_whatever_the_batch(tiny):
    groups = (tiny.text((1, 0)), tiny.about_image((2, 0)), tiny.about_video(video(1), (3, 1)))
    for group in groups:
        _, gradients = tiny.loss_and_gradients(tiny.collate([group]))
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_features_stand_for_pixels(tiny):
    batch = tiny.collate(*[[group] for group in tiny.groups()])
    expected = tiny.loss_and_gradients(batch)[0]
    tiny.model.eval()
    with torch.no_grad():
        features = tiny.model.features(batch.pop("pixel_values"), batch.get("image_grid_thw"))
    assert features.shape == (len(features), tiny.model.feature_width)
    tiny.model.train()
    actual = torch.stack(
        [
            getattr(tiny.model(**batch, image_features=features), name).detach()
            for name in ("loss", "text_loss", "distribution_loss", "iou_loss")
        ]
    )
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_every_parameter_is_of_one_part(tiny):
    parts = tiny.model.parts
    kinds = (parts.vision, parts.projector, (parts.language_model,), (parts.head,))
    kinds += (("time_encoder", "time_decoder"),)
    for name, _ in tiny.model.named_parameters():
        assert sum(name.startswith(kind) for kind in kinds) == 1, name
    for name in (parts.vision_module, parts.language_model, parts.embedding, parts.head):
        tiny.model.get_submodule(name)


# ------------------------------------------------------------------ answering


class Scripted(LogitsProcessor):
    """Give every row its own token ids."""

    def __init__(self, scripts: list[list[int]], prompt_length: int):
        self.scripts, self.prompt_length = scripts, prompt_length

    def __call__(self, input_ids, scores):
        step = input_ids.shape[1] - self.prompt_length
        forced = torch.full_like(scores, -torch.inf)
        for row, script in enumerate(self.scripts):
            forced[row, script[min(step, len(script) - 1)]] = 0
        return forced


DECODING = Decoding(max_new_tokens=6)
QUESTIONS = [words(seed, 2 + seed) for seed in range(4)]
VIDEOS = [video(1), video(2, frames=6, height=100, width=60), video(3), video(4, frames=2)]


def scripts(tiny) -> list[list[int]]:
    """Times at different steps, twice running, none at all, and as the very last token."""
    time, end = tiny.processor.token_ids.time_stamp, tiny.processor.token_ids.im_end
    a, b, c = tiny.processor.tokenizer("red square walk", add_special_tokens=False).input_ids
    return [[time, a, time, time, end], [b, c, end], [c, time, end], [a, a, b, b, c, time]]


def generate(tiny, inputs, forced, call=None, **options):
    length = inputs["input_ids"].shape[1]
    output = (call or tiny.model.generate)(
        **inputs,
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_logits=True,
        logits_processor=LogitsProcessorList([Scripted(forced, length)]),
        **options,
    )
    return output, output.sequences[:, length:]


def alone(tiny, videos=VIDEOS):
    return [
        generate(tiny, tiny.processor(one, question), [script])
        for one, question, script in zip(videos, QUESTIONS, scripts(tiny), strict=True)
    ]


def assert_answers_equal(output, new_ids, singles) -> None:
    for row, (single, ids) in enumerate(singles):
        kept = ids.shape[1]
        assert torch.equal(new_ids[row, :kept], ids[0])
        torch.testing.assert_close(output.times[row], single.times[0], rtol=0, atol=1e-5)
        for step in range(kept):
            actual, expected = output.logits[step][row], single.logits[step][0]
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_batch_is_answered_as_one_by_one(tiny, use_cache):
    inputs = tiny.processor(VIDEOS, QUESTIONS)
    output, new_ids = generate(tiny, inputs, scripts(tiny), use_cache=use_cache)
    assert [len(times) for times in output.times] == [3, 0, 1, 1]
    assert_answers_equal(output, new_ids, alone(tiny))


def test_a_shared_prefix_answers_as_one_by_one(tiny):
    singles = alone(tiny, [VIDEOS[1]] * 4)
    other = tiny.processor.shared_prefix(VIDEOS[0], QUESTIONS)
    inputs = tiny.processor.shared_prefix(VIDEOS[1], QUESTIONS)
    prefix = tiny.model.encode_prefix(**inputs.prefix)
    tiny.model.encode_prefix(**other.prefix)  # must leave no trace in the model
    for _ in range(2):
        output, new_ids = generate(
            tiny,
            inputs.suffixes,
            scripts(tiny),
            lambda **options: tiny.model.generate_from_prefix(prefix, **options),
        )
        assert_answers_equal(output, new_ids, singles)


def test_a_prefix_leaves_out_only_what_no_question_needs(tiny):
    inputs = tiny.processor.shared_prefix(VIDEOS[0], QUESTIONS).prefix
    whole = tiny.model.encode_prefix(**inputs, whole_pass=True)
    ran = []
    for module in tiny.model.get_submodule(tiny.model.parts.language_model).layers:
        module.mlp.register_forward_hook(lambda *_: ran.append(1))
    prefix = tiny.model.encode_prefix(**inputs)
    assert len(ran) == tiny.model.config.get_text_config().num_hidden_layers - 1
    assert (prefix.length, prefix.next_position) == (whole.length, whole.next_position)
    for mine, theirs in zip(prefix.cache.layers, whole.cache.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)


def test_the_engine_answers_as_one_by_one(tiny):
    """Rows of videos of different lengths, each behind its own prefix, decoded together."""
    processor = tiny.processor
    jobs = [Job(lambda v=v: processor.shared_prefix(v, QUESTIONS[:2]), DECODING) for v in VIDEOS]
    engine = Engine(tiny.model, processor, max_rows=3)
    found = {job.job: job.first_answers() for job in engine.run(jobs)}
    for job, one in zip(jobs, VIDEOS, strict=True):
        for answer, question in zip(found[job], QUESTIONS, strict=False):
            inputs = processor(one, question)
            output = tiny.model.generate(
                **inputs,
                max_new_tokens=6,
                min_new_tokens=1,
                do_sample=False,
                return_dict_in_generate=True,
            )
            new_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
            expected = read_answer(
                processor, new_ids, output.times[0], output.time_distributions[0], one.duration
            )
            assert answer.text == expected.text
            assert len(answer.events) == len(expected.events)
            for event, other in zip(answer.events, expected.events, strict=True):
                assert event.start == pytest.approx(other.start, abs=1e-3)


class ScriptedChoice:
    """Stands for `distime.engine.batch.choose`: a job's seed names its script.

    Attributes:
        logits: what the model said before each token, by seed and step, each time it said it.
    """

    def __init__(self, scripts: list[list[int]]):
        self.scripts, self.logits = scripts, defaultdict(list)

    def __call__(self, logits, decodings, generators, lengths, end_id):
        for row, decoding, length in zip(logits, decodings, lengths, strict=True):
            self.logits[decoding.seed, length].append(row.clone())
        return [self.scripts[d.seed][n] for d, n in zip(decodings, lengths, strict=True)]


@pytest.fixture
def scripted(tiny, monkeypatch) -> ScriptedChoice:
    choice = ScriptedChoice(scripts(tiny))
    monkeypatch.setattr("distime.engine.batch.choose", choice)
    return choice


def scripted_jobs(tiny, order, **options) -> list[Job]:
    """Jobs about a video with the question and the script of its number."""
    return [
        Job(
            partial(tiny.processor.shared_prefix, VIDEOS[number], QUESTIONS[number : number + 1]),
            Decoding(max_new_tokens=6, seed=number),
            tag=number,
            **options,
        )
        for number in order
    ]


@pytest.mark.parametrize(("max_rows", "tokens"), [(3, 100_000), (4, 1)])
def test_the_engine_says_at_every_step_what_is_said_alone(tiny, scripted, max_rows, tokens):
    """Prompts and answers of different lengths, times at different steps, rows that leave and
    enter on either side of others, a budget that holds no two rows, and a video that fails."""

    def broken():
        raise VideoError("cut off")

    jobs = scripted_jobs(tiny, [0, 1, 2, 3, 1, 1, 0, 3, 2, 0])
    jobs[5].load = broken
    engine = Engine(tiny.model, tiny.processor, max_rows=max_rows, max_batch_tokens=tokens)
    finished = list(engine.run(jobs))
    assert [one.error for one in finished].count(None) == 9
    expected = alone(tiny)
    for one in finished:
        if one.job is jobs[5]:
            assert isinstance(one.error, VideoError)
            continue
        (answer,), (output, new_ids) = one.first_answers(), expected[one.job.tag]
        assert answer.text == tiny.processor.decode(new_ids[0])
        found = torch.tensor([[event.start, event.end] for event in answer.events]).view(-1, 2)
        times = output.times[0].to(found.dtype) * VIDEOS[one.job.tag].duration
        torch.testing.assert_close(found, times, rtol=0, atol=1e-3)
    for (number, step), said in scripted.logits.items():
        for logits in said:
            single = expected[number][0].logits[step][0]
            torch.testing.assert_close(logits, single, rtol=1e-4, atol=1e-4)


def test_a_run_that_goes_on_answers_as_one_that_never_stopped(tiny, scripted):
    def answers(*groups):
        jobs = [
            job
            for group in groups
            for job in scripted_jobs(tiny, [(group + i) % 4 for i in range(5)], group=group)
        ]
        found = {}
        for one in Engine(tiny.model, tiny.processor, max_rows=3).run(jobs):
            found.setdefault(one.job.group, []).append(
                (one.job.tag, [answer.to_dict() for answer in one.first_answers()])
            )
        return found

    whole = answers(0, 1, 2)
    assert answers(1, 2) == {group: whole[group] for group in (1, 2)}


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU: values, or sizes, that Python asks a tensor for."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        tolist = torch.Tensor.tolist

        def counted(tensor):
            self.count += 1
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        aten = torch.ops.aten
        packets = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal)
        self.count += operator.overloadpacket in packets
        if operator.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            indices = [index for index in args[1] if index is not None]
            self.count += any(index.dtype == torch.bool for index in indices)
        return operator(*args, **(kwargs or {}))


def test_a_step_waits_once_for_the_device(tiny, monkeypatch):
    """For the tokens that it chose, which say whether rows end."""
    time_id = tiny.processor.token_ids.time_stamp
    batch = Engine(tiny.model, tiny.processor).batch()
    for number, one in enumerate(VIDEOS[:3]):
        inputs = tiny.processor.shared_prefix(one, QUESTIONS[number : number + 1])
        decoding = Decoding(max_new_tokens=9, min_new_tokens=9)
        row = Row(number, inputs.suffixes["input_ids"][0].tolist(), decoding)
        batch.enter(tiny.model.encode_prefix(**inputs.prefix), [row])
    for with_time in (False, True, False):
        with Waits(monkeypatch) as waits:
            batch.choose()
            if with_time:  # as if it had been chosen
                batch.rows[1].ids[-1] = time_id
                batch.rows[1].intervals.append(torch.tensor([0.2, 0.4]))
            batch.feed()
        assert waits.count == 1


def test_generation_is_a_forward_pass_over_its_result(tiny):
    inputs = tiny.processor(VIDEOS[1], QUESTIONS[0])
    length = inputs["input_ids"].shape[1]
    output, new_ids = generate(tiny, inputs, scripts(tiny)[:1])
    inputs.pop("durations")
    inputs["input_ids"] = output.sequences
    inputs["attention_mask"] = torch.ones_like(output.sequences)
    with torch.no_grad():
        whole = tiny.model(**inputs, time_targets=output.times[0])
    for step in range(new_ids.shape[1]):
        actual, expected = whole.logits[0, length - 1 + step], output.logits[step][0]
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_several_answers_to_every_prompt(tiny):
    inputs = tiny.processor(VIDEOS[:2], QUESTIONS[:2])
    forced = [script for script in scripts(tiny)[:2] for _ in range(2)]
    options = {"do_sample": True, "num_return_sequences": 2}
    output, new_ids = generate(tiny, inputs, forced, **options)
    singles = [single for single in alone(tiny)[:2] for _ in range(2)]
    assert_answers_equal(output, new_ids, singles)


def test_two_videos_never_give_equal_logits(tiny):
    a, b = (tiny.processor(one, QUESTIONS[0]) for one in (video(1), video(9)))
    b["frame_times"] = a["frame_times"]
    logits = []
    for inputs in (a, b):
        inputs.pop("durations")
        with torch.no_grad():
            logits.append(tiny.model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_subtitles_stand_between_slots(tiny, monkeypatch):
    sample = VIDEOS[1]
    monkeypatch.setattr(DisTimeProcessor, "load_video", lambda *_, **__: sample)
    said = [Subtitle(0, 20, "red"), Subtitle(sample.times[-1] - 1, sample.times[-1] + 1, "blue")]
    processor = SubtitledProcessor(tiny.processor, lambda _: said)
    inputs = processor([processor.load_video("x.mp4")], ["where?"])
    plain = tiny.processor([sample], ["where?"])
    slots = len(inputs["frame_times"])
    assert slots == (inputs["input_ids"] == processor.token_ids.frame_time_ref).sum()
    assert inputs["input_ids"].shape[1] > plain["input_ids"].shape[1]
    inputs.pop("durations")
    with torch.no_grad():
        assert tiny.model(**inputs).logits.isfinite().all()


# ------------------------------------------------------------------ misuse


def test_an_unknown_keyword_is_an_error(tiny):
    inputs = tiny.processor(VIDEOS[0], QUESTIONS[0])
    pixels, _ = inputs.pop("pixel_values"), inputs.pop("durations")
    with pytest.raises(TypeError, match="pixel_value'; did you mean pixel_values"):
        tiny.model(**inputs, pixel_value=pixels)
    with pytest.raises((TypeError, ValueError)):
        tiny.model.generate(**inputs, pixel_value=pixels, max_new_tokens=1)
    with pytest.raises(TypeError):
        tiny.model.encode_prefix(inputs["input_ids"], pixel_value=pixels)


@pytest.mark.parametrize("training", [False, True])
def test_what_does_not_match_its_tokens_is_an_error(tiny, training):
    tiny.model.train(training)
    batch = tiny.collate([tiny.about_video(video(1), (1, 1))])
    text = tiny.collate([tiny.text((2, 0))])
    media = {k: batch[k] for k in ("pixel_values", "image_grid_thw") if k in batch}
    slots = len(batch["frame_times"])
    without = {k: v for k, v in batch.items() if k not in media}
    cases = [
        (without, "tokens, but there are 0 embeddings"),
        (text | media, "0 .* tokens, but there are .* embeddings"),
        (batch | {"frame_times": None}, f"{slots} <FRAME_TIME_REF> tokens, but there are 0"),
        (text | {"frame_times": torch.zeros(2)}, "0 <FRAME_TIME_REF> tokens, but there are 2"),
        (batch | {"time_targets": torch.zeros(3, 2)}, "1 <TIME_STAMP> tokens, but there are 3"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            tiny.model(**arguments)


def test_a_prompt_that_lacks_its_pictures_is_not_answered(tiny):
    inputs = dict(tiny.processor(VIDEOS[0], QUESTIONS[0]))
    for name in ("pixel_values", "image_grid_thw"):
        inputs.pop(name, None)
    with pytest.raises(ValueError):
        tiny.model.generate(**inputs, max_new_tokens=1)


# ------------------------------------------------------------------ checkpoints


def test_saved_and_loaded(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    inputs = dict(tiny.processor(VIDEOS[0], QUESTIONS[0]))
    inputs.pop("durations")
    with torch.no_grad():
        expected = tiny.model(**inputs).logits
    ours = (
        DisTimeForConditionalGeneration.from_pretrained(tmp_path),
        DisTimeProcessor.from_pretrained(tmp_path),
    )
    theirs = (
        AutoModelForImageTextToText.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    )
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(tiny.model.config)
    for model, processor in (ours, theirs):
        assert type(model) is type(tiny.model)
        assert processor.settings == tiny.processor.settings
        processor.check_model(model.config)
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits, expected)


def test_converted_to_the_same_layout(folder, tmp_path):
    """Every tensor and the tokenizer are compared by `convert` itself, and again here."""
    convert(folder, tmp_path / "again")
    one, two = (
        DisTimeForConditionalGeneration.from_pretrained(path).state_dict()
        for path in (folder, tmp_path / "again")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "frames" in (tmp_path / "again" / "README.md").read_text()


def test_a_configuration_makes_a_model_of_its_backbone(tiny):
    assert type(DisTimeForConditionalGeneration(tiny.model.config)) is type(tiny.model)


def test_every_option_of_the_processor_is_kept(tiny, tmp_path):
    tiny.processor.save_pretrained(tmp_path)
    again = DisTimeProcessor.from_pretrained(tmp_path)
    assert again.settings == tiny.processor.settings
    assert again.backbone is tiny.processor.backbone


# ------------------------------------------------------------------ the plain class


@pytest.mark.parametrize("kind", ["text", "image", "video"])
def test_without_times_it_is_the_plain_class(tiny, kind):
    group = {
        "text": lambda: tiny.text((2, 0)),
        "image": lambda: tiny.about_image((4, 0)),
        "video": lambda: tiny.about_video(VIDEOS[1], (3, 0)),
    }[kind]()
    batch = tiny.collate([group])
    ids = batch["input_ids"]
    slot = ids == tiny.processor.token_ids.frame_time_ref
    ids[slot] = tiny.processor.tokenizer("red", add_special_tokens=False).input_ids[0]
    names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
    inputs = {name: batch[name] for name in names if name in batch}
    name = tiny.processor.backbone.name
    plain = PLAIN_CLASS[name](tiny.model.config).eval()
    plain.load_state_dict(tiny.model.state_dict(), strict=False)
    with torch.no_grad():
        ours = tiny.model(**inputs)
        theirs = plain.model(**PLAIN_INPUTS[name](plain, inputs))
    expected = theirs.last_hidden_state
    torch.testing.assert_close(ours.last_hidden_state, expected, rtol=0, atol=1e-5)
