"""A model that answers with words and times, videos to ask about, and answers one by one."""

from __future__ import annotations

import pytest
import torch

from answering import QUERIES, write_answering_checkpoint
from distime import DisTime
from distime.processing.sampling import VideoSample
from distime.toy.synthetic import make_video, render


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> DisTime:
    folder = write_answering_checkpoint(tmp_path_factory.mktemp("engine") / "checkpoint")
    return DisTime.from_pretrained(folder, dtype=torch.float64, device="cpu")


@pytest.fixture(scope="session")
def inputs(model):
    """Seven videos of different lengths with one to four questions each."""
    made = []
    for number in range(7):
        spec = make_video(number)
        count = 2 + number % 4
        frames = render(spec)[20 :: 120 // count][:count]
        times = [(i + 0.5) * spec.duration / count for i in range(count)]
        sample = VideoSample(frames, times, spec.duration, list(range(count)))
        asked = [f"{'and then ' * (number + i)}{QUERIES[i % 3]}" for i in range(1 + number % 4)]
        made.append(model.processor.shared_prefix(sample, asked))
    return made


def alone(model: DisTime, inputs, max_new_tokens: int = 24):
    """Each question by itself, by `generate` of transformers."""
    answers = []
    for number in range(len(inputs.suffixes["input_ids"])):
        mask = inputs.suffixes["attention_mask"][number].bool()
        output = model.model.generate_from_prefix(
            model.model.encode_prefix(**inputs.prefix),
            inputs.suffixes["input_ids"][number][mask][None],
            do_sample=False,
            min_new_tokens=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=model.processor.token_ids.im_end,
            pad_token_id=model.processor.token_ids.pad,
            return_dict_in_generate=True,
        )
        new = output.sequences[0, int(mask.sum()) :]
        answers.append((model.processor.decode(new), output.times[0]))
    return answers


def check(found, expected, duration):
    assert [answer.text for answer in found] == [text for text, _ in expected]
    for answer, (_, times) in zip(found, expected, strict=True):
        mine = torch.tensor([[event.start, event.end] for event in answer.events])
        torch.testing.assert_close(
            mine.view(-1, 2) / duration, times.to(mine.dtype), atol=1e-6, rtol=0
        )
