"""What annotators have in common that ask a DisTime checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Annotator, model_folder
from distime.evaluate.settings import checkpoint_digest

if TYPE_CHECKING:
    import torch

    from distime.annotate.annotation_settings import AnnotationSettings


class WithCheckpoint(Annotator):
    """Loads a checkpoint.

    Attributes:
        flag: how the command line names its kind.
        asks_by: settings of the run that decide the answers.
    """

    flag: ClassVar[str]
    asks_by: ClassVar[tuple[str, ...]] = ("dtype",)

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        self.folder = model_folder(self.flag, target)

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`."""
        return {
            "checkpoint": checkpoint_digest(self.folder),
            **{name: getattr(self.settings, name) for name in self.asks_by},
        }

    def open(self, device: torch.device) -> None:
        """Load the checkpoint."""
        from distime.annotate.asking import load

        self.model = load(self.folder, self.settings, device)

    def close(self) -> None:
        """See `Annotator.close`."""
        del self.model
