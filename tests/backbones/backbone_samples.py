"""Samples of every kind, made with a backbone's own processor as training makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.collator import FOR_TRAINER, Collator
from distime.data.dataset import SampleGroup
from distime.processing.prompt import Media, encode_conversation, encode_items
from distime.processing.sampling import VideoSample

WORDS = ["a red circle and blue square walk , run or stand at ? from to then the event is"]
_VOCABULARY = WORDS[0].split()
DURATION = 20.0


def words(seed: int, count: int) -> str:
    """Some words of the vocabulary."""
    return " ".join(np.random.default_rng(seed).choice(_VOCABULARY, count))


def video(seed: int, frames: int = 4, height: int = 60, width: int = 80) -> VideoSample:
    """Random blocks of colour, so that resizing leaves them apart."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (frames, 4, 4, 3), dtype=np.uint8)
    big = [np.asarray(Image.fromarray(one).resize((width, height), 0)) for one in small]
    times = np.sort(generator.uniform(0, DURATION, frames)).tolist()
    return VideoSample(np.stack(big), times, DURATION, list(range(frames)))


def answer(seed: int, events: int) -> str:
    """A sentence with some times."""
    parts = [f"{words(seed + event, 2)} <TIME_STAMP>" for event in range(events)]
    return " ".join([*parts, words(seed + 7, 3)])


def turns(seed: int, events: int) -> list[dict[str, str]]:
    """One question and its answer."""
    question = {"from": "human", "value": words(seed, 3 + seed % 3)}
    return [question, {"from": "gpt", "value": answer(seed, events)}]


def targets(seed: int, events: int) -> Tensor:
    """Normalised intervals `(events, 2)`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(events, 2, generator=generator).sort(-1).values


@dataclass
class Tiny:
    """A tiny model with its processor."""

    model: DisTimeForConditionalGeneration
    processor: DisTimeProcessor

    # ------------------------------------------------------------------ groups of samples

    def group(self, media: Media, items, tensors=None, times=None) -> SampleGroup:
        """Items, each (seed, events), about the same media."""
        processor = self.processor
        conversations = [turns(seed, events) for seed, events in items]
        arguments = processor.tokenizer, processor.template
        if len(items) == 1:
            prefix, encoded = [], [encode_conversation(*arguments, conversations[0], media)]
        else:
            prefix, encoded = encode_items(*arguments, media, conversations)
        tensors = tensors or processor.backbone.images([], processor.settings)
        return SampleGroup(
            prefix,
            encoded,
            [targets(seed, events) for seed, events in items],
            frame_times=torch.zeros(0) if times is None else times,
            places=[""] * len(items),
            **tensors,
        )

    def about_video(self, sample: VideoSample, *items: tuple[int, int]) -> SampleGroup:
        """Items about one video."""
        processor = self.processor
        tensors = processor.backbone.video(sample.frames, processor.settings)
        times = processor.frame_times(sample)
        return self.group(processor.video_media(sample), items, tensors, times)

    def about_image(self, item: tuple[int, int]) -> SampleGroup:
        """An item about one image."""
        backbone, settings = self.processor.backbone, self.processor.settings
        picture = Image.fromarray(video(50, 1, 70, 90).frames[0])
        media = backbone.image_media([picture.size], settings)
        return self.group(media, [item], backbone.images([picture], settings))

    def text(self, item: tuple[int, int]) -> SampleGroup:
        """An item without media."""
        return self.group(Media(), [item])

    def groups(self) -> list[SampleGroup]:
        """Every modality; 0, 1, 2 and 3 events; videos of several lengths and sizes."""
        return [
            self.about_video(video(1), (1, 1)),
            self.text((2, 0)),
            self.about_video(video(3, frames=6, height=100, width=60), (3, 3)),
            self.about_image((4, 0)),
            self.about_video(video(5, frames=2), (5, 2)),
        ]

    # ------------------------------------------------------------------ batches

    def collate(self, *rows: list[SampleGroup]) -> dict[str, Tensor]:
        """Arguments of `forward`, as training makes them."""
        collator = Collator(self.processor.token_ids.pad, self.processor.positions)
        return {k: v for k, v in collator(rows).items() if k not in FOR_TRAINER}

    def loss_and_gradients(self, batch: dict[str, Tensor]):
        """The losses of a training step and the gradient of every parameter."""
        self.model.train().zero_grad()
        output = self.model(**batch)
        output.loss.backward()
        names = ("loss", "text_loss", "distribution_loss", "iou_loss")
        losses = torch.stack([getattr(output, name).detach() for name in names])
        unused = self.model.parts.unused
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.model.named_parameters()
            if not name.startswith(unused)
        }
        return losses, gradients

    def mean_of(self, batches: list[dict[str, Tensor]]):
        """Mean of the losses and gradients of several steps."""
        parts = [self.loss_and_gradients(batch) for batch in batches]
        losses = torch.stack([losses for losses, _ in parts]).mean(0)
        names = parts[0][1]
        return losses, {n: torch.stack([g[n] for _, g in parts]).mean(0) for n in names}


def assert_same(actual, expected) -> None:
    """Compare two results of `loss_and_gradients`."""
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-4, atol=1e-5)
    for name, gradient in actual[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-3, atol=1e-5, msg=name)


def padded_left(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the padding of a batch that is padded on the right."""
    lengths = batch["attention_mask"].sum(-1).tolist()
    width = batch["attention_mask"].shape[1]
    moved = dict(batch)
    for name in ("input_ids", "labels", "attention_mask", "position_ids"):
        if name in batch:
            rows = [
                batch[name][..., row, :].roll(width - length, -1)
                for row, length in enumerate(lengths)
            ]
            moved[name] = torch.stack(rows, dim=-2)
    return moved
