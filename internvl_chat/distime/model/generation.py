"""Time in generation: what the loop of transformers must remember from one step to the next."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.generation import GenerateDecoderOnlyOutput, GenerationMode
from transformers.modeling_outputs import ModelOutput

from distime.model.library import CACHE
from distime.model.seam import next_position


@dataclass
class DisTimeGenerateOutput(GenerateDecoderOnlyOutput):
    """The output of `generate` with `return_dict_in_generate=True`.

    Args:
        times: per row the intervals `(n, 2)` of its generated `<TIME_STAMP>` tokens in order, in
            normalised time. Nothing orders start and end.
        time_distributions: per row the distributions `(n, 2, reg_max + 1)` whose expectations they
            are; None where the time head has none.
    """

    times: list[Tensor] | None = None
    time_distributions: list[Tensor] | None = None


@dataclass
class TimeTrace:
    """Carried as a model kwarg through one call of `generate`.

    Args:
        hidden_state: `(B, C)`, the last hidden states of the latest step: those that predicted the
            token which the next step will see.
        prompt_intervals: per row the intervals `(n, 2)` of the `<TIME_STAMP>` tokens of its prompt,
            NaN where the token keeps its own embedding.
        distributions: per row the distribution `(2, reg_max + 1)` of every generated token, if the
            time head has any.
        intervals: per row the interval `(2,)` of every generated token.
        prompt_length: number of token ids before the first generated one.
        reencodes: a generated token is fed with the embedding of its time, not its own.
    """

    hidden_state: Tensor | None = None
    prompt_intervals: list[Tensor] = field(default_factory=list)
    distributions: list[list[Tensor]] = field(default_factory=list)
    intervals: list[list[Tensor]] = field(default_factory=list)
    prompt_length: int = 0
    reencodes: bool = True

    def begin(self, input_ids: Tensor, time_token_id: int, time_targets: Tensor | None) -> None:
        """Record the prompt: ids `(B, T)` and one interval per `<TIME_STAMP>`, if known."""
        counts = (input_ids == time_token_id).sum(-1).tolist()
        if time_targets is None:
            time_targets = torch.full((sum(counts), 2), torch.nan, device=input_ids.device)
        if len(time_targets) != sum(counts):
            raise ValueError(
                f"the prompts have {sum(counts)} <TIME_STAMP> tokens, "
                f"but time_targets has {len(time_targets)} intervals"
            )
        self.prompt_intervals = list(time_targets.split(counts))
        self.distributions = [[] for _ in counts]
        self.intervals = [[] for _ in counts]
        self.prompt_length = input_ids.shape[1]

    def append(self, rows: list[int], distributions: Tensor | None, intervals: Tensor) -> None:
        """Record the times `(len(rows), ...)` of the tokens that these rows have just emitted."""
        for index, row in enumerate(rows):
            self.intervals[row].append(intervals[index])
            if distributions is not None:
                self.distributions[row].append(distributions[index])

    def fed(self, intervals: Tensor) -> Tensor:
        """What generated tokens with these intervals are embedded with; NaN: their own."""
        return intervals if self.reencodes else torch.full_like(intervals, torch.nan)

    def all_intervals(self) -> Tensor:
        """What all `<TIME_STAMP>` tokens so far are embedded with, `(E, 2)` in batch order."""
        rows = zip(self.prompt_intervals, self.intervals, strict=True)
        return torch.cat(
            [part for prompt, new in rows for part in (prompt, *(self.fed(t[None]) for t in new))]
        )


class _Filled(Exception):
    """The last layer's keys and values are there."""


class _PrefixCache(DynamicCache):
    """Ends the pass that fills it as soon as its last layer has keys and values.

    All that follows is for logits, and nothing is said before the question: of 24 layers it is
    4 per cent of the work.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config=config)
        self.last_layer = config.num_hidden_layers - 1

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        """Keep a layer's keys and values.

        Raises:
            _Filled: they are the last ones of the first pass.
        """
        kept = super().update(keys, values, layer_idx, *args, **kwargs)
        if layer_idx == self.last_layer and kept[0].shape[-2] == keys.shape[-2]:
            raise _Filled
        return kept


@dataclass
class SharedPrefix:
    """The keys and values of a prompt's beginning (one video), computed once for many questions.

    Args:
        cache: of batch size 1.
        length: number of tokens in it.
        next_position: of the token that follows. It is the length where tokens have one position;
            where pictures have two-dimensional ones, it is smaller.
    """

    cache: Cache
    length: int
    next_position: int

    def repeated(self, count: int) -> DynamicCache:
        """Return a new cache that holds this prefix `count` times."""
        copy = DynamicCache()
        for index, layer in enumerate(self.cache.layers):
            copy.update(
                layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), index
            )
        return copy


class TimeGeneration:
    """Mixed into a model: `generate` of transformers with times, and prefixes that are shared."""

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> DisTimeGenerateOutput | Tensor:
        """`generate` of transformers, greedy or sampling, for any batch (left-padded).

        When a row emits `<TIME_STAMP>`, the hidden state that predicted it is decoded to a time,
        and the next step is fed the time encoder's embedding of that time, unless the configuration
        says `reencode_times=False`.

        Args:
            *args: as for transformers.
            **kwargs: as for transformers, with `pixel_values` (or `image_features`), `frame_times`
                and optionally `time_targets` for `<TIME_STAMP>` tokens of the prompt (see `embed`).
                `durations` is ignored, so that all a processor returns can be passed.

        Returns:
            token ids, or with `return_dict_in_generate=True` a `DisTimeGenerateOutput`.

        Raises:
            ValueError: for beam search and assisted decoding; pictures or times do not match the
                prompts' tokens.
        """
        kwargs.pop("durations", None)
        self._prepare_prompt(args, kwargs)
        trace = TimeTrace(reencodes=self.config.reencode_times)
        output = super().generate(*args, time_trace=trace, **kwargs)
        if isinstance(output, Tensor):
            return output
        # The very last token of a row is never fed back, so its time is still to be decoded.
        self._record_times(trace, output.sequences[:, -1])
        new = output.sequences[:, trace.prompt_length :]
        counts = (new == self.config.time_token_id).sum(-1).tolist()
        bins = self.config.reg_max + 1
        nothing = trace.hidden_state.new_zeros(0, dtype=torch.float32)

        def stacked(rows: list[list[Tensor]], *shape: int) -> list[Tensor]:
            return [
                torch.stack(row[:count]) if count and row else nothing.view(0, *shape)
                for row, count in zip(rows, counts, strict=True)
            ]

        return DisTimeGenerateOutput(
            **output,
            times=stacked(trace.intervals, 2),
            time_distributions=stacked(trace.distributions, 2, bins)
            if self.time_head.has_distribution
            else None,
        )

    def _prepare_prompt(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """Turn pictures into features and find positions, once and before the loop, in place.

        Features lie flat, one for each token, so that the loop can cut and repeat them without
        knowing what they are of.
        """
        input_ids = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        if input_ids is None:
            return
        pixels, grid = kwargs.pop("pixel_values", None), kwargs.pop("image_grid_thw", None)
        features = self.features(pixels, grid, kwargs.get("image_features"))
        self.check_media(self.find_tokens(input_ids), features, kwargs.get("frame_times"))
        kwargs["image_features"] = features
        if kwargs.get("position_ids") is None and kwargs.get(CACHE) is None:
            kwargs["position_ids"] = self.prompt_positions(
                input_ids, kwargs.get("attention_mask"), grid
            )

    def _record_times(self, trace: TimeTrace, tokens: Tensor) -> Tensor | None:
        """Decode the times of the rows whose latest token `(B,)` is `<TIME_STAMP>`.

        The decoder also runs where there are none, and the encoder behind it: under ZeRO-3 every
        rank must run what any rank runs.

        Returns:
            what the tokens are embedded with, `(n, 2)`; None where times are words and the token
            means nothing.
        """
        if self.time_decoder is None:
            return None
        emitted = tokens == self.config.time_token_id
        intervals, distributions = self.decode_times(trace.hidden_state[emitted])
        trace.append(emitted.nonzero().flatten().tolist(), distributions, intervals)
        return trace.fed(intervals)

    def decode_times(self, hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Decode hidden states `(N, C)` that predicted `<TIME_STAMP>`.

        Returns:
            normalised intervals `(N, 2)`, and the distributions `(N, 2, reg_max + 1)` if the time
            head has any.
        """
        logits = self.time_decoder(hidden_states)
        return self.time_head.decode(logits), self.time_head.distribution(logits)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        time_trace: TimeTrace | None = None,
        image_features: Tensor | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Add to a step's inputs the features and the times that belong to its tokens."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        media = {"image_features": image_features, "frame_times": frame_times}
        if time_trace is None:
            return inputs | media | {"time_targets": time_targets}
        is_first = time_trace.hidden_state is None
        new_intervals = None
        if is_first:
            time_trace.begin(input_ids, self.config.time_token_id, time_targets)
        else:
            new_intervals = self._record_times(time_trace, input_ids[:, -1])
        if self.time_head.in_words:
            inputs |= media if is_first or not kwargs.get("use_cache", True) else {}
        elif is_first or not kwargs.get("use_cache", True):
            inputs |= media | {"time_targets": time_trace.all_intervals()}
        else:
            inputs |= {"time_targets": new_intervals}
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
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
        """Repeat every prompt `expand_size` times, with the features and times of its tokens."""
        if expand_size > 1 and input_ids is not None:
            belongs_to = {
                "image_features": self.is_placeholder(input_ids),
                "frame_times": input_ids == self.config.frame_time_token_id,
                "time_targets": input_ids == self.config.time_token_id,
            }
            tensors = {key: model_kwargs.pop(key, None) for key in (*belongs_to, "position_ids")}
            for key, mask in belongs_to.items():
                if tensors[key] is not None and len(tensors[key]):
                    rows = tensors[key].split(mask.sum(-1).tolist())
                    tensors[key] = torch.cat([row for row in rows for _ in range(expand_size)])
            if tensors["position_ids"] is not None:  # (B, T) or (D, B, T)
                repeated = tensors["position_ids"].repeat_interleave(expand_size, dim=-2)
                tensors["position_ids"] = repeated
        else:
            tensors = {}
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

    @torch.no_grad()
    def encode_prefix(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        frame_times: Tensor | None = None,
        time_targets: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        image_features: Tensor | None = None,
        whole_pass: bool = False,
    ) -> SharedPrefix:
        """Run the part of a prompt that many questions share: the video, once.

        Args:
            input_ids: `(1, P)`.
            pixel_values: of the video, see `embed`.
            frame_times: `(R,)` normalised.
            time_targets: `(E, 2)` normalised, see `embed`.
            image_grid_thw: see `embed`.
            image_features: instead of `pixel_values`, see `embed`.
            whole_pass: run also what no question needs, for processes that share the model's
                weights (ZeRO-3) and must run the same modules.
        """
        positions, following = None, input_ids.shape[1]
        if self.position_rows > 1:
            positions = self.prompt_positions(input_ids, None, image_grid_thw)
            following = next_position(positions)
        config = self.config.get_text_config()
        cache = DynamicCache(config=config) if whole_pass else _PrefixCache(config)
        with suppress(_Filled):
            self(
                input_ids=input_ids,
                pixel_values=pixel_values,
                frame_times=frame_times,
                time_targets=time_targets,
                position_ids=positions,
                image_grid_thw=image_grid_thw,
                image_features=image_features,
                use_cache=True,
                logits_to_keep=slice(0),
                **{CACHE: cache},
            )
        return SharedPrefix(cache, input_ids.shape[1], following)

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
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0) + prefix.next_position
        if self.position_rows > 1:
            position_ids = position_ids.expand(self.position_rows, -1, -1)
        seen = mask.new_ones(len(mask), prefix.length)
        return self.generate(
            input_ids=input_ids,
            attention_mask=torch.cat([seen, mask], dim=-1),
            position_ids=position_ids,
            **{CACHE: prefix.repeated(len(input_ids))},
            **kwargs,
        )
