"""What a time head is: how hidden states or words become times, and times embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Generator, Tensor, nn

from distime.model.time_modules import TimeEncoder

if TYPE_CHECKING:
    from distime.model.config import TimeConfig


class TimeHead:
    """One way of saying when. It has no weights: its modules are the model's `time_encoder` and
    `time_decoder`, under which names every checkpoint has them.

    *Logits* are what the decoder makes of the `N` hidden states that predict `<TIME_STAMP>`, of a
    shape that the head alone knows, `(N, ...)`. Intervals are normalised unless seconds are named.

    Args:
        config: sizes, and the reduction of losses.

    Attributes:
        in_words: times are digits in the text, and there are no time tokens: neither modules nor
            losses of time are needed, and `written` and `read` take their place.
        has_distribution: there are `distribution`, `sample` and `log_prob`.
        losses: names of the terms that `loss` returns. The configuration's `NAME_loss_weight`
            weighs each.
        how: what a time in an answer is, in a sentence for people; $bins and $reg_max stand for
            numbers.
        limits: what to know of its times, likewise.
    """

    in_words: ClassVar[bool] = False
    has_distribution: ClassVar[bool] = False
    losses: ClassVar[tuple[str, ...]] = ()
    how: ClassVar[str]
    limits: ClassVar[str] = ""

    def __init__(self, config: TimeConfig):
        self.config = config

    # ------------------------------------------------------------------ modules

    def encoder(self, width: int) -> nn.Module | None:
        """Make the module that embeds intervals `(N, 2)`, those of frames too, as `(N, width)`."""
        config = self.config
        return TimeEncoder(width, config.reg_max, config.enc_sigma, config.layer_num)

    def decoder(self, width: int) -> nn.Module | None:
        """Make the module that turns hidden states `(N, width)` into float32 logits."""
        raise NotImplementedError

    # ------------------------------------------------------------------ times

    def decode(self, logits: Tensor) -> Tensor:
        """The answer: intervals `(N, 2)`, start and end in no order that is enforced."""
        raise NotImplementedError

    def distribution(self, logits: Tensor) -> Tensor | None:
        """Probabilities `(N, 2, bins)` of start and end, of which `decode` gives the expectations;
        bin `k` is the time `k / (bins - 1)`. None where there are none."""
        return None

    def sample(self, logits: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw intervals `(N, 2)` from the distributions; start and end independently."""
        raise NotImplementedError(f"{type(self).__name__} has no distribution to draw from")

    def log_prob(self, logits: Tensor, intervals: Tensor) -> Tensor:
        """Log-probabilities `(N,)` of intervals that `sample` could have drawn."""
        raise NotImplementedError(f"{type(self).__name__} has no distribution to draw from")

    def loss(
        self, logits: Tensor, targets: Tensor, sample: Tensor, num_samples: int
    ) -> dict[str, Tensor]:
        """Every loss of `losses`, of each sample alone.

        Args:
            logits: of the supervised `<TIME_STAMP>` tokens, E of them.
            targets: `(E, 2)` in [0, 1].
            sample: `(E,)` index of the sample that each belongs to.
            num_samples: number of samples.

        Returns:
            name -> `(num_samples,)`, 0 for a sample without times.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------ words

    @classmethod
    def written(cls, start: float, end: float) -> str:
        """The words for an interval in seconds, with `in_words`."""
        raise NotImplementedError

    @classmethod
    def written_moment(cls, time: float) -> str:
        """The words for the time of a frame in seconds, with `in_words`."""
        raise NotImplementedError

    @classmethod
    def read(cls, text: str) -> tuple[str, Sequence[tuple[float, float]]]:
        """Find the times in a text, with `in_words`.

        Returns:
            the text with `<TIME_STAMP>` in the place of each, and the intervals in seconds.
        """
        raise NotImplementedError

    @classmethod
    def settled(cls, text: str) -> str:
        """What of a text that still grows `read` will not see otherwise later, with `in_words`."""
        raise NotImplementedError
