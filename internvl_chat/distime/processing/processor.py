"""The processor: files and words in, tensors out, and the model's answer back to words and seconds.

It owns everything between a video file and the model: which frames, which pixels, which text,
which ids, and the change between seconds and the model's normalised time. It is saved beside the
model, so that a checkpoint alone reproduces its inputs.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase

from distime.errors import DisTimeError
from distime.model.hub import local_folder, why_no_checkpoint
from distime.model.tokens import FRAME_TIME_REF, IM_END, IMG_CONTEXT, TIME_STAMP
from distime.model.weights import read_json
from distime.processing.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    frames_to_pixels,
    image_size,
    tile_grid,
)
from distime.processing.prompt import (
    INTERNVL2_5_SYSTEM,
    ChatTemplate,
    Media,
    common_prefix,
    encode_prompt,
    media_length,
)
from distime.processing.sampling import VideoSample, sample_video
from distime.processing.tokenizer import (
    TokenIds,
    add_special_tokens,
    check_vocabulary,
    load_tokenizer,
)

FILE_NAME = "processor_config.json"
Video = str | os.PathLike | VideoSample


class ProcessorError(DisTimeError):
    """The processor cannot be made or does not fit its model; the message says the mend."""


@dataclass(frozen=True)
class ProcessorSettings:
    """Everything that decides what the model is shown.

    Attributes:
        image_size: side in pixels of the square that a frame or tile is resized to.
        patch_size: side in pixels of a patch of the vision tower.
        downsample_ratio: factor by which pixel shuffle shrinks the grid of patches.
        image_mean: of red, green and blue, on the scale 0 to 1.
        image_std: likewise.
        num_frames: frames of a video, unless a call says otherwise.
        system_message: the system turn; None for no such turn.
        max_tiles: tiles that a still image may be cut into.
        use_thumbnail: add the whole image as one more tile when it was cut.
    """

    image_size: int = 448
    patch_size: int = 14
    downsample_ratio: float = 0.5
    image_mean: tuple[float, ...] = IMAGENET_MEAN
    image_std: tuple[float, ...] = IMAGENET_STD
    num_frames: int = 16
    system_message: str | None = INTERNVL2_5_SYSTEM
    max_tiles: int = 6
    use_thumbnail: bool = True

    def __post_init__(self):
        step = self.patch_size / self.downsample_ratio
        if self.image_size % step:
            raise ProcessorError(
                f"image_size {self.image_size} is not a multiple of {step:g}, patch_size / "
                "downsample_ratio: choose one that is"
            )
        if self.num_frames < 1 or self.max_tiles < 1:
            raise ProcessorError(
                f"num_frames and max_tiles must be at least 1, got {self.num_frames} and "
                f"{self.max_tiles}"
            )

    @property
    def tokens_per_image(self) -> int:
        """`<IMG_CONTEXT>` tokens of one frame or tile."""
        return round(self.image_size / self.patch_size * self.downsample_ratio) ** 2


@dataclass
class PrefixInputs:
    """One video and many questions, split into what is shared and what is not.

    Attributes:
        prefix: keyword arguments of `model.encode_prefix`.
        suffixes: `input_ids` and `attention_mask` `(N, S)` for `model.generate_from_prefix`.
        duration: of the video, in seconds.
    """

    prefix: BatchFeature
    suffixes: BatchFeature
    duration: float


class DisTimeProcessor:
    """Turns videos and questions into model inputs, and model outputs into answers.

    Args:
        tokenizer: with all tokens of `distime.model.tokens.SPECIAL_TOKENS`.
        settings: how videos and text are shown to the model.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: ProcessorSettings | None = None
    ):
        self.tokenizer = tokenizer
        self.settings = settings or ProcessorSettings()
        self.template = ChatTemplate(self.settings.system_message)
        self.token_ids = TokenIds.of(tokenizer)

    # ------------------------------------------------------------------ loading and saving

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike, *, revision: str | None = None
    ) -> DisTimeProcessor:
        """Load from our own layout or from a checkpoint in the published one.

        Args:
            path: folder, or a name on the hub: see `distime.model.hub.local_folder`.
            revision: branch, tag or commit on the hub.

        Raises:
            HubError: there is neither such a folder nor such a name on the hub.
            CheckpointError: a file of JSON there cannot be read.
            ProcessorError: the folder holds neither.
            TokenizerError: its tokenizer cannot be read, or has tokens beyond the embedding.
        """
        folder = local_folder(path, revision)
        own, published = folder / FILE_NAME, folder / "config.json"
        if not own.is_file() and not published.is_file():
            raise ProcessorError(
                f"{folder}: has neither {FILE_NAME} nor config.json; it {why_no_checkpoint(folder)}"
            )
        tokenizer = load_tokenizer(folder)
        config = read_json(published) if published.is_file() else {}
        text = config.get("text_config") or config.get("llm_config") or {}
        if "vocab_size" in text:
            check_vocabulary(tokenizer, text["vocab_size"])
        if own.is_file():
            values = read_json(own)
            known = {field.name for field in fields(ProcessorSettings)}
            # Earlier versions also saved which decoder read files; there is one by now.
            if unknown := sorted(values.keys() - known - {"processor_class", "video_backend"}):
                raise ProcessorError(f"{own}: unknown settings {', '.join(unknown)}")
            lists = ("image_mean", "image_std")
            values |= {key: tuple(values[key]) for key in lists if key in values}
            return cls(
                tokenizer, ProcessorSettings(**{k: v for k, v in values.items() if k in known})
            )
        if "vision_config" not in config:
            raise ProcessorError(f"{published}: no vision_config; is it an InternVL checkpoint?")
        add_special_tokens(tokenizer)
        vision = config["vision_config"]
        return cls(
            tokenizer,
            ProcessorSettings(
                image_size=config.get("force_image_size") or vision["image_size"],
                patch_size=vision["patch_size"],
                downsample_ratio=config.get("downsample_ratio", 0.5),
                max_tiles=config.get("max_dynamic_patch", 6),
                use_thumbnail=config.get("use_thumbnail", True),
            ),
        )

    def save_pretrained(self, path: str | os.PathLike) -> None:
        """Write tokenizer and settings into a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        values = {"processor_class": type(self).__name__} | asdict(self.settings)
        text = json.dumps(values, indent=2, ensure_ascii=False)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    def check_model(self, config: Any) -> None:
        """Raise unless a model's configuration means the same tokens and images.

        Raises:
            ProcessorError: names what differs; mixed-up folders are the usual reason.
            TokenizerError: the tokenizer has ids beyond the model's embedding.
        """
        check_vocabulary(self.tokenizer, config.get_text_config().vocab_size)
        ours = {
            TIME_STAMP: self.token_ids.time_stamp,
            FRAME_TIME_REF: self.token_ids.frame_time_ref,
            IMG_CONTEXT: self.token_ids.img_context,
            "tokens per image": self.settings.tokens_per_image,
        }
        theirs = {
            TIME_STAMP: config.time_token_id,
            FRAME_TIME_REF: config.frame_time_token_id,
            IMG_CONTEXT: config.image_token_id,
            "tokens per image": config.image_seq_length,
        }
        if differences := [key for key in ours if ours[key] != theirs[key]]:
            raise ProcessorError(
                "the processor does not belong to this model: "
                + "; ".join(f"{k} is {ours[k]} here, {theirs[k]} there" for k in differences)
            )

    # ------------------------------------------------------------------ videos and questions

    def load_video(
        self,
        video: Video,
        num_frames: int | None = None,
        *,
        rule: str = "eval",
        bound: tuple[float, float] | None = None,
        rng: random.Random | None = None,
    ) -> VideoSample:
        """Decode and sample a video file; a `VideoSample` is passed through.

        Args:
            video: path of a video, gif or folder of frames, or frames already sampled.
            num_frames: how many, by default as the settings say.
            rule: which sampling rule, see `distime.processing.sampling`.
            bound: part of the video to look at, (start, end) in seconds.
            rng: for the training rule.

        Raises:
            VideoError: the file cannot be read; the message names it.
        """
        if isinstance(video, VideoSample):
            return video
        return sample_video(
            video,
            num_frames or self.settings.num_frames,
            rule=rule,
            bound=bound,
            rng=rng,
        )

    def pixels(self, frames) -> Tensor:
        """Frames or pictures of any size -> float32 `(n, 3, image_size, image_size)`."""
        settings = self.settings
        return frames_to_pixels(
            frames, settings.image_size, settings.image_mean, settings.image_std
        )

    def video_media(self, sample: VideoSample) -> Media:
        """What the prompt needs to know of a video."""
        return Media(self.settings.tokens_per_image, num_frames=len(sample.times))

    def image_media(self, paths: Sequence[str | os.PathLike], tiled: bool = True) -> Media:
        """What the prompt needs to know of still images; only their sizes are read.

        Args:
            paths: image files.
            tiled: they are cut into tiles, as the settings say.

        Raises:
            ImageError: one cannot be read.
        """
        options = self.settings
        tiles = []
        for path in paths:
            limit = options.max_tiles if tiled else 1
            columns, rows = tile_grid(*image_size(path), options.image_size, max_num=limit)
            count = columns * rows
            tiles.append(count + (options.use_thumbnail and count > 1))
        return Media(options.tokens_per_image if tiles else 0, image_tiles=tuple(tiles))

    def frame_times(self, sample: VideoSample) -> Tensor:
        """Normalised times `(n,)` of the frames, float32."""
        # Divided in double precision: the quotient is then the nearest float32.
        times = torch.tensor(sample.times, dtype=torch.float64)
        return (times / sample.duration).to(torch.float32)

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
            `input_ids` and `attention_mask` `(B, T)` left-padded, `pixel_values` `(F, 3, S, S)`,
            `frame_times` `(F,)` normalised, `durations` `(B,)` in seconds (float64).

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
            encode_prompt(
                self.tokenizer, self.template, question, self.video_media(sample), join=join
            )
            for sample, question in zip(samples, questions, strict=True)
        ]
        return BatchFeature(
            self.pad_left(ids)
            | {
                "pixel_values": torch.cat([self.pixels(sample.frames) for sample in samples]),
                "frame_times": torch.cat([self.frame_times(sample) for sample in samples]),
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
        media = self.video_media(sample)
        prompts = [
            encode_prompt(
                self.tokenizer, self.template, question, media, history=history, join=join
            )
            for question in questions
        ]
        return self.split_prompts(sample, prompts)

    def split_prompts(self, sample: VideoSample, prompts: Sequence[Sequence[int]]) -> PrefixInputs:
        """Prompts about one video -> what they share, with the video, and a suffix for each.

        Args:
            sample: the video.
            prompts: token ids of each, the frames' tokens among them.

        Raises:
            PromptError: they differ before the last frame.
        """
        length = common_prefix(prompts, media_length(self.tokenizer, prompts[0]))
        prefix = {
            "input_ids": torch.tensor([prompts[0][:length]]),
            "pixel_values": self.pixels(sample.frames),
            "frame_times": self.frame_times(sample),
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


def to_seconds(times: Tensor, duration: float) -> list[tuple[float, float]]:
    """Normalised intervals `(n, 2)` -> (start, end) in seconds, neither rounded nor ordered."""
    return [(start * duration, end * duration) for start, end in times.double().tolist()]
