"""The few numbers of the time parts, which every backbone's configuration has beside its own."""

from __future__ import annotations

from dataclasses import dataclass

from distime.model.heads import DEFAULT_HEAD, HEAD_NAMES

DISTRIBUTION_REDUCTIONS = ("sum", "mean")


@dataclass(kw_only=True)
class TimeConfig:
    """Mixed into the configuration of a backbone: the time parts of DisTime (paper, section 3).

    Args:
        time_head: how the model says when, one of `distime.model.heads.HEAD_NAMES`.
        reencode_times: the embedding of a `<TIME_STAMP>` that the model predicts is that of its
            time; otherwise the token keeps its own, and its time is an output alone. Times that
            are given in questions are embedded in either case.
        reg_max: number of intervals that normalised time is cut into; a boundary is a distribution
            over `reg_max + 1` bins (published flag `dec_reg`).
        enc_sigma: standard deviation, in bins, of the Gaussians that the time encoder reads.
        layer_num: number of linear layers of the time encoder and of the time decoder.
        time_token_id: id of `<TIME_STAMP>`.
        frame_time_token_id: id of `<FRAME_TIME_REF>`.
        text_loss_weight: weight of the cross-entropy of the text.
        distribution_loss_weight: weight of the distribution focal loss.
        iou_loss_weight: weight of the DIoU loss.
        distance_loss_weight: weight of the distance from the truth, in a head that has it.
        distribution_loss_reduction: `"sum"`, as published, adds the loss of a sample's boundaries
            and divides by `reg_max`, so that it grows with the number of events; `"mean"` averages
            over the boundaries.
        image_mean: of red, green and blue on the scale 0 to 1, by which pixels that come as uint8
            are normalised. The processor's are what counts: `check_model` writes them here.
        image_std: likewise.
    """

    time_head: str = DEFAULT_HEAD
    reencode_times: bool = True
    reg_max: int = 32
    enc_sigma: float = 1.0
    layer_num: int = 3
    time_token_id: int | None = None
    frame_time_token_id: int | None = None
    text_loss_weight: float = 1.0
    distribution_loss_weight: float = 1.0
    iou_loss_weight: float = 1.0
    distance_loss_weight: float = 1.0
    distribution_loss_reduction: str = "sum"
    image_mean: list[float] | tuple[float, ...] | None = None
    image_std: list[float] | tuple[float, ...] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.reg_max < 1 or self.layer_num < 1 or self.enc_sigma <= 0:
            raise ValueError(
                "reg_max and layer_num must be at least 1 and enc_sigma positive; got "
                f"reg_max={self.reg_max}, layer_num={self.layer_num}, enc_sigma={self.enc_sigma}"
            )
        if self.time_head not in HEAD_NAMES:
            raise ValueError(
                f"time_head must be one of {', '.join(HEAD_NAMES)}, got {self.time_head!r}"
            )
        if self.distribution_loss_reduction not in DISTRIBUTION_REDUCTIONS:
            raise ValueError(
                f"distribution_loss_reduction must be one of {DISTRIBUTION_REDUCTIONS}, "
                f"got {self.distribution_loss_reduction!r}"
            )
