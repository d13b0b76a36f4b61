"""Where in a batch the tokens lie that something stands for, found once and on the CPU.

To look for them in a tensor on a GPU is to wait for all that the GPU still has to do. The collator
knows them beforehand; only where a model is called without it does the model look itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True, kw_only=True)
class TokenIndex:
    """Places as indices into the `B * T` tokens of a batch, in batch order.

    Attributes:
        events: `(E,)` of `<TIME_STAMP>`.
        frames: `(R,)` of `<FRAME_TIME_REF>`; None if nobody looked.
        media: `(N,)` of the tokens that features of pictures replace; likewise.
        supervised: `(S,)` of the tokens with a label; None without labels, as the rest is.
        targets: which of the `events` are supervised, as indices into them.
        num_samples: of the batch.
    """

    events: Tensor
    frames: Tensor | None = None
    media: Tensor | None = None
    supervised: Tensor | None = None
    targets: Tensor | None = None
    num_samples: int | None = None

    @classmethod
    def of(
        cls,
        input_ids: Tensor,
        time_id: int,
        frame_id: int | None = None,
        is_media: Tensor | None = None,
        labels: Tensor | None = None,
        sample_ids: Tensor | None = None,
    ) -> TokenIndex:
        """Look for them.

        Args:
            input_ids: `(B, T)`.
            time_id: of `<TIME_STAMP>`.
            frame_id: of `<FRAME_TIME_REF>`.
            is_media: `(B, T)`, where the placeholders of pictures are.
            labels: `(B, T)`, -100 where a token is not supervised.
            sample_ids: `(B, T)`, the sample of every token, -1 where it has none; by default every
                row is one.
        """
        places = {"events": _places(input_ids == time_id)}
        if frame_id is not None:
            places["frames"] = _places(input_ids == frame_id)
        if is_media is not None:
            places["media"] = _places(is_media)
        if labels is None:
            return cls(**places)
        is_supervised = labels != IGNORE_INDEX
        is_supervised[:, 0] = False  # nothing predicts the first token of a row
        return cls(
            **places,
            supervised=_places(is_supervised),
            targets=_places(is_supervised.flatten()[places["events"]]),
            num_samples=len(labels) if sample_ids is None else max(int(sample_ids.max()) + 1, 1),
        )


def _places(mask: Tensor) -> Tensor:
    return mask.flatten().nonzero().flatten()
