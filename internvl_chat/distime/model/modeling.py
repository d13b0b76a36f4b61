"""DisTime: an image-text-to-text model of transformers that reads and writes continuous time.

`TimeMixin` holds all that DisTime adds to a backbone (paper, section 3), and asks the backbone for
no more than `distime.model.seam` says. The model works in normalised time: 0 is the start of the
video, 1 its end.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import TransformersKwargs

from distime.model.block_attention import SDPA_BLOCKS, make_blocks
from distime.model.generation import TimeGeneration
from distime.model.heads import head_class
from distime.model.library import CACHE
from distime.model.losses import DisTimeCriterion, Losses, sum_per_sample
from distime.model.packing import (
    attention_dtype,
    groups_from_positions,
    packed_attention_mask,
    plain_attention_mask,
)
from distime.model.seam import Seam
from distime.model.time_modules import TimeLinear
from distime.model.token_index import TokenIndex
from distime.model.tokens import FRAME_TIME_REF, TIME_STAMP

logger = logging.getLogger(__name__)


@dataclass
class DisTimeOutput(CausalLMOutputWithPast):
    """What the forward pass returns: the library's own output and the losses of time.

    Args:
        loss: weighted sum of the others, mean over the samples of the batch; with `labels`.
        text_loss: cross-entropy of the supervised tokens.
        distribution_loss: distribution focal loss of the supervised `<TIME_STAMP>` tokens. This and
            the following are there where the time head has such a loss, and None where not.
        iou_loss: DIoU loss of the same.
        distance_loss: distance of the same from the truth, in normalised time.
        logits: `(B, T, vocabulary)`, or fewer positions with `logits_to_keep`. A training step
            (training mode and labels) has `(S, vocabulary)`, the supervised positions alone.
        last_hidden_state: `(B, T, C)` after the final norm.
        time_logits: of the supervised `<TIME_STAMP>` tokens, in batch order, as the time head has
            them: `(E, 2, reg_max + 1)` of distributions.
    """

    text_loss: Tensor | None = None
    distribution_loss: Tensor | None = None
    iou_loss: Tensor | None = None
    distance_loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    time_logits: Tensor | None = None


class TimeMixin(TimeGeneration, Seam):
    """The time parts of DisTime, over the image-text-to-text class of a backbone."""

    # The trainer must not rescale the loss by token counts: it is a mean over samples.
    accepts_loss_kwargs = False

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        width = config.get_text_config().hidden_size
        self.time_head = head_class(config.time_head)(config)
        self.time_encoder = self.time_head.encoder(width)
        self.time_decoder = self.time_head.decoder(width)
        self.criterion = DisTimeCriterion(config, self.time_head)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TimeLinear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    # ------------------------------------------------------------------ embeddings

    def features(
        self,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        image_features: Tensor | None = None,
    ) -> Tensor | None:
        """Features `(N, W)` of a batch's pictures, flat (see `distime.model.seam`).

        Args:
            pixel_values: see `embed`.
            image_grid_thw: see `embed`.
            image_features: see `embed`.

        Returns:
            None where there are no pictures; in training no rows then, of a vision side that ran.

        Raises:
            ValueError: pictures are given twice.
        """
        if image_features is not None:
            if pixel_values is not None:
                raise ValueError("give pixel_values or image_features, not both")
            return image_features.flatten(0, -2)
        grid = {} if image_grid_thw is None else {"image_grid_thw": image_grid_thw}
        if pixel_values is not None:
            return self.encode_images(pixel_values, **grid)
        # A module that a batch does not need still runs; its output is dropped. So every
        # parameter has a gradient, and all ranks gather the same ones in the same order.
        return self.encode_images(**self.blank_images())[:0] if self.training else None

    def find_tokens(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        sample_ids: Tensor | None = None,
        *,
        media: bool = True,
    ) -> TokenIndex:
        """Look for the tokens of a batch that something stands for; waits for the device.

        Args:
            input_ids: `(B, T)`.
            labels: `(B, T)`, to find what is supervised.
            sample_ids: `(B, T)`, see `forward`.
            media: look for pictures and frames, too.
        """
        time_id = self.config.time_token_id
        if not media:
            return TokenIndex.of(input_ids, time_id, labels=labels, sample_ids=sample_ids)
        is_media, frame_id = self.is_placeholder(input_ids), self.config.frame_time_token_id
        return TokenIndex.of(input_ids, time_id, frame_id, is_media, labels, sample_ids)

    def check_media(
        self,
        index: TokenIndex,
        features: Tensor | None,
        frame_times: Tensor | None,
        time_targets: Tensor | None = None,
    ) -> None:
        """Raise unless every token that stands for something has it, and nothing is left over.

        Raises:
            ValueError: a count does not match the tokens.
        """
        given = [
            (self.placeholder, index.media, features, "embeddings for them"),
            (FRAME_TIME_REF, index.frames, frame_times, "entries in frame_times"),
        ]
        if time_targets is not None:
            given.append((TIME_STAMP, index.events, time_targets, "intervals in time_targets"))
        for token, places, values, what in given:
            found = 0 if values is None else len(values)
            if len(places) != found:
                raise ValueError(
                    f"input_ids has {len(places)} {token} tokens, but there are {found} {what}"
                )

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
        image_features: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Look up token embeddings and replace those of images and times (paper, section 3.2).

        Args:
            input_ids: `(B, T)`.
            pixel_values: all pictures of the batch in token order, as the processor makes them:
                `(F, 3, H, W)` where they have one size.
            frame_times: `(R,)` normalised, one per `<FRAME_TIME_REF>` in batch order.
            time_targets: `(E, 2)` normalised intervals, one per `<TIME_STAMP>` in batch order,
                clamped here to [0, 1]. A NaN interval leaves the token its own embedding, as does
                None for all of them.
            image_features: `(N, W)` or `(F, N, W)` instead of `pixel_values`: what the vision side
                makes of them, see `distime.model.seam`. It does not run.
            image_grid_thw: `(G, 3)`, what the processor says of every slot or picture beside its
                pixels, on backbones whose pictures differ in size.

        Returns:
            `(B, T, C)`.

        Raises:
            ValueError: a count does not match the tokens.
        """
        features = self.features(pixel_values, image_grid_thw, image_features)
        index = self.find_tokens(input_ids)
        self.check_media(index, features, frame_times, time_targets)
        return self._embed(input_ids, index, features, frame_times, time_targets)

    def _given_times(self, index: TokenIndex, time_targets: Tensor | None) -> Tensor | None:
        """The intervals that tokens are embedded with: predicted ones only if they are re-encoded,
        as in generation; NaN for the others."""
        if self.config.reencode_times or index.targets is None or time_targets is None:
            return time_targets
        return time_targets.index_fill(0, index.targets, torch.nan)

    def _refuse_times(self, frame_times: Tensor | None, time_targets: Tensor | None) -> None:
        is_known = time_targets is not None and not bool(time_targets.isnan().any(-1).all())
        if is_known or (frame_times is not None and len(frame_times)):
            raise ValueError(
                f"a model with time_head {self.config.time_head!r} reads times as words: give "
                "neither frame_times nor time_targets (its own processor gives none)"
            )

    def _embed(
        self,
        input_ids: Tensor,
        index: TokenIndex,
        features: Tensor | None,
        frame_times: Tensor | None,
        time_targets: Tensor | None,
    ) -> Tensor:
        embeds = self.get_input_embeddings()(input_ids)
        tokens = embeds.flatten(0, 1)
        places, rows = [], []
        if features is not None:
            places.append(index.media)
            rows.append(features[:, : tokens.shape[-1]])
        if self.time_encoder is None:
            self._refuse_times(frame_times, time_targets)
            frame_times = time_targets = None
        elif frame_times is None and self.training:
            frame_times = tokens.new_zeros(0)
        intervals, is_known = [], []
        if frame_times is not None:
            places.append(index.frames)
            intervals.append(frame_times.unsqueeze(-1).expand(-1, 2).float())
        if time_targets is not None:
            places.append(index.events)
            is_known = ~time_targets.isnan().any(-1, keepdim=True)
            intervals.append(time_targets.float().nan_to_num().clamp(0, 1))
        if intervals:
            # One pass of the encoder for frames and events together.
            encoded = self.time_encoder(torch.cat(intervals)).to(tokens.dtype)
            encoded = list(encoded.split([len(one) for one in intervals]))
            if time_targets is not None:
                encoded[-1] = torch.where(
                    is_known, encoded[-1], tokens.index_select(0, index.events)
                )
            rows += encoded
        if not rows:
            return embeds
        rows = torch.cat([some.to(tokens.dtype) for some in rows])
        return tokens.index_copy(0, torch.cat(places), rows).view_as(embeds)

    # ------------------------------------------------------------------ forward

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | slice | Tensor = 0,
        group_ids: Tensor | None = None,
        sample_ids: Tensor | None = None,
        loss_weight: Tensor | None = None,
        loss_divisor: Tensor | float | None = None,
        image_features: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        token_index: dict[str, Any] | None = None,
        attention_blocks: Sequence[Sequence[Sequence[int]]] | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> DisTimeOutput:
        """Run the model; with labels, compute the losses.

        In a training step the output head runs at supervised positions alone. The vocabulary is
        151,674 wide and a sample has about twenty supervised tokens among thousands of image ones:
        the full logits of one 8,192-token sample are 5 GB in float32, their softmax and gradient
        as much again, and all but a quarter per cent of it never enters the loss.
        `benchmarks/training_logits.py` measures the difference.

        Args:
            input_ids: `(B, T)`.
            attention_mask: `(B, T)`, 0 at padding on either side; also over cached tokens.
            pixel_values: all pictures of the batch in token order, see `embed`.
            frame_times: `(R,)`, one normalised time per `<FRAME_TIME_REF>`, in batch order.
            time_targets: `(E, 2)`, one normalised interval per `<TIME_STAMP>`, in batch order.
            labels: `(B, T)`, -100 where a token is not supervised. A `<TIME_STAMP>` counts for the
                time losses where its label is set.
            position_ids: `(B, T)`; positions that restart at 0 within a row pack several samples.
                `(D, B, T)` where the backbone's tokens have D coordinates; packing then needs
                `group_ids` and `sample_ids`.
            cache: keys and values of earlier tokens.
            past_key_values: the same, by the name that transformers used before 5.24.
            inputs_embeds: `(B, T, C)` instead of `input_ids` (inference only).
            use_cache: return a cache.
            logits_to_keep: number of last positions to compute logits for, 0 for all; or which.
            group_ids: `(B, T)` packing with shared prefixes, see `distime.model.packing`.
            sample_ids: `(B, T)` likewise; samples are numbered from 0 over the batch.
            loss_weight: `(B, T)` weight of every token in the text loss.
            loss_divisor: divides the sum of the samples' losses instead of their number here.
            image_features: instead of `pixel_values`, see `embed`.
            image_grid_thw: see `embed`.
            token_index: fields of a `TokenIndex` of the batch, as the collator makes it. Without it
                the model looks for the tokens itself and waits for the device, as it does to see
                whether samples are packed.
            attention_blocks: where the groups of every row lie, as the collator tells (`bounds` of
                `distime.model.block_attention.make_blocks`), for the attention of that module.
            return_dict: accepted for transformers; the output is always a `DisTimeOutput`.
            **kwargs: those of `transformers.utils.generic.TransformersKwargs`, for the language
                model.

        Raises:
            TypeError: a keyword that nobody knows.
            ValueError: tokens and the tensors that belong to them do not match.
        """
        _refuse_unknown(kwargs)
        cache = past_key_values if cache is None else cache
        features, is_placeholder = None, None
        is_plain = position_ids is not None and position_ids.ndim == 2
        if group_ids is None and is_plain and cache is None and token_index is None:
            packing = groups_from_positions(position_ids, attention_mask)
            group_ids, sample_ids = packing or (None, None)
        if inputs_embeds is None:
            features = self.features(pixel_values, image_grid_thw, image_features)
            # What a cache follows on was checked before, and a model may emit any token.
            continues = cache is not None and cache.get_seq_length() > 0
            has_media = not continues or features is not None or frame_times is not None
            if token_index is not None:
                index = TokenIndex(**token_index)
            else:
                index = self.find_tokens(input_ids, labels, sample_ids, media=has_media)
            if has_media:
                self.check_media(index, features, frame_times, time_targets)
            given = self._given_times(index, time_targets)
            inputs_embeds = self._embed(input_ids, index, features, frame_times, given)
            if features is not None:
                is_placeholder = self.is_placeholder(input_ids)
        elif labels is not None:
            raise ValueError("labels need input_ids, not inputs_embeds: they name the time tokens")
        elif any(given is not None for given in (pixel_values, image_features, frame_times)):
            raise ValueError(
                "pixel_values, image_features and frame_times need input_ids, not inputs_embeds: "
                "they belong to tokens"
            )

        if position_ids is None:
            position_ids = self.prompt_positions(input_ids, attention_mask, image_grid_thw)
            if position_ids is not None:
                position_ids = position_ids[..., -inputs_embeds.shape[1] :]
        text_config = self.config.get_text_config()
        if "cu_seq_lens_q" in kwargs and "flash" in text_config._attn_implementation:
            attention_mask = None  # all is said
        elif attention_blocks is not None and text_config._attn_implementation == SDPA_BLOCKS:
            dtype = attention_dtype(inputs_embeds)
            kwargs["blocks"] = make_blocks(attention_blocks, sample_ids, dtype)
            attention_mask = inputs_embeds.new_zeros(1, 1, 1, 1)  # so that none is made
        elif group_ids is not None:
            if self.position_rows > 1 and "flash" in self.config._attn_implementation:
                raise ValueError(
                    "flash attention reads where packed samples begin from positions, which have "
                    "several coordinates here; load the model with attn_implementation='sdpa'"
                )
            attention_mask = packed_attention_mask(
                text_config, inputs_embeds, group_ids, sample_ids
            )
        if attention_mask is None and token_index is not None:
            attention_mask = plain_attention_mask(text_config)

        outputs = self.run_language_model(
            inputs_embeds,
            is_placeholder,
            features,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **{CACHE: cache},
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        result = DisTimeOutput(
            last_hidden_state=hidden,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )
        if labels is None or not self.training:
            is_count = isinstance(logits_to_keep, int)
            kept = slice(-logits_to_keep, None) if is_count else logits_to_keep
            result.logits = self.lm_head(hidden[:, kept])
        if labels is not None:
            losses, logits, result.time_logits = self._losses(
                hidden, index, labels, time_targets, sample_ids, loss_weight, loss_divisor
            )
            result.loss, result.text_loss = losses.total, losses.text
            for name, loss in losses.times.items():
                result[f"{name}_loss"] = loss
            result.logits = logits if result.logits is None else result.logits
        return result

    def _losses(
        self,
        hidden: Tensor,
        index: TokenIndex,
        labels: Tensor,
        time_targets: Tensor | None,
        sample_ids: Tensor | None,
        loss_weight: Tensor | None,
        loss_divisor: Tensor | float | None,
    ) -> tuple[Losses, Tensor, Tensor | None]:
        targets_at = index.events.index_select(0, index.targets)
        if time_targets is None:
            if len(index.targets):
                raise ValueError(
                    f"{len(index.targets)} supervised <TIME_STAMP> tokens have no time_targets"
                )
            time_targets = hidden.new_zeros(0, 2)
        targets = time_targets.index_select(0, index.targets).float().clamp(0, 1)

        def sample_of(places: Tensor) -> Tensor:
            if sample_ids is None:  # a row each
                return places.div(labels.shape[1], rounding_mode="floor")
            return sample_ids.flatten().index_select(0, places)

        weights = {}
        if loss_weight is not None:
            # As published, the weights of unsupervised positions are part of the denominator.
            everywhere = torch.arange(labels.numel(), device=labels.device).view_as(labels)[:, 1:]
            owner, weight = sample_of(everywhere.flatten()), loss_weight[:, 1:].flatten()
            weights["text_weight"] = loss_weight.flatten().index_select(0, index.supervised)
            weights["text_weight_sum"] = sum_per_sample(
                torch.where(owner >= 0, weight, 0.0), owner.clamp(min=0), index.num_samples
            )
        # The state at t predicts the token at t + 1; that is never the first of a row.
        states = hidden.flatten(0, 1)
        logits = self.lm_head(states.index_select(0, index.supervised - 1))
        time_logits = self.time_decoder and self.time_decoder(
            states.index_select(0, targets_at - 1)
        )
        losses = self.criterion(
            text_logits=logits,
            text_labels=labels.flatten().index_select(0, index.supervised),
            text_sample=sample_of(index.supervised),
            time_logits=time_logits,
            time_targets=targets,
            time_sample=sample_of(targets_at),
            num_samples=index.num_samples,
            divisor=loss_divisor,
            **weights,
        )
        return losses, logits, time_logits


def _refuse_unknown(kwargs: dict[str, Any]) -> None:
    """Raise for keywords that transformers does not hand around; it would swallow them."""
    if unknown := sorted(kwargs.keys() - TransformersKwargs.__optional_keys__):
        known = TimeMixin.forward.__annotations__
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"forward() got an unexpected keyword argument {unknown[0]!r}{hint}")
