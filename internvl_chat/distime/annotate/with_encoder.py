"""What annotators have in common that compare frames with words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Annotator, Clip
from distime.annotate.dual_encoder import DualEncoder, check_encoder
from distime.evaluate.settings import checkpoint_digest

if TYPE_CHECKING:
    import numpy as np
    import torch

    from distime.annotate.annotation_settings import AnnotationSettings
    from distime.annotate.records import EventText
    from distime.processing.sampling import VideoSample


class WithEncoder(Annotator):
    """Loads a dual encoder and the frames that it sees.

    Attributes:
        flag: how the command line names it, with `{target}`.
    """

    flag: ClassVar[str]

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        check_encoder(self.flag.format(target=target), Path(target))

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`."""
        names = ("fps", "curve_frames", "dtype")
        return {
            "encoder": checkpoint_digest(Path(self.target)),
            **{name: getattr(self.settings, name) for name in names},
        }

    def open(self, device: torch.device) -> None:
        """Load the encoder."""
        from distime.annotate.precision import dtype_of

        flag, dtype = self.flag.format(target=self.target), dtype_of(self.settings.dtype, device)
        self.encoder = DualEncoder(flag, Path(self.target), device, dtype)

    def close(self) -> None:
        """See `Annotator.close`."""
        del self.encoder

    def load(self, clip: Clip) -> VideoSample:
        """Read the frames."""
        from distime.annotate.frames import look

        return look(clip.path, self.settings.fps, self.settings.curve_frames)

    def curves(
        self, clip: Clip, sample: VideoSample
    ) -> tuple[list[tuple[EventText, np.ndarray]], list[str]]:
        """Compare the frames of a clip with the words of its events.

        Returns:
            each event with its similarity to every frame `(n,)`, and notes.
        """
        events = clip.described.events
        found, cut = self.encoder.similarity(sample.frames, [event.text for event in events])
        notes = [f"{cut} texts were cut to the encoder's length"] if cut else []
        return list(zip(events, found.T, strict=True)), [*sample.warnings, *notes]
