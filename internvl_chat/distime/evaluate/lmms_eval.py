"""DisTime as a model of `lmms-eval`, for the video tasks that it has.

    lmms-eval --model distime --model_args pretrained=CHECKPOINT --tasks TASK

lmms-eval finds `manifest` by the entry point group `lmms_eval.models`. This module alone imports
lmms-eval, and nothing of this package imports it: docs/EVALUATION.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from lmms_eval.api.model import lmms

from distime.api import DisTime, RequestError
from distime.errors import DisTimeError
from distime.model.tokens import TIME_STAMP
from distime.processing.answers import Answer
from distime.progress import progress

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.registry_v2 import ModelManifest

logger = logging.getLogger(__name__)

PASSED_ON = ("max_new_tokens",)
PASSED_ON_SAMPLING = ("temperature", "top_p", "top_k")
READ = {*PASSED_ON, *PASSED_ON_SAMPLING, "do_sample", "num_beams", "until"}


def manifest() -> ModelManifest:
    """Return what lmms-eval keeps in its registry: the name `distime`, and the class."""
    # Not above: lmms-eval calls this while it imports the package that the manifest's class is of.
    from lmms_eval.models.registry_v2 import ModelManifest

    path = f"{LmmsEvalModel.__module__}.{LmmsEvalModel.__qualname__}"
    return ModelManifest(model_id="distime", simple_class_path=path)


class LmmsEvalModel(lmms):
    """Answers lmms-eval's requests about one video each.

    Args:
        pretrained: folder of a checkpoint, or its name on the hub.
        device: such as "cpu"; by default the first GPU, of several processes each its own, else
            the CPU.
        dtype: of the weights, by its name in torch; "auto" keeps that of the files.
        batch_size: questions that are answered at once.
        num_frames: frames of each video, by default as the checkpoint says.
        **unknown: nothing else; lmms-eval hands on all that it is given.

    Raises:
        RequestError: an argument is not known or out of range.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 1,
        num_frames: int | None = None,
        **unknown: Any,
    ):
        super().__init__()
        if unknown:
            raise RequestError(
                f"model_args: unknown {', '.join(sorted(unknown))}; give pretrained, device, "
                "dtype, batch_size, num_frames"
            )
        if dtype != "auto" and not isinstance(getattr(torch, str(dtype), None), torch.dtype):
            raise RequestError(f"dtype {dtype!r}: give auto, bfloat16, float16 or float32")
        self.num_frames = None if num_frames is None else _count("num_frames", num_frames)
        rows = _count("batch_size", batch_size)
        self.distime = DisTime.from_pretrained(
            str(pretrained),
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            device=_own_gpu() if device in (None, "cuda") else device,
        )
        self.distime.batch_size = rows

    @property
    def device(self) -> torch.device:
        """Where the model runs; lmms-eval gathers what its processes counted there."""
        return self.distime.model.device

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answer each request, in order, its times written as in "12.5 - 30.0 seconds".

        Requests about one video share one pass over it.

        Raises:
            RequestError: a request is not about one video, or cannot be answered; names it.
        """
        groups: dict[tuple[str, tuple], list[int]] = {}
        for index, request in enumerate(requests):
            options = decoding(request.args[1])
            groups.setdefault((self._video(request), tuple(options.items())), []).append(index)
        jobs = (
            self.distime.job(
                video,
                [requests[index].args[0] for index in group],
                num_frames=self.num_frames,
                tag=group,
                **dict(options),
            )
            for (video, options), group in groups.items()
        )
        texts = [""] * len(requests)
        with progress(total=len(requests), unit="request", disable=self.rank != 0) as bar:
            for finished in self.distime.engine.run(jobs):
                group = finished.job.tag[1]
                for index, result in zip(group, self.distime.results(finished), strict=True):
                    if isinstance(result, DisTimeError):
                        raise RequestError(f"{_name(requests[index])}: {result}") from result
                    if isinstance(result, Exception):
                        raise result
                    texts[index] = written(result, requests[index].args[1].get("until"))
                bar.update(len(group))
        return texts

    def _video(self, request: Instance) -> str:
        _, _, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        if len(visuals) != 1 or not isinstance(visuals[0], str | os.PathLike):
            kinds = ", ".join(type(visual).__name__ for visual in visuals) or "nothing"
            raise RequestError(
                f"{_name(request)} shows {kinds}: DisTime answers about one video, given as the "
                "path of a file or of a folder of frames; choose another task"
            )
        return os.fspath(visuals[0])

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not offered: a time is no token, so that an answer with times has no such number."""
        raise RequestError(
            "loglikelihood is not offered: choose tasks of output_type generate_until"
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not offered."""
        raise RequestError(
            "several rounds are not offered: choose tasks of output_type generate_until"
        )

    def clean(self) -> None:
        """Release the model's memory; nothing more is asked."""
        self.__dict__.pop("distime", None)
        super().clean()


def decoding(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's `generation_kwargs` as options of `DisTime.job`; None is not given.

    Tokens are drawn where `do_sample` says so or, where it is silent, with a temperature above 0;
    a temperature of 0 is the likeliest answer whatever else is said.

    Raises:
        RequestError: beams are asked for.
    """
    given = {name: value for name, value in generation.items() if value is not None}
    if unread := sorted(given.keys() - READ):
        logger.warning("generation_kwargs: DisTime has no %s; left out", ", ".join(unread))
    if given.get("num_beams", 1) != 1:
        raise RequestError(f"num_beams is {given['num_beams']}: DisTime has no beams, give 1")
    temperature = given.get("temperature")
    options = {name: given[name] for name in PASSED_ON if name in given}
    if temperature != 0 and given.get("do_sample", temperature is not None):
        options["do_sample"] = True
        options |= {name: given[name] for name in PASSED_ON_SAMPLING if name in given}
    return options


def written(answer: Answer, until: str | Sequence[str] | None) -> str:
    """Return the words up to the first of the strings `until`, with the times in seconds.

    The strings end what the model said: a "." among them does not cut a time.
    """
    text = answer.text
    for stop in [until] if isinstance(until, str) else until or []:
        text = text.split(stop)[0] if stop else text
    shown = answer.events[: text.count(TIME_STAMP)]
    return replace(answer, text=text, events=shown).with_times("seconds")


def _name(request: Instance) -> str:
    *_, doc_id, task, _ = request.args
    return f"document {doc_id} of {task}"


def _count(name: str, value: Any) -> int:
    if not str(value).isdecimal() or int(value) < 1:
        raise RequestError(f"{name} {value}: give a whole number of at least 1")
    return int(value)


def _own_gpu() -> str | None:
    """The GPU of this process of several; None to choose as ever."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None
