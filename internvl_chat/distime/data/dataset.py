"""Training data: from annotation lines to token sequences with their pixels and times.

The unit is a *group*: the items that are trained behind one copy of their video's frames, or a
single item. What `__getitem__` returns depends on the index and the settings alone, not on workers,
ranks or what was read before, so that a run can be repeated, resumed and spread differently.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distime.data.features import FeatureCache, LoadedMedia
from distime.data.grouping import group_items
from distime.data.lengths import count_lengths
from distime.data.lines import JsonlIndex
from distime.data.meta import DataSource, read_meta
from distime.data.problems import AnnotationError
from distime.data.schema import (
    TrainingItem,
    beyond,
    clamp_targets,
    cut_off,
    in_own_words,
    read_item,
    refuse_beyond,
)
from distime.errors import DisTimeError
from distime.processing.image import ImageError, jpeg_augment, load_image
from distime.processing.processor import DisTimeProcessor
from distime.processing.prompt import Encoded, Media, PromptError, encode_conversation, share_prefix
from distime.processing.video import VideoError
from distime.progress import progress

logger = logging.getLogger(__name__)

BAD_SAMPLE = (AnnotationError, ImageError, PromptError, VideoError, OSError)
_SUBSTITUTES_TRIED = 20


class DataError(DisTimeError):
    """The training data cannot be used; the message says why and what to change."""


@dataclass
class DataSettings:
    """How items become sequences.

    Attributes:
        min_num_frame: frames of a video are drawn uniformly from here ...
        max_num_frame: ... to here, both included; not used where the processor goes by `fps`.
        sampling_method: "rand" draws a frame from each of equal segments, "middle" takes the
            middle one, "eval" follows the evaluation rule, "by_time" draws a moment from each of
            equal segments of the time (the others count frames, as published).
        max_seq_length: longest sequence in tokens; see `encode_conversation` for what may be cut.
        share_video_prefix: train the items of a video behind one copy of its frames.
        max_items_per_group: most items behind one copy.
        dynamic_image_size: cut still images into tiles, as the processor's settings say.
        cache_samples: keep every prepared group in memory, with the frames first drawn for it
            (small data sets, many epochs).
        cache_features: folder that keeps what the frozen vision tower and projector make of the
            media, see `distime.data.features`; empty for none.
        sampling_seed: of every random choice that preparing a sample takes.
    """

    min_num_frame: int = 16
    max_num_frame: int = 16
    sampling_method: str = "rand"
    max_seq_length: int = 8192
    share_video_prefix: bool = False
    max_items_per_group: int = 64
    dynamic_image_size: bool = True
    cache_samples: bool = False
    cache_features: str = ""
    sampling_seed: int = 42

    def __post_init__(self):
        if not 1 <= self.min_num_frame <= self.max_num_frame:
            raise DataError(
                f"--min_num_frame {self.min_num_frame} and --max_num_frame {self.max_num_frame} "
                "must be 1 <= min <= max"
            )
        if self.sampling_method not in ("rand", "middle", "eval", "by_time"):
            raise DataError(
                f"--sampling_method {self.sampling_method}: choose rand, middle or eval, or by_time"
            )
        if self.max_seq_length < 1 or self.max_items_per_group < 1:
            raise DataError("--max_seq_length and --max_items_per_group must be at least 1")
        chance = (
            self.sampling_method in ("rand", "by_time") or self.min_num_frame < self.max_num_frame
        )
        if self.cache_features and chance:
            raise DataError(
                "--cache_features needs the same frames in every epoch: add --sampling_method "
                "middle, and the same --min_num_frame and --max_num_frame"
            )


@dataclass
class SampleGroup:
    """One copy of some media and the items trained behind it.

    Attributes:
        prefix_ids: token ids that all items share (empty when there is one item).
        items: what follows for each item.
        targets: per item the normalised intervals `(n, 2)` of its `<TIME_STAMP>` tokens.
        pixel_values: of the media, as the backbone has them, in uint8; no rows without media or
            with features.
        frame_times: `(R,)` normalised.
        places: `file:line` of each item.
        problems: one message for each broken item that was left out of the group, or that the whole
            group replaces.
        warnings: what of the items is not trained as it is written, one message each.
        num_clamped: intervals that reached past the end of the video and were cut.
        num_lost: intervals whose `<TIME_STAMP>` was cut off with the end of a sequence.
        image_features: `(N, W)` in place of the pixels; None without a cache of them.
        image_grid_thw: `(G, 3)`; None on a backbone whose pictures have one size.
        num_warned: items of a video with which something is wrong; the log names it.
        duration: of the video, in seconds; 1 where there is none.
    """

    prefix_ids: list[int]
    items: list[Encoded]
    targets: list[Tensor]
    pixel_values: Tensor
    frame_times: Tensor
    places: list[str]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    num_clamped: int = 0
    num_lost: int = 0
    image_features: Tensor | None = None
    image_grid_thw: Tensor | None = None
    num_warned: int = 0
    duration: float = 1.0


class TrainingData(Dataset):
    """The groups of all sources of a meta file.

    Args:
        meta_path: the meta file, see `docs/DATA.md`.
        processor: of the model that is trained.
        settings: see `DataSettings`.

    Attributes:
        features: where media are looked up instead of being decoded, if anywhere.
        groups: (number of the source, numbers of its items) of each group.

    Raises:
        AnnotationError: the meta file or an annotation file cannot be read.
        DataError: there is nothing to train on.
    """

    def __init__(
        self,
        meta_path: str | Path,
        processor: DisTimeProcessor,
        settings: DataSettings | None = None,
    ):
        self.processor = processor
        self.settings = settings or DataSettings()
        self.sources = read_meta(meta_path)
        self.indices = [JsonlIndex(source.annotation) for source in self.sources]
        self.groups = [
            (number, items)
            for number, (source, index) in enumerate(zip(self.sources, self.indices, strict=True))
            for items in self._grouped(source, index)
        ]
        self.features: FeatureCache | None = None
        self._cache: dict[int, tuple[SampleGroup, list[Exception]]] = {}
        self._media_cache: dict[tuple, LoadedMedia] = {}
        if not self.groups:
            raise DataError(f"{meta_path}: no items; is every annotation file empty?")
        num_items = sum(len(items) for _, items in self.groups)
        logger.info("%s: %d items in %d groups", meta_path, num_items, len(self.groups))

    def _grouped(self, source: DataSource, index: JsonlIndex) -> list[tuple[int, ...]]:
        numbers = source.sample_indices(len(index))
        if not self.settings.share_video_prefix:
            return [(number,) for number in numbers.tolist()]
        return group_items(index, numbers, self.settings.max_items_per_group)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def num_items(self) -> int:
        """Items of one epoch, repeats included."""
        return sum(len(items) for _, items in self.groups)

    def lengths(
        self, indices: Sequence[int] | None = None, show_progress: bool = True
    ) -> list[int]:
        """Tokens of groups, the shared ones once, computed without decoding a video.

        A group that cannot be read counts 0 tokens: it will be named when its turn comes.

        Args:
            indices: of the groups; all by default.
            show_progress: draw a bar if it takes more than two seconds.
        """
        indices = range(len(self)) if indices is None else indices
        lengths = count_lengths(self, indices)
        if show_progress:
            bar = {"desc": "token lengths", "unit": "group", "total": len(indices), "delay": 2}
            lengths = progress(lengths, **bar)
        return list(lengths)

    def expected_media(self, item: TrainingItem) -> Media:
        """What the prompt will need to know of an item's media, which are not decoded here.

        Raises:
            VideoError, ImageError: a file has to be opened for its size, and cannot be read.
        """
        if item.video is not None:
            by_length = self.processor.settings.fps is not None
            most = None if by_length else self.settings.max_num_frame
            return self.processor.expected_media(item.video, most)
        return self.processor.image_media(item.images, self.settings.dynamic_image_size)

    def read(self, index: int) -> tuple[list[TrainingItem], list[Exception]]:
        """Read the annotation lines of a group; the errors are of those that are no items."""
        number, members = self.groups[index]
        source, lines = self.sources[number], self.indices[number]
        items, errors = [], []
        for member in members:
            try:
                items.append(read_item(lines, member, source))
            except AnnotationError as error:
                errors.append(error)
        return items, errors

    def _first_item(self, index: int) -> TrainingItem:
        items, errors = self.read(index)
        if not items:
            raise errors[0]
        return items[0]

    def prepare(self, index: int, epoch: int = 0) -> SampleGroup:
        """Read, decode and tokenise a group; items of it that are broken are left out.

        Args:
            index: of the group.
            epoch: part of the seed of its random choices.

        Raises:
            AnnotationError, VideoError, ImageError, PromptError, OSError: all of its items are
                broken; the message names the first.
        """
        group, errors = self._prepare(index, epoch)
        if group is None:
            raise errors[0]
        return group

    def _prepare(self, index: int, epoch: int) -> tuple[SampleGroup | None, list[Exception]]:
        """Prepare the items of a group that can be; None if none can. The errors name the others.

        One item that is broken leaves the others of its group as they are.
        """
        if index in self._cache:
            return self._cache[index]
        rng = random.Random(f"{self.settings.sampling_seed} {epoch} {index}")
        items, errors = self.read(index)
        group = None
        try:
            if items:
                source = self.sources[self.groups[index][0]]
                group, broken = self._assemble(items, self._media(items[0], source, rng))
                errors += broken
        except BAD_SAMPLE as error:  # the media, which all the items need
            errors += [_placed(error, item) for item in items]
        if self.settings.cache_samples and group is not None:
            self._cache[index] = group, errors
        return group, errors

    def _assemble(
        self, items: list[TrainingItem], loaded: LoadedMedia
    ) -> tuple[SampleGroup | None, list[Exception]]:
        inside, errors = [], []
        for item in items:
            try:
                refuse_beyond(item.targets, loaded.duration)
                inside.append(item)
            except AnnotationError as error:
                errors.append(_placed(error, item))
        if not inside:
            return None, errors
        limit = self.settings.max_seq_length
        media = self.processor.with_slot_words(loaded.media, loaded.frame_times, loaded.duration)
        prefix, encoded, broken = self.encode(inside, media, limit, loaded.duration)
        errors += broken
        if not encoded:
            return None, errors
        group = SampleGroup(
            prefix,
            [one for _, one in encoded],
            [],
            loaded.pixel_values,
            self.processor.model_times(loaded.frame_times),
            [item.place for item, _ in encoded],
            image_features=loaded.image_features,
            image_grid_thw=loaded.image_grid_thw,
            num_warned=len(items) if loaded.is_doubtful else 0,
            duration=loaded.duration,
        )
        for item, one in encoded:
            seconds, clamped = clamp_targets(item.targets, loaded.duration)
            kept = torch.tensor(seconds[: one.num_time_stamps], dtype=torch.float64).view(-1, 2)
            group.targets.append((kept / loaded.duration).to(torch.float32))
            group.num_clamped += clamped
            in_words = self.processor.time_head.in_words  # then the tokens that are cut say it all
            lost = 0 if in_words else len(item.targets) - one.num_time_stamps
            group.num_lost += lost
            group.warnings += [
                f"{item.place}: {beyond(start, end, loaded.duration)}"
                for start, end in item.targets
                if end > loaded.duration
            ]
            if one.is_truncated:
                group.warnings.append(f"{item.place}: {cut_off(one.num_cut, limit, lost)}")
        return group, errors

    def encode(
        self, items: list[TrainingItem], media: Media, limit: int | None, duration: float = math.inf
    ) -> tuple[list[int], list[tuple[TrainingItem, Encoded]], list[Exception]]:
        """Shared prefix (empty for one item), items and what follows it, errors of the others.

        Args:
            items: about the same media.
            media: the media.
            limit: longest sequence.
            duration: of the video, in seconds, to which times that are words are cut.
        """
        tokenizer, template = self.processor.tokenizer, self.processor.template
        good, encoded, errors = [], [], []
        for item in items:
            try:
                turns = in_own_words(self.processor, item, duration)
                one = encode_conversation(tokenizer, template, turns, media, max_length=limit)
            except PromptError as error:
                errors.append(_placed(error, item))
                continue
            good.append(item)
            encoded.append(one)
        prefix = []
        if len(good) > 1:
            prefix, encoded = share_prefix(self.processor.token_ids, encoded)
        return prefix, list(zip(good, encoded, strict=True)), errors

    def _media(self, item: TrainingItem, source: DataSource, rng: random.Random) -> LoadedMedia:
        """Load an item's media, or find them in memory; see `DataSettings.cache_samples`."""
        if not self.settings.cache_samples:
            return self._load_media(item, source, rng)
        key = (item.video, item.images)
        if key not in self._media_cache:
            self._media_cache[key] = self._load_media(item, source, rng)
        return self._media_cache[key]

    def _load_media(
        self, item: TrainingItem, source: DataSource, rng: random.Random
    ) -> LoadedMedia:
        if self.features is None:
            return self._decode(item, source, rng)
        path = self._features_path(item)
        if path is None:
            loaded = self._decode(item, source, rng)
            return replace(loaded, image_features=self.features.nothing)
        if path.is_file():
            return self.features.load(path)
        self._decode(item, source, rng)  # raises what is wrong with the media, if they are broken
        raise OSError(f"{path}: no such features; start again, and they will be written")

    def _decode(self, item: TrainingItem, source: DataSource, rng: random.Random) -> LoadedMedia:
        processor, settings = self.processor, self.settings
        augment = (lambda frame: jpeg_augment(frame, rng)) if source.data_augment else (lambda f: f)
        if item.video is not None:
            method = settings.sampling_method
            rule = method if method in ("eval", "by_time") else "train"
            by_length = processor.settings.fps is not None
            numbers = settings.min_num_frame, settings.max_num_frame
            sample = processor.load_video(
                item.video,
                None if by_length else rng.randint(*numbers),
                rule=rule,
                rng=rng if method in ("rand", "by_time") else None,
            )
            frames = [augment(frame) for frame in sample.frames]
            media, times = processor.video_media(sample), processor.frame_times(sample)
            tensors = processor.backbone.video(frames, processor.settings, raw=True)
            return LoadedMedia(
                media, times, sample.duration, is_doubtful=bool(sample.warnings), **tensors
            )
        pictures = [augment(load_image(path)) for path in item.images]
        sizes, tiled = [picture.size for picture in pictures], settings.dynamic_image_size
        media = processor.backbone.image_media(sizes, processor.settings, tiled)
        tensors = processor.backbone.images(pictures, processor.settings, tiled, raw=True)
        # An item without a video has no times; the duration divides nothing.
        return LoadedMedia(media, torch.zeros(0), 1.0, **tensors)

    def _features_path(self, item: TrainingItem) -> Path | None:
        """Return where the features of an item's media are kept; None for text."""
        settings = self.settings
        if item.video is not None:
            choice = f"{settings.sampling_method} {settings.max_num_frame}"
            return self.features.path([item.video], choice)
        choice = f"dynamic {settings.dynamic_image_size}"
        return self.features.path(item.images, choice) if item.images else None

    def decode_media(self, index: int) -> LoadedMedia:
        """Decode the media of a group, whatever the cache holds.

        Raises:
            AnnotationError, VideoError, ImageError, OSError: they cannot be read.
        """
        source = self.sources[self.groups[index][0]]
        item = self._first_item(index)
        return self._decode(item, source, random.Random(0))

    def missing_features(self) -> list[tuple[Path, int, int]]:
        """List the features that the cache does not hold: file, a group that needs it, tokens.

        Media that cannot be found are left out; they will be named when their turn comes.

        Raises:
            DataError: a source changes its frames at random.
        """
        if changing := [source.name for source in self.sources if source.data_augment]:
            raise DataError(
                f"--cache_features needs the same frames in every epoch, but source {changing[0]} "
                'has "data_augment": true in the meta file; set it to false'
            )
        missing: dict[Path, tuple[Path, int, int]] = {}
        for index in progress(range(len(self)), desc="media", unit="group", delay=2):
            try:
                item = self._first_item(index)
                path = self._features_path(item)
                if path is None or path in missing or path.is_file():
                    continue
                media = self.expected_media(item)
            except BAD_SAMPLE:
                continue
            missing[path] = (path, index, media.num_image_tokens)
        return list(missing.values())

    def __getitem__(self, key: tuple[int, int]) -> SampleGroup:
        """Return a group by (index, epoch), without the items of it that are broken.

        Where all are, another group takes its place. Either way `problems` names them.

        Raises:
            DataError: every substitute is broken as well.
        """
        index, epoch = key
        group, errors = self._prepare(index, epoch)
        what_happened = "left out" if group is not None else "replaced"
        problems = [f"{what_happened} a broken sample: {error}" for error in errors]
        choose = random.Random(f"{self.settings.sampling_seed} {epoch} {index} substitute")
        for _ in range(_SUBSTITUTES_TRIED - 1):
            if group is not None:
                break
            # A substitute that is broken too will be named when its own turn comes.
            group, errors = self._prepare(choose.randrange(len(self.groups)), epoch)
        if group is None:
            raise DataError(
                f"{_SUBSTITUTES_TRIED} samples in a row are broken, the last one: {errors[0]}; run "
                "`distime check` on the meta file"
            )
        return replace(group, problems=problems)


def _placed(error: Exception, item: TrainingItem) -> Exception:
    """Return an error that names the item's line."""
    return error if item.place in str(error) else type(error)(f"{item.place}: {error}")
