"""DisTime: an image-text-to-text model of transformers that reads and writes continuous time.

`TimeMixin` holds all that DisTime adds to a backbone (paper, section 3); a backbone is then a class
of a few lines. The model works in normalised time: 0 is the start of the video, 1 its end.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, InternVLForConditionalGeneration
from transformers import initialization as init
from transformers.generation import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast

from distime.model import adapter, published
from distime.model.config import DisTimeConfig
from distime.model.generation import DisTimeGenerateOutput, SharedPrefix, TimeTrace
from distime.model.hub import local_folder, why_no_checkpoint
from distime.model.library import CACHE
from distime.model.losses import DisTimeCriterion, Losses, sum_per_sample
from distime.model.packing import groups_from_positions, packed_attention_mask
from distime.model.time_modules import TimeDecoder, TimeEncoder, TimeLinear, expected_time
from distime.model.tokens import FRAME_TIME_REF, IMG_CONTEXT, TIME_STAMP
from distime.model.tying import follow_tensors
from distime.model.weights import (
    CheckpointError,
    check_loading,
    read_dtypes,
    set_dtypes,
    widest,
)

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100


@dataclass
class DisTimeOutput(CausalLMOutputWithPast):
    """What the forward pass returns: the library's own output and the losses of time.

    Args:
        loss: weighted sum of the three losses, mean over the samples of the batch; with `labels`.
        text_loss: cross-entropy of the supervised tokens.
        distribution_loss: distribution focal loss of the supervised `<TIME_STAMP>` tokens.
        iou_loss: DIoU loss of the same.
        logits: `(B, T, vocabulary)`, or fewer positions with `logits_to_keep`. A training step
            (training mode and labels) has `(S, vocabulary)`, the supervised positions alone.
        last_hidden_state: `(B, T, C)` after the final norm.
    """

    text_loss: Tensor | None = None
    distribution_loss: Tensor | None = None
    iou_loss: Tensor | None = None
    last_hidden_state: Tensor | None = None


class TimeMixin:
    """The time parts of DisTime over an image-text-to-text class of transformers.

    The class it is mixed into has `model.language_model`, `get_image_features` and `lm_head`, a
    `DisTimeConfig`-like configuration, and calls `add_time_modules` in its constructor.
    """

    # The trainer must not rescale the loss by token counts: it is a mean over samples.
    accepts_loss_kwargs = False

    def add_time_modules(self, config: DisTimeConfig) -> None:
        """Create the time encoder, the time decoder and the criterion."""
        width = config.get_text_config().hidden_size
        self.time_encoder = TimeEncoder(width, config.reg_max, config.enc_sigma, config.layer_num)
        self.time_decoder = TimeDecoder(width, config.reg_max, config.layer_num)
        self.criterion = DisTimeCriterion(config)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TimeLinear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    # ------------------------------------------------------------------ embeddings

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
        image_features: Tensor | None = None,
    ) -> Tensor:
        """Look up token embeddings and replace those of images and times (paper, section 3.2).

        Args:
            input_ids: `(B, T)`.
            pixel_values: `(F, 3, H, W)`, all tiles of the batch in token order.
            frame_times: `(R,)` normalised, one per `<FRAME_TIME_REF>` in batch order.
            time_targets: `(E, 2)` normalised intervals, one per `<TIME_STAMP>` in batch order,
                clamped here to [0, 1]. A NaN interval leaves the token its own embedding, as does
                None for all of them.
            image_features: `(F, N, C)` instead of `pixel_values`: N tokens for every tile, as
                `get_image_features` gives them. The vision tower does not run.

        Returns:
            `(B, T, C)`.

        Raises:
            ValueError: a count does not match the tokens.
        """
        embeds = self.get_input_embeddings()(input_ids)
        text_only = pixel_values is None and image_features is None
        if self.training:
            # A module that a batch does not need still runs; its output is dropped. So every
            # parameter has a gradient, and all ranks gather the same ones in the same order.
            size = self.config.vision_config.image_size
            pixel_values = embeds.new_zeros(1, 3, *size) if text_only else pixel_values
            frame_times = embeds.new_zeros(0) if frame_times is None else frame_times
        if pixel_values is not None:
            if image_features is not None:
                raise ValueError("give pixel_values or image_features, not both")
            image_features = self.get_image_features(pixel_values=pixel_values).pooler_output
        if image_features is not None:
            rows = image_features[:0] if text_only else image_features
            is_image = input_ids == self.config.image_token_id
            embeds = _replace(embeds, is_image, rows.flatten(0, 1), IMG_CONTEXT)

        intervals, is_time = [], []
        if frame_times is not None:
            is_frame = input_ids == self.config.frame_time_token_id
            _check_count(is_frame, frame_times, FRAME_TIME_REF, "entries in frame_times")
            intervals.append(frame_times.unsqueeze(-1).expand(-1, 2))
            is_time.append(is_frame)
        if time_targets is not None:
            is_event = input_ids == self.config.time_token_id
            _check_count(is_event, time_targets, TIME_STAMP, "intervals in time_targets")
            known = ~time_targets.isnan().any(-1)
            is_known = is_event.masked_scatter(is_event, known)
            intervals.append(time_targets[known].clamp(0, 1))
            is_time.append(is_known)
        if intervals:
            # One pass of the encoder for frames and events together.
            encoded = self.time_encoder(torch.cat([i.float() for i in intervals]))
            for mask, rows in zip(is_time, encoded.split([len(i) for i in intervals]), strict=True):
                embeds = embeds.masked_scatter(mask.unsqueeze(-1), rows.to(embeds.dtype))
        return embeds

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
        logits_to_keep: int | Tensor = 0,
        group_ids: Tensor | None = None,
        sample_ids: Tensor | None = None,
        loss_weight: Tensor | None = None,
        loss_divisor: Tensor | float | None = None,
        image_features: Tensor | None = None,
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
            pixel_values: `(F, 3, H, W)`, all tiles of the batch in token order.
            frame_times: `(R,)`, one normalised time per `<FRAME_TIME_REF>`, in batch order.
            time_targets: `(E, 2)`, one normalised interval per `<TIME_STAMP>`, in batch order.
            labels: `(B, T)`, -100 where a token is not supervised. A `<TIME_STAMP>` counts for the
                time losses where its label is set.
            position_ids: `(B, T)`; positions that restart at 0 within a row pack several samples.
            cache: keys and values of earlier tokens.
            past_key_values: the same, by the name that transformers used before 5.24.
            inputs_embeds: `(B, T, C)` instead of `input_ids` (inference only).
            use_cache: return a cache.
            logits_to_keep: number of last positions to compute logits for, 0 for all.
            group_ids: `(B, T)` packing with shared prefixes, see `distime.model.packing`.
            sample_ids: `(B, T)` likewise; samples are numbered from 0 over the batch.
            loss_weight: `(B, T)` weight of every token in the text loss.
            loss_divisor: divides the sum of the samples' losses instead of their number here.
            image_features: `(F, N, C)` instead of `pixel_values`, see `embed`.
            return_dict: accepted for transformers; the output is always a `DisTimeOutput`.
            **kwargs: handed to the language model.

        Raises:
            ValueError: tokens and the tensors that belong to them do not match.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed(
                input_ids, pixel_values, frame_times, time_targets, image_features
            )
        elif labels is not None:
            raise ValueError("labels need input_ids, not inputs_embeds: they name the time tokens")

        cache = past_key_values if cache is None else cache
        if group_ids is None and position_ids is not None and cache is None:
            packing = groups_from_positions(position_ids, attention_mask)
            group_ids, sample_ids = packing or (None, None)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
            position_ids = position_ids[:, -inputs_embeds.shape[1] :]
        if group_ids is not None:
            attention_mask = packed_attention_mask(
                self.config.get_text_config(), inputs_embeds, group_ids, sample_ids
            )

        outputs = self.model.language_model(
            inputs_embeds=inputs_embeds,
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
            if sample_ids is None:
                rows = torch.arange(len(labels), device=labels.device)
                sample_ids = rows.unsqueeze(-1).expand_as(labels)
            losses, logits = self._losses(
                hidden, input_ids, labels, time_targets, sample_ids, loss_weight, loss_divisor
            )
            result.loss, result.text_loss = losses.total, losses.text
            result.distribution_loss, result.iou_loss = losses.distribution, losses.iou
            result.logits = logits if result.logits is None else result.logits
        return result

    def _losses(
        self,
        hidden: Tensor,
        input_ids: Tensor,
        labels: Tensor,
        time_targets: Tensor | None,
        sample_ids: Tensor,
        loss_weight: Tensor | None,
        loss_divisor: Tensor | float | None,
    ) -> tuple[Losses, Tensor]:
        is_time = input_ids == self.config.time_token_id
        supervised = labels != IGNORED_LABEL
        supervised[:, 0] = False  # nothing predicts the first token of a row
        is_target = is_time & supervised
        if time_targets is None:
            if is_target.any():
                raise ValueError(
                    f"{int(is_target.sum())} supervised <TIME_STAMP> tokens have no time_targets"
                )
            time_targets = hidden.new_zeros(0, 2)
        targets = time_targets[is_target[is_time]].float().clamp(0, 1)
        num_samples = max(int(sample_ids.max()) + 1, 1)

        before = hidden[:, :-1]  # the state at t predicts the token at t + 1
        weights = {}
        if loss_weight is not None:
            # As published, the weights of unsupervised positions are part of the denominator.
            owned = sample_ids[:, 1:] >= 0
            weights["text_weight"] = loss_weight[supervised]
            weights["text_weight_sum"] = sum_per_sample(
                loss_weight[:, 1:][owned], sample_ids[:, 1:][owned], num_samples
            )
        logits = self.lm_head(before[supervised[:, 1:]])
        losses = self.criterion(
            text_logits=logits,
            text_labels=labels[supervised],
            text_sample=sample_ids[supervised],
            time_logits=self.time_decoder(before[is_target[:, 1:]]),
            time_targets=targets,
            time_sample=sample_ids[is_target],
            num_samples=num_samples,
            divisor=loss_divisor,
            **weights,
        )
        return losses, logits

    # ------------------------------------------------------------------ generation

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> DisTimeGenerateOutput | Tensor:
        """`generate` of transformers, greedy or sampling, for any batch (left-padded).

        When a row emits `<TIME_STAMP>`, the hidden state that predicted it is decoded to a time,
        and the next step is fed the time encoder's embedding of that time.

        Args:
            *args: as for transformers.
            **kwargs: as for transformers, with `pixel_values`, `frame_times` and optionally
                `time_targets` for `<TIME_STAMP>` tokens of the prompt (see `embed`). `durations`
                is ignored, so that all a processor returns can be passed.

        Returns:
            token ids, or with `return_dict_in_generate=True` a `DisTimeGenerateOutput`.

        Raises:
            ValueError: for beam search and assisted decoding.
        """
        kwargs.pop("durations", None)
        trace = TimeTrace()
        output = super().generate(*args, time_trace=trace, **kwargs)
        if isinstance(output, Tensor):
            return output
        # The very last token of a row is never fed back, so its time is still to be decoded.
        self._record_times(trace, output.sequences[:, -1])
        new = output.sequences[:, trace.prompt_length :]
        counts = (new == self.config.time_token_id).sum(-1).tolist()
        bins = self.config.reg_max + 1
        nothing = trace.hidden_state.new_zeros(0, dtype=torch.float32)
        return DisTimeGenerateOutput(
            **output,
            times=[
                torch.stack(row[:count]) if count else nothing.view(0, 2)
                for row, count in zip(trace.intervals, counts, strict=True)
            ],
            time_distributions=[
                torch.stack(row[:count]) if count else nothing.view(0, 2, bins)
                for row, count in zip(trace.distributions, counts, strict=True)
            ],
        )

    def _record_times(self, trace: TimeTrace, tokens: Tensor) -> Tensor:
        """Decode the times `(n, 2)` of the rows whose latest token `(B,)` is `<TIME_STAMP>`.

        The decoder also runs where there are none, and the encoder behind it: under ZeRO-3 every
        rank must run what any rank runs.
        """
        emitted = tokens == self.config.time_token_id
        distributions = self.time_decoder(trace.hidden_state[emitted]).softmax(-1)
        intervals = expected_time(distributions)
        trace.append(emitted.nonzero().flatten().tolist(), distributions, intervals)
        return intervals

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        time_trace: TimeTrace | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Add to a step's inputs the times of its `<FRAME_TIME_REF>` and `<TIME_STAMP>` tokens."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if time_trace is None:
            return inputs | {"frame_times": frame_times, "time_targets": time_targets}
        is_first = time_trace.hidden_state is None
        new_intervals = None
        if is_first:
            time_trace.begin(input_ids, self.config.time_token_id, time_targets)
        else:
            new_intervals = self._record_times(time_trace, input_ids[:, -1])
        if is_first or not kwargs.get("use_cache", True):
            inputs |= {"frame_times": frame_times, "time_targets": time_trace.all_intervals()}
        else:
            inputs |= {"time_targets": new_intervals}
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: DisTimeOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        if (trace := model_kwargs.get("time_trace")) is not None:
            trace.hidden_state = outputs.last_hidden_state[:, -1].clone()
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeat every prompt `expand_size` times, with the tiles and times of its own tokens."""
        token_of = {
            "pixel_values": self.config.image_token_id,
            "frame_times": self.config.frame_time_token_id,
            "time_targets": self.config.time_token_id,
        }
        tensors = {key: model_kwargs.pop(key, None) for key in token_of}
        if expand_size > 1:
            for key, tensor in tensors.items():
                if tensor is None or len(tensor) == 0:
                    continue
                tokens = (input_ids == token_of[key]).sum(-1)
                # An image is many tokens; a time is one.
                per_row = (tokens * len(tensor) // tokens.sum().clamp(min=1)).tolist()
                rows = tensor.split(per_row)
                tensors[key] = torch.cat([row for row in rows for _ in range(expand_size)])
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | tensors

    def _validate_generation_mode(self, generation_mode, generation_config, *args, **kwargs):
        if generation_mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
            raise ValueError(
                f"DisTime generates greedily or by sampling, not by {generation_mode.value}: the "
                "time of a <TIME_STAMP> belongs to the one hypothesis that predicted it. "
                "Use num_beams=1 and no assistant model"
            )
        super()._validate_generation_mode(generation_mode, generation_config, *args, **kwargs)

    # ------------------------------------------------------------------ shared prefix

    @torch.no_grad()
    def encode_prefix(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
    ) -> SharedPrefix:
        """Run the part of a prompt that many questions share: the video, once.

        Args:
            input_ids: `(1, P)`.
            pixel_values: `(F, 3, H, W)`.
            frame_times: `(R,)` normalised.
            time_targets: `(E, 2)` normalised, see `embed`.
        """
        output = self(
            input_ids=input_ids,
            pixel_values=pixel_values,
            frame_times=frame_times,
            time_targets=time_targets,
            use_cache=True,
            logits_to_keep=1,
        )
        return SharedPrefix(output[CACHE], input_ids.shape[1])

    def generate_from_prefix(
        self,
        prefix: SharedPrefix,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> DisTimeGenerateOutput | Tensor:
        """Answer many questions behind one prefix: tokens and times as if each were asked alone.

        Args:
            prefix: from `encode_prefix`; it is not changed and can be used again.
            input_ids: `(N, S)`, what follows the prefix in each prompt, left-padded.
            attention_mask: `(N, S)`, 0 at padding.
            **kwargs: as for `generate`.

        Returns:
            as `generate`; sequences begin with `input_ids`, without the prefix.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0) + prefix.length
        seen = mask.new_ones(len(mask), prefix.length)
        return self.generate(
            input_ids=input_ids,
            attention_mask=torch.cat([seen, mask], dim=-1),
            position_ids=position_ids,
            **{CACHE: prefix.repeated(len(input_ids))},
            **kwargs,
        )


class DisTimeForConditionalGeneration(TimeMixin, InternVLForConditionalGeneration):
    """DisTime over InternVL2.5 (vision tower, projector, and Qwen2 or InternLM2 language model)."""

    config_class = DisTimeConfig
    config: DisTimeConfig

    def __init__(self, config: DisTimeConfig):
        super().__init__(config)
        self.add_time_modules(config)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *args: Any,
        config_overrides: dict[str, Any] | None = None,
        adapter_base: str | Path | None = None,
        exact: bool = False,
        **kwargs: Any,
    ) -> DisTimeForConditionalGeneration:
        """Load our own layout, an adapter, a base InternVL2.5, or a published DisTime checkpoint.

        Which of them it is shows in the files: see `distime.model.published`. LoRA weights of an
        unmerged published checkpoint are merged into the layers they adapt, and an adapter
        (`distime.model.adapter`) is folded into the base checkpoint that it names.

        Args:
            pretrained_model_name_or_path: folder, or a name on the hub: see
                `distime.model.hub.local_folder`.
            *args: as for transformers.
            config_overrides: fields of the configuration to set before the model is made.
            exact: give every tensor the type that it has in the files. Otherwise all have one type,
                `dtype` or the checkpoint's, and rounding that nobody asked for is logged.
            adapter_base: folder of the adapter's base, where it is not where it was.
            **kwargs: as for transformers (`dtype`, `device_map`, `attn_implementation`,
                `revision`, ...).

        Raises:
            HubError: there is neither such a folder nor such a name on the hub.
            CheckpointError: tensors are missing, unexpected or of a wrong shape; lists
                their names.
        """
        path = local_folder(pretrained_model_name_or_path, kwargs.pop("revision", None))
        if adapter.is_adapter(path):
            return cls._from_adapter(path, adapter_base, config_overrides or {}, *args, **kwargs)
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path} {why_no_checkpoint(path)}")
        wants_info = kwargs.pop("output_loading_info", False)
        # Transformers only warns of some misfits; collected here, every one of them is an error.
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        if published.is_published(path):
            checkpoint = published.read(path, config_overrides)
            dtypes = {name: tensor.dtype for name, tensor in checkpoint.tensors.items()}
            kwargs.setdefault("config", checkpoint.config)
            default, may_miss = checkpoint.dtype, checkpoint.fresh
            source, kwargs["state_dict"] = None, checkpoint.tensors
        else:
            dtypes, default, may_miss, source = read_dtypes(path), None, (), path
            if config_overrides:
                kwargs["config"] = cls.config_class.from_pretrained(path, **config_overrides)
        is_asked = exact or kwargs.get("dtype", "auto") != "auto"
        if exact:
            default = widest(dtypes.values())
        if default is not None:
            kwargs.setdefault("dtype", default)
        model, info = super().from_pretrained(source, *args, **kwargs)
        check_loading(path, info, may_miss=may_miss)
        follow_tensors(model)
        if source is None:
            model.generation_config = checkpoint.generation_config
        if exact:
            set_dtypes(model, dtypes)
        elif not is_asked:
            _warn_of_rounding(path, dtypes, model.dtype)
        return (model, info) if wants_info else model

    @classmethod
    def _from_adapter(
        cls,
        path: Path,
        base: str | Path | None,
        config_overrides: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> DisTimeForConditionalGeneration:
        description = adapter.read_description(path)
        base = Path(base or description.base)
        if not (base / "config.json").is_file() and not adapter.is_adapter(base):
            raise CheckpointError(
                f"{path}: an adapter of {base}, which is not there; name the base with "
                "`distime merge BASE ADAPTER DST`"
            )
        kwargs.setdefault("dtype", getattr(torch, description.dtype))
        overrides = description.config_overrides | config_overrides
        loaded = cls.from_pretrained(base, *args, config_overrides=overrides, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        adapter.apply(model, path, description)
        return loaded

    def save_pretrained(
        self, save_directory: str | Path, *args: Any, save_original_format: bool = False, **kwargs
    ) -> None:
        """Write our own layout: tensors under the names they have in the model.

        Transformers would rename some to those of its hub checkpoints, which the trainer's resuming
        does not undo: it would go on from random weights with no more than a warning.

        Args:
            save_directory: folder.
            *args: as for transformers.
            save_original_format: rename all the same.
            **kwargs: as for transformers.
        """
        follow_tensors(self)
        super().save_pretrained(
            save_directory, *args, save_original_format=save_original_format, **kwargs
        )


def _check_count(mask: Tensor, values: Tensor, token: str, what: str) -> None:
    count = int(mask.sum())
    if count != len(values):
        raise ValueError(
            f"input_ids has {count} {token} tokens, but there are {len(values)} {what}"
        )


def _warn_of_rounding(path: Path, dtypes: dict[str, torch.dtype], loaded: torch.dtype) -> None:
    rounded = [name for name, dtype in dtypes.items() if widest((dtype, loaded)) != loaded]
    if rounded:
        logger.warning(
            "%s: %d of %d tensors are %s in the files and were rounded to %s, the type of the "
            "others, such as %s; dtype=torch.float32 keeps their bits",
            path, len(rounded), len(dtypes), dtypes[rounded[0]], loaded, rounded[0],
        )  # fmt: skip


def _replace(embeds: Tensor, mask: Tensor, rows: Tensor, token: str) -> Tensor:
    """Put `rows` `(n, C)` where `mask` `(B, T)` is set, in order."""
    _check_count(mask, rows, token, "embeddings for them")
    return embeds.masked_scatter(mask.unsqueeze(-1), rows.to(embeds.dtype))
