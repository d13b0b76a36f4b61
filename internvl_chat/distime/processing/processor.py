"""The processor: files and words in, tensors out, and the model's answer back to words and seconds.

It owns everything between a video file and the model: which frames, which pixels, which text,
which ids, and the change between seconds and the model's normalised time. It is saved beside the
model, so that a checkpoint alone reproduces its inputs.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, BatchFeature, PreTrainedTokenizerBase

from distime.backbones import BACKBONES, backbone_of
from distime.backbones.base import Backbone, CommonSettings, Pictures, ProcessorError
from distime.backbones.internvl import ProcessorSettings
from distime.model.heads import DEFAULT_HEAD, HEAD_NAMES, head_class, saved_head
from distime.model.heads.base import TimeHead
from distime.model.hub import LOCAL, local_folder, why_no_checkpoint
from distime.model.tokens import FRAME_TIME_REF, IM_END, TIME_STAMP
from distime.model.weights import read_json
from distime.processing.frame_count import adjusted, settled_count
from distime.processing.image import image_size
from distime.processing.prompt import Media, common_prefix, encode_prompt, media_length
from distime.processing.sampling import VideoSample, check_rule, sample_reader
from distime.processing.tokenizer import (
    TokenIds,
    add_special_tokens,
    check_vocabulary,
    load_tokenizer,
)
from distime.processing.video import VideoReader, open_video

__all__ = ["DisTimeProcessor", "PrefixInputs", "ProcessorError", "ProcessorSettings", "Video"]

FILE_NAME = "processor_config.json"
Video = str | os.PathLike | VideoSample


@dataclass
class PrefixInputs:
    """One video and many questions, split into what is shared and what is not.

    Attributes:
        prefix: keyword arguments of `model.encode_prefix`; pixels are uint8, not normalised yet.
        suffixes: `input_ids` and `attention_mask` `(N, S)` for `model.generate_from_prefix`.
        duration: of the video, in seconds.
        suffix_times: of each suffix, the normalised intervals `(n, 2)` of its `<TIME_STAMP>`
            tokens; where None, they keep their own embedding.
    """

    prefix: BatchFeature
    suffixes: BatchFeature
    duration: float
    suffix_times: Sequence[Tensor] | None = None

    def suffix_ids(self) -> list[list[int]]:
        """Return the ids of each suffix, without padding."""
        ids, mask = self.suffixes["input_ids"], self.suffixes["attention_mask"].bool()
        return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]


class DisTimeProcessor:
    """Turns videos and questions into model inputs, and model outputs into answers.

    Args:
        tokenizer: with all tokens that the backbone's `ChatTemplate.added_tokens` names.
        settings: how videos and text are shown to the model; by their type they say which backbone
            it is for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: CommonSettings | None = None):
        self.tokenizer = tokenizer
        self.settings = settings or ProcessorSettings()
        try:
            check_rule(self.settings.sampling)
        except ValueError as error:
            raise ProcessorError(f"sampling: {error}") from None
        self.backbone = _backbone_for(self.settings)
        self.frame_count(0.0)  # raises for a budget that no frame fits
        self.template = self.backbone.template_class(self.settings.system_message)
        self.token_ids = TokenIds.of(tokenizer, self.template)

    # ------------------------------------------------------------------ loading and saving

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike, *, revision: str | None = None, **_: Any
    ) -> DisTimeProcessor:
        """Load what was saved beside a model, or make what a checkpoint of others needs.

        Args:
            path: folder, or a name on the hub: see `distime.model.hub.local_folder`.
            revision: branch, tag or commit on the hub.
            **_: what transformers' `AutoProcessor` hands to every processor.

        Raises:
            HubError: there is neither such a folder nor such a name on the hub.
            CheckpointError: a file of JSON there cannot be read.
            ProcessorError: the folder holds neither, or a processor of another model.
            TokenizerError: its tokenizer cannot be read, or has tokens beyond the embedding.
        """
        folder = local_folder(path, revision)
        own, described = folder / FILE_NAME, folder / "config.json"
        if not own.is_file() and not described.is_file():
            raise ProcessorError(
                f"{folder}: has neither {FILE_NAME} nor config.json; it {why_no_checkpoint(folder)}"
            )
        tokenizer = load_tokenizer(folder)
        config = read_json(described) if described.is_file() else {}
        text = config.get("text_config") or config.get("llm_config") or {}
        if "vocab_size" in text:
            check_vocabulary(tokenizer, text["vocab_size"])
        if own.is_file():
            values = read_json(own)
            # Other processors of transformers have files of that name, too.
            if values.pop("processor_class", cls.__name__) == cls.__name__:
                processor = cls(tokenizer, _read_settings(own, values))
                if saved_head(folder) and "time_token_id" in config:  # a model of ours beside it
                    processor.check_model(AutoConfig.from_pretrained(folder, **LOCAL))
                return processor
        backbone = backbone_of(config)
        if backbone is None:
            raise ProcessorError(
                f"{described}: model_type {config.get('model_type')!r} belongs to no backbone of "
                f"DisTime; there are {', '.join(BACKBONES)}"
            )
        add_special_tokens(tokenizer, backbone.template_class.added_tokens)
        return cls(tokenizer, backbone.read_settings(folder, config))

    def save_pretrained(self, path: str | os.PathLike) -> None:
        """Write tokenizer and settings into a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        values = {"processor_class": DisTimeProcessor.__name__, "backbone": self.backbone.name}
        values |= asdict(self.settings)
        text = json.dumps(values, indent=2, ensure_ascii=False)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    def check_model(self, config: Any) -> None:
        """Raise unless a model's configuration means the same tokens and images.

        How the model is to normalise pixels that come as uint8 is written into it.

        Raises:
            ProcessorError: names what differs; mixed-up folders are the usual reason.
            TokenizerError: the tokenizer has ids beyond the model's embedding.
        """
        check_vocabulary(self.tokenizer, config.get_text_config().vocab_size)
        tokens = {
            TIME_STAMP: (self.token_ids.time_stamp, config.time_token_id),
            FRAME_TIME_REF: (self.token_ids.frame_time_ref, config.frame_time_token_id),
            "time_head": (self.settings.time_head, config.time_head),
        }
        if not isinstance(config, self.backbone.model_class.config_class):
            raise ProcessorError(
                f"the processor does not belong to this model: it is for {self.backbone.name}, the "
                f"model's configuration is a {type(config).__name__}"
            )
        differences = {name: pair for name, pair in tokens.items() if pair[0] != pair[1]}
        differences |= self.backbone.misfits(self.settings, self.token_ids.placeholders, config)
        if differences:
            raise ProcessorError(
                "the processor does not belong to this model: "
                + "; ".join(
                    f"{k} is {ours} here, {theirs} there"
                    for k, (ours, theirs) in differences.items()
                )
            )
        for name, values in zip(
            ("image_mean", "image_std"), self.backbone.statistics(self.settings), strict=True
        ):
            if tuple(getattr(config, name) or ()) != tuple(values):
                setattr(config, name, list(values))

    def adjust(self, **asked: Any) -> None:
        """Show videos otherwise from now on; `save_pretrained` keeps it.

        Args:
            **asked: settings by their names in `distime.backbones.base.CommonSettings`, or
                `image_size`; None leaves one as it is. `num_frames` ends `fps`, and `fps` comes
                with `max_frames`.

        Raises:
            ProcessorError: the backbone has no such setting, or they do not go together.
        """
        self.settings = adjusted(self.backbone, self.settings, asked)

    def fit(self, config: Any) -> None:
        """Let a model's configuration follow an `image_size` that was asked of `adjust`."""
        self.backbone.fit(self.settings, config)

    def frame_count(
        self,
        duration: float,
        num_frames: int | None = None,
        bound: tuple[float, float] | None = None,
    ) -> int:
        """How many frames a video is shown with.

        Args:
            duration: of the video, in seconds.
            num_frames: what was asked for, in place of what the settings say; their budget holds.
            bound: the part that is looked at, (start, end) in seconds.

        Raises:
            ProcessorError: the budget of tokens is less than one frame.
        """
        return settled_count(self.backbone, self.settings, duration, num_frames, bound)

    @property
    def time_head(self) -> type[TimeHead]:
        """How the model says when."""
        return head_class(self.settings.time_head)

    # ------------------------------------------------------------------ videos and questions

    def load_video(
        self,
        video: Video,
        num_frames: int | None = None,
        *,
        rule: str | None = None,
        bound: tuple[float, float] | None = None,
        rng: random.Random | None = None,
        gif_fps: float | None = None,
    ) -> VideoSample:
        """Decode and sample a video file; a `VideoSample` is passed through.

        Args:
            video: path of a video, gif or folder of frames, or frames already sampled.
            num_frames: how many, by default as the settings say (`frame_count`).
            rule: which sampling rule, see `distime.processing.sampling`; by default as the settings
                say.
            bound: part of the video to look at, (start, end) in seconds.
            rng: for the rules that choose at random.
            gif_fps: see `distime.processing.video.open_video`.

        Raises:
            VideoError: the file cannot be read; the message names it.
            ProcessorError: frames in memory are more than the budget of tokens allows.
        """
        if isinstance(video, VideoSample):
            if self.frame_count(video.duration, given := len(video.times)) < given:
                raise ProcessorError(
                    f"{given} frames in memory do not fit max_video_tokens "
                    f"{self.settings.max_video_tokens}: give fewer, or more tokens"
                )
            return video
        rule = rule or self.settings.sampling
        with open_video(video, gif_fps=gif_fps) as reader:
            count = self.frame_count(reader.duration, num_frames, bound)
            return sample_reader(reader, count, rule=rule, bound=bound, rng=rng)

    def pixels(self, frames: Pictures) -> Tensor:
        """Frames or pictures of any size -> `pixel_values`, float32."""
        return self.backbone.video(frames, self.settings)["pixel_values"]

    def video_media(self, sample: VideoSample) -> Media:
        """What the prompt needs to know of a video."""
        height, width = sample.frames[0].shape[:2]
        media = self.backbone.video_media(len(sample.times), (width, height), self.settings)
        return self.with_slot_words(media, self.frame_times(sample), sample.duration)

    def with_slot_words(self, media: Media, frame_times: Tensor, duration: float) -> Media:
        """Media whose slots have their times in words, if the model reads them so.

        Args:
            media: of a video.
            frame_times: of its slots `(n,)`, normalised.
            duration: of the video, in seconds.
        """
        words = ()
        if self.time_head.in_words:
            times = (frame_times.double() * duration).tolist()
            words = tuple(map(self.time_head.written_moment, times))
        return replace(media, slot_words=words)

    def model_times(self, frame_times: Tensor) -> Tensor:
        """The frame times that go to the model: none if the prompt has them in words."""
        return frame_times[:0] if self.time_head.in_words else frame_times

    def in_own_words(
        self, texts: Sequence[str], intervals: Sequence[tuple[float, float]]
    ) -> list[str]:
        """Texts as the model writes them: every `<TIME_STAMP>` in words, if its times are words.

        Args:
            texts: with `<TIME_STAMP>` tokens.
            intervals: of all of them in order, in seconds. Tokens beyond them stay as they are.
        """
        if not self.time_head.in_words:
            return list(texts)
        given = iter(intervals)

        def words(token: re.Match) -> str:
            interval = next(given, None)
            return token[0] if interval is None else self.time_head.written(*interval)

        return [re.sub(re.escape(TIME_STAMP), words, text) for text in texts]

    def expected_media(self, video: str | os.PathLike, num_frames: int | None) -> Media:
        """What the prompt will need to know of a video file that is not decoded here.

        Args:
            video: path of a video, gif or folder of frames; opened only where the number of
                tokens depends on the size of its frames, or that of frames on its length.
            num_frames: that are asked for; None for what the settings say.

        Raises:
            VideoError: the file is opened and cannot be read.
        """
        by_length = num_frames is None and self.settings.fps is not None
        if not (by_length or self.backbone.frames_have_sizes):
            count, size = self.frame_count(0.0, num_frames), None
        else:
            with open_video(video) as reader:
                count = self.frame_count(reader.duration, num_frames)
                size = _frame_size(reader) if self.backbone.frames_have_sizes else None
        media = self.backbone.video_media(count, size, self.settings)
        # When frames are is not known here: no time takes more words than this one.
        return self.with_slot_words(media, torch.ones(media.num_frames), _LONG_VIDEO)

    def image_media(self, paths: Sequence[str | os.PathLike], tiled: bool = True) -> Media:
        """What the prompt needs to know of still images; only their sizes are read.

        Args:
            paths: image files.
            tiled: they are shown in more detail than frames, as the settings say.

        Raises:
            ImageError: one cannot be read.
        """
        return self.backbone.image_media(list(map(image_size, paths)), self.settings, tiled)

    def frame_times(self, sample: VideoSample) -> Tensor:
        """Normalised times `(n,)`, float32, one for every slot of the video."""
        # Divided in double precision: the quotient is then the nearest float32.
        times = torch.tensor(self.backbone.slot_times(sample.times), dtype=torch.float64)
        return (times / sample.duration).to(torch.float32)

    def positions(self, input_ids: Sequence[int], grid: Tensor | None = None) -> Tensor | None:
        """Positions `(D, T)` of one sequence, see `distime.backbones.base.Backbone.positions`."""
        ids = self.token_ids.placeholders
        return self.backbone.positions(input_ids, ids, grid, self.settings)

    def __call__(
        self,
        videos: Sequence[Video] | Video,
        questions: Sequence[str] | str,
        num_frames: int | None = None,
        *,
        join: str = "",
        bound: tuple[float, float] | None = None,
    ) -> BatchFeature:
        """One video and one question per row -> inputs for `generate`.

        Args:
            videos: paths or `VideoSample`s.
            questions: as many.
            num_frames: frames of each video, by default as the settings say.
            join: what stands between the frames and the question (each benchmark's `join` is what
                its published evaluation used).
            bound: part of the videos to look at, (start, end) in seconds.

        Returns:
            `input_ids` and `attention_mask` `(B, T)` left-padded, the tensors of the videos
            (`pixel_values` `(F, 3, S, S)` where frames have one size), `frame_times` `(R,)`
            normalised, `durations` `(B,)` in seconds (float64).

        Raises:
            VideoError: a file cannot be read; the message names it.
            ProcessorError: the numbers of videos and questions differ.
        """
        videos = [videos] if isinstance(videos, Video) else list(videos)
        questions = [questions] if isinstance(questions, str) else list(questions)
        if len(videos) != len(questions) or not videos:
            raise ProcessorError(
                f"{len(videos)} videos and {len(questions)} questions: give one video per question "
                "(or use shared_prefix for many questions about one video)"
            )
        samples = [self.load_video(video, num_frames, bound=bound) for video in videos]
        ids = [
            self.prompt_ids(sample, question, join)
            for sample, question in zip(samples, questions, strict=True)
        ]
        return BatchFeature(
            self.pad_left(ids)
            | join_tensors([self.backbone.video(one.frames, self.settings) for one in samples])
            | {
                "frame_times": torch.cat(
                    [self.model_times(self.frame_times(sample)) for sample in samples]
                ),
                "durations": torch.tensor([s.duration for s in samples], dtype=torch.float64),
            }
        )

    def shared_prefix(
        self,
        video: Video,
        questions: Sequence[str],
        num_frames: int | None = None,
        *,
        join: str = "",
        bound: tuple[float, float] | None = None,
        history: Sequence[tuple[str, str]] = (),
    ) -> PrefixInputs:
        """Many questions about one video -> the video once, and a suffix per question.

        Prefix and suffix together are, id for id, the prompt that `__call__` gives the question.

        Args:
            video: path or `VideoSample`.
            questions: any number of them.
            num_frames: see `__call__`.
            join: see `__call__`.
            bound: see `__call__`.
            history: earlier (question, answer) pairs, which every question continues.
        """
        sample = self.load_video(video, num_frames, bound=bound)
        prompts = [self.prompt_ids(sample, question, join, history) for question in questions]
        return self.split_prompts(sample, prompts)

    def prompt_ids(
        self,
        sample: VideoSample,
        question: str,
        join: str = "",
        history: Sequence[tuple[str, str]] = (),
    ) -> list[int]:
        """Return the ids of a question about a video, with those of the frames before it.

        Args:
            sample: the video.
            question: what the user asks.
            join: see `__call__`.
            history: earlier (question, answer) pairs, which the question continues.

        Raises:
            PromptError: the text contains tokens of frames or images.
        """
        media = self.video_media(sample)
        return encode_prompt(
            self.tokenizer, self.template, question, media, history=history, join=join
        )

    def split_prompts(self, sample: VideoSample, prompts: Sequence[Sequence[int]]) -> PrefixInputs:
        """Prompts about one video -> what they share, with the video, and a suffix for each.

        Args:
            sample: the video.
            prompts: token ids of each, the frames' tokens among them.

        Raises:
            PromptError: they differ before the last frame.
        """
        length = common_prefix(prompts, media_length(self.tokenizer, prompts[0], self.template))
        prefix = {
            "input_ids": torch.tensor([prompts[0][:length]]),
            "frame_times": self.model_times(self.frame_times(sample)),
            **self.backbone.video(sample.frames, self.settings, raw=True),
        }
        suffixes = self.pad_left([prompt[length:] for prompt in prompts])
        return PrefixInputs(BatchFeature(prefix), BatchFeature(suffixes), sample.duration)

    def pad_left(self, sequences: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Lists of ids -> `input_ids` and `attention_mask` `(N, longest)`."""
        longest = max(map(len, sequences))
        input_ids = torch.full((len(sequences), longest), self.token_ids.pad)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(sequences):
            input_ids[row, longest - len(ids) :] = torch.tensor(ids)
            attention_mask[row, longest - len(ids) :] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    # ------------------------------------------------------------------ answers

    def decode(self, new_ids: Tensor | Sequence[int]) -> str:
        """Generated ids -> text with special tokens, cut at the first `<|im_end|>`, stripped."""
        ids = new_ids.tolist() if isinstance(new_ids, Tensor) else list(new_ids)
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text.split(IM_END)[0].strip()


_LONG_VIDEO = 9999.9
"""Seconds."""


def join_tensors(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Dictionaries of tensors with the same names -> one, each name's tensors behind each other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _backbone_for(settings: CommonSettings) -> Backbone:
    """The backbone whose settings these are."""
    return next(one for one in BACKBONES.values() if one.settings_class is type(settings))


def _read_settings(file: Path, values: dict[str, Any]) -> CommonSettings:
    """Settings from what `save_pretrained` wrote; before there were backbones, it was InternVL."""
    # Earlier versions also saved which decoder read files; there is one by now.
    values.pop("video_backend", None)
    name = values.pop("backbone", _backbone_for(ProcessorSettings()).name)
    if name not in BACKBONES:
        raise ProcessorError(f"{file}: unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
    kind = BACKBONES[name].settings_class
    if unknown := sorted(values.keys() - {field.name for field in fields(kind)}):
        raise ProcessorError(f"{file}: unknown settings {', '.join(unknown)}")
    if values.get("time_head", DEFAULT_HEAD) not in HEAD_NAMES:
        raise ProcessorError(
            f"{file}: unknown time_head {values['time_head']!r}; there are {', '.join(HEAD_NAMES)}"
        )
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return kind(**values | lists)


def _frame_size(video: VideoReader) -> tuple[int, int]:
    """Width and height of a video's first frame, as it is shown."""
    height, width = video.frames([0])[0].shape[:2]
    return width, height


def to_seconds(times: Tensor, duration: float) -> list[tuple[float, float]]:
    """Normalised intervals `(n, 2)` -> (start, end) in seconds, neither rounded nor ordered."""
    return [(start * duration, end * duration) for start, end in times.double().tolist()]
