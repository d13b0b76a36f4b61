"""Captions from an image-text-to-text model of transformers in a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from distime.annotate.annotator import Clip, UnusableError, model_folder
from distime.annotate.caption_texts import read_captions, read_prompt
from distime.annotate.captioner import Captioner
from distime.annotate.records import Captioned
from distime.benchmarks.base import SettingsError
from distime.evaluate.settings import checkpoint_digest
from distime.model.hub import LOCAL

if TYPE_CHECKING:
    import torch

    from distime.annotate.annotation_settings import AnnotationSettings
    from distime.processing.sampling import VideoSample


class LocalModel(Captioner):
    """Asks a model about the frames of a video, greedily; no code of the folder is run."""

    kind: ClassVar[str] = "model"

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        self.folder = model_folder(f"--captioner {self.kind}", target)
        self.prompt = read_prompt(settings.prompt)

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`."""
        names = ("fps", "max_frames", "events_per_video", "max_new_tokens", "dtype")
        return {
            "model": checkpoint_digest(self.folder),
            "prompt": self.prompt,
            **{name: getattr(self.settings, name) for name in names},
        }

    def open(self, device: torch.device) -> None:
        """Load model and processor.

        Raises:
            SettingsError: transformers cannot load them as an image-text-to-text model, or the
                model has no chat template.
        """
        from transformers import AutoModelForImageTextToText

        from distime.annotate.picture_processor import load_processor
        from distime.annotate.precision import dtype_of

        flag = f"--captioner {self.kind}:{self.target}"
        try:
            self.processor = load_processor(self.folder)
            self.model = AutoModelForImageTextToText.from_pretrained(
                self.folder, dtype=dtype_of(self.settings.dtype, device), **LOCAL
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            first = str(error).strip().splitlines()[0]
            raise SettingsError(
                f"{flag}: transformers cannot load it as an image-text-to-text model ({first}); "
                "give a folder with model, image processor and tokenizer"
            ) from error
        if not getattr(self.processor, "chat_template", None):
            raise SettingsError(f"{flag}: it has no chat template; give an instruction-tuned model")
        self.model = self.model.to(device).eval()

    def close(self) -> None:
        """See `Annotator.close`."""
        del self.model, self.processor

    def load(self, clip: Clip) -> VideoSample:
        """Read the frames."""
        from distime.annotate.frames import look

        return look(clip.path, self.settings.fps, self.settings.max_frames)

    def answer(self, clip: Clip, loaded: VideoSample) -> tuple[Captioned, Sequence[str]]:
        """See `Annotator.answer`."""
        captions, notes = read_captions(self._ask(loaded))
        return Captioned(clip.video, loaded.duration, tuple(captions)), [*loaded.warnings, *notes]

    def _ask(self, sample: VideoSample) -> str:
        import torch
        from PIL import Image

        words = self.prompt.format(
            frames=len(sample.frames),
            seconds=round(sample.duration),
            events=self.settings.events_per_video,
        )
        images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in sample.frames]
        content = [{"type": "image", "image": image} for image in images]
        turns = [{"role": "user", "content": [*content, {"type": "text", "text": words}]}]
        inputs = self.processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self.model.device)
        for name, value in inputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                inputs[name] = value.to(self.model.dtype)
        length = inputs["input_ids"].shape[1]
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and length + self.settings.max_new_tokens > limit:
            raise UnusableError(
                f"{len(images)} frames are {length} tokens, with {self.settings.max_new_tokens} of "
                f"the answer more than the model's {limit}: give fewer --max-frames"
            )
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs, do_sample=False, max_new_tokens=self.settings.max_new_tokens
            )
        return self.processor.decode(ids[0, length:], skip_special_tokens=True)
