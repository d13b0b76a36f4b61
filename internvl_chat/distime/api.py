"""The friendly face of DisTime: videos and words in, events in seconds out.

    model = DisTime.from_pretrained("checkpoint/DisTime/DisTime-InternVL2_5-1B")
    model.ground("video.mp4", "the person closes the door")[0].start
    model.ground("video.mp4", ["the door closes", "the light goes on"])     # the video is read once
    model.caption(["a.mp4", "b.mp4"])
    for item in model.iter_ground(paths, "the door closes"):                # results and errors
        print(item.video, item.error or item.result)
    answer = model.chat("video.mp4", "What does she do?")
    model.chat("video.mp4", "And after that?", history=[("What does she do?", answer)])

Times are seconds as a player shows them and lie inside the video; an event starts before it ends
(the model itself is not bound to that: a reversed pair is swapped, with its distributions). Answers
are the model's most likely words unless sampling is asked for, and the same for a question alone as
among others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distime.backbones import DisTimeForConditionalGeneration
from distime.engine import Decoding, Engine, Finished, Job
from distime.errors import DisTimeError
from distime.model.attention import ATTENTION
from distime.model.hub import local_folder
from distime.model.tokens import FRAME_TIME_REF, TIME_STAMP
from distime.model_card import write_model_card
from distime.processing.answers import Answer, Events
from distime.processing.processor import DisTimeProcessor, PrefixInputs, Video
from distime.processing.prompt import PromptError
from distime.processing.questions import EVENT_CAPTIONING, JOIN, moment_retrieval_question
from distime.processing.video import VideoError

History = Sequence[tuple[str, str | Answer]]


class RequestError(DisTimeError):
    """A call asks for something that cannot be; the message says what to give instead."""


@dataclass(frozen=True)
class Item:
    """What became of one video and question of many: a result, or why there is none.

    Attributes:
        index: its place in the call.
        video: as given.
        text: the query or question.
        result: `Events` or `Answer`; None where the video or the question could not be used.
        error: why not; its message names the file.
    """

    index: int
    video: Video
    text: str
    result: Events | Answer | None = None
    error: DisTimeError | None = None


class BatchError(VideoError):
    """Some of several videos or questions could not be used; the others were answered.

    Attributes:
        items: an `Item` for each, in the order of the call, with its result or its error.
    """

    def __init__(self, items: Sequence[Item]):
        failed = [item for item in items if item.error]
        super().__init__(
            f"{len(failed)} of {len(items)} could not be answered (this error's `results` holds "
            "those of the others; `iter_ground`, `iter_caption` and `iter_chat` go on): "
            f"{'; '.join(dict.fromkeys(str(item.error) for item in failed))}"
        )
        self.items = list(items)

    @property
    def results(self) -> list[Events | Answer | None]:
        """The results in the order of the call, None where there is none."""
        return [item.result for item in self.items]


class DisTime:
    """A model with its processor.

    Args:
        model: on the device it is to run on.
        processor: of the same checkpoint.
        batch_size: questions that are answered at once, whatever videos they are about.

    Attributes:
        engine: that answers.
    """

    def __init__(
        self,
        model: DisTimeForConditionalGeneration,
        processor: DisTimeProcessor,
        batch_size: int = 16,
    ):
        if batch_size < 1:
            raise RequestError(f"batch_size {batch_size}: answer at least one question at once")
        processor.check_model(model.config)
        self.model = model.eval()
        self.processor = processor
        self.engine = Engine(model, processor, max_rows=batch_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike,
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
        attn_implementation: str | None = None,
        revision: str | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        max_video_tokens: int | None = None,
        image_size: int | None = None,
    ) -> DisTime:
        """Load model and processor of any checkpoint that the package reads.

        Args:
            path: folder in our layout or the published one. A name like "owner/model" that is no
                folder is fetched from the Hugging Face hub, or found among what was fetched before.
            dtype: of the weights; "auto" keeps that of the files.
            device: by default the first GPU where there is one, else the CPU.
            attn_implementation: "sdpa", "eager" or "flash_attention_2"; by default the best one
                that transformers finds.
            revision: branch, tag or commit on the hub.
            fps: look at that many frames for each second of a video; needs `max_frames`. Like the
                three that follow it stands in the processor's settings, and is saved with them; by
                default all are as the checkpoint says.
            max_frames: most frames that `fps` gives.
            max_video_tokens: budget of visual tokens for a video: frames get smaller on Qwen, and
                fewer elsewhere.
            image_size: side in pixels of the square that InternVL makes of a frame.

        Raises:
            RequestError: there is no such device or attention.
            HubError: there is neither such a folder nor such a name on the hub.
            CheckpointError: the weights do not fit the configuration.
            TokenizerError: the tokenizer cannot be read.
            ProcessorError: the processor cannot be read or belongs to another model.
        """
        device = check_device(device)
        if attn_implementation not in (None, *ATTENTION):
            raise RequestError(
                f"attn_implementation {attn_implementation!r}: choose one of {', '.join(ATTENTION)}"
            )
        folder = local_folder(path, revision)
        options = (
            {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        )
        if dtype != "auto":
            options["dtype"] = dtype
        # The processor first: its mistakes show before gigabytes are read.
        processor = DisTimeProcessor.from_pretrained(folder)
        processor.adjust(
            fps=fps,
            max_frames=max_frames,
            max_video_tokens=max_video_tokens,
            image_size=image_size,
        )
        model = DisTimeForConditionalGeneration.from_pretrained(folder, **options)
        if image_size is not None:
            processor.fit(model.config)
        return cls(model.to(device), processor)

    @property
    def batch_size(self) -> int:
        """Questions that are answered at once."""
        return self.engine.max_rows

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.engine.max_rows = value

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write model, processor and model card into a folder that is ready for a hub.

        A README.md that is there already is kept; a new one is filled from the ``run.json`` and
        ``metrics*.json`` in the folder.
        """
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        write_model_card(folder, self.model.config, self.processor.settings)

    # ------------------------------------------------------------------ what one can ask

    def ground(
        self,
        video: Video | Sequence[Video],
        query: str | Sequence[str],
        *,
        num_frames: int | None = None,
        **generation: Any,
    ) -> Events | list[Events]:
        """Find when something happens.

        Args:
            video: path of a video, gif or folder of frames, or a `VideoSample`; or several, one for
                each query. Queries about the same video share one pass over it.
            query: what to look for; or several, about the one video or one for each.
            num_frames: frames of each video, by default as the checkpoint says.
            **generation: see `ask`.

        Returns:
            the events, the one with the highest confidence first, each with the query as its text;
            empty where the model names no time: its words are in `Events.answer`. For several
            queries or videos a list of that.

        Raises:
            VideoError: a file cannot be read; the message names it. Of several videos the others
                are answered nevertheless: the error is then a `BatchError` that holds the results.
            RequestError: the numbers of videos and queries do not match.
        """
        options = {"num_frames": num_frames, **generation}
        is_single = isinstance(video, Video) and isinstance(query, str)
        return _collected(self.iter_ground(video, query, **options), is_single)

    def iter_ground(
        self, video: Video | Sequence[Video], query: str | Sequence[str], **options: Any
    ) -> Iterator[Item]:
        """Yield what `ground` finds for each query as soon as it is known, errors included.

        Queries about one video come together, so that the order need not be that of the call:
        `Item.index` says the place.
        """
        videos, queries = _pairs(video, query, "query")
        questions = [moment_retrieval_question(one) for one in queries]
        for item in self._answer_each(videos, questions, **options):
            item = replace(item, text=queries[item.index])
            if answer := item.result:
                events = sorted(answer.events, key=lambda event: -event.confidence)
                named = (replace(event, text=item.text) for event in events)
                item = replace(
                    item, result=Events(named, answer.duration, answer.text, answer.origin)
                )
            yield item

    def caption(
        self,
        video: Video | Sequence[Video],
        *,
        question: str = EVENT_CAPTIONING,
        num_frames: int | None = None,
        **generation: Any,
    ) -> Events | list[Events]:
        """List the events of a video, each with its times and its words.

        Args:
            video: path of a video, gif or folder of frames, or a `VideoSample`; or several.
            question: how to ask; `distime.processing.questions.STEP_CAPTIONING` is the question
                for instructional videos.
            num_frames: frames of each video, by default as the checkpoint says.
            **generation: see `ask`.

        Returns:
            the events in the order of the answer; for several videos a list of that.

        Raises:
            VideoError: a file cannot be read; of several videos a `BatchError`, see `ground`.
        """
        options = {"question": question, "num_frames": num_frames, **generation}
        is_single = isinstance(video, Video) and isinstance(question, str)
        return _collected(self.iter_caption(video, **options), is_single)

    def iter_caption(
        self, video: Video | Sequence[Video], *, question: str = EVENT_CAPTIONING, **options: Any
    ) -> Iterator[Item]:
        """Yield what `caption` finds for each video as soon as it is known, errors included."""
        for item in self._answer_each(*_pairs(video, question, "question"), **options):
            if answer := item.result:
                events = Events(answer.events, answer.duration, answer.text, answer.origin)
                item = replace(item, result=events)
            yield item

    def chat(
        self,
        video: Video | Sequence[Video],
        question: str | Sequence[str],
        history: History = (),
        *,
        num_frames: int | None = None,
        **generation: Any,
    ) -> Answer | list[Answer]:
        """Ask anything about a video.

        Args:
            video: path of a video, gif or folder of frames, or a `VideoSample`; or several, one for
                each question.
            question: the question; or several, about the one video or one for each.
            history: earlier (question, answer) pairs about the one video, which the question
                continues. Answers may be `Answer` objects, whose times the model is then shown, or
                text.
            num_frames: frames of each video, by default as the checkpoint says.
            **generation: see `ask`.

        Returns:
            the answer; for several questions or videos a list.

        Raises:
            VideoError: a file cannot be read; of several videos a `BatchError`, see `ground`.
            RequestError: the numbers of videos and questions do not match, or there is a history
                for several videos.
        """
        options = {"history": history, "num_frames": num_frames, **generation}
        is_single = isinstance(video, Video) and isinstance(question, str)
        return _collected(self.iter_chat(video, question, **options), is_single)

    def iter_chat(
        self,
        video: Video | Sequence[Video],
        question: str | Sequence[str],
        history: History = (),
        **options: Any,
    ) -> Iterator[Item]:
        """Yield what `chat` answers to each question as soon as it is known, errors included."""
        pairs = _pairs(video, question, "question")
        if history and not isinstance(video, Video):
            raise RequestError("a history belongs to one video: ask about one video at a time")
        yield from self._answer_each(*pairs, history=history, **options)

    def _answer_each(
        self, videos: Sequence[Video], questions: Sequence[str], **options: Any
    ) -> Iterator[Item]:
        """Answer one question per video, those about the same video behind one pass over it."""
        groups: dict[Any, list[int]] = {}
        for index, video in enumerate(videos):
            key = os.fspath(video) if isinstance(video, str | os.PathLike) else id(video)
            groups.setdefault(key, []).append(index)
        jobs = (
            self.job(videos[group[0]], [questions[i] for i in group], tag=group, **options)
            for group in groups.values()
        )
        for finished in self.engine.run(jobs):
            group = finished.job.tag[1]
            for index, result in zip(group, self.results(finished), strict=True):
                item = Item(index, videos[index], questions[index])
                if isinstance(result, Answer):
                    yield replace(item, result=result)
                elif isinstance(result, VideoError | PromptError):
                    yield replace(item, error=result)
                else:
                    raise result

    def job(
        self,
        video: Video,
        questions: Sequence[str],
        *,
        history: History = (),
        num_frames: int | None = None,
        samples: int = 1,
        tag: Any = None,
        **generation: Any,
    ) -> Job:
        """Return the engine's job of asking a video questions; `results` reads it when it is done.

        Args:
            video: path or `VideoSample`.
            questions: what the user turns say, after the frames.
            history: see `chat`; every question continues it.
            num_frames: frames of the video, by default as the checkpoint says.
            samples: answers to each question.
            tag: kept with the job.
            **generation: fields of `distime.engine.Decoding`.

        Raises:
            RequestError: no question, or an option that is not known.
            EngineError: an option is out of range.
        """
        if not questions:
            raise RequestError("no question: ask at least one")
        known = {field.name for field in fields(Decoding)}
        if unknown := sorted(generation.keys() - known):
            raise RequestError(f"unknown option {unknown[0]}: give {', '.join(sorted(known))}")
        reencodes = self.model.config.reencode_times
        asked = _Questions(self.processor, video, questions, history, num_frames, reencodes)
        return Job(asked.load, Decoding(**generation), samples, (asked, tag))

    def results(self, finished: Finished) -> list[Answer | Exception]:
        """Return the answer to each question of a `job`, or what stood in its way."""
        asked: _Questions = finished.job.tag[0]
        answers = iter(self.samples(finished))
        if finished.error is not None:
            return [asked.errors.get(i, finished.error) for i in range(len(asked.questions))]
        return [
            asked.errors[i] if i in asked.errors else next(answers)[0]
            for i in range(len(asked.questions))
        ]

    def samples(self, finished: Finished) -> list[list[Answer]]:
        """Return all answers to each question of a `job` that could be asked."""
        asked: _Questions = finished.job.tag[0]
        return [
            [_ordered(answer).on_clock(asked.origin) for answer in answers if answer is not None]
            for answers in finished.answers
        ]

    def ask(
        self,
        video: Video,
        questions: Sequence[str],
        *,
        history: History = (),
        num_frames: int | None = None,
        **generation: Any,
    ) -> list[Answer]:
        """Ask questions about one video in exactly these words; the video is read once.

        Args:
            video: path or `VideoSample`.
            questions: what the user turns say, after the frames.
            history: see `chat`; every question continues it.
            num_frames: frames of the video, by default as the checkpoint says.
            **generation: fields of `distime.engine.Decoding`, named as for `generate` of
                transformers: `max_new_tokens`, or `do_sample=True, temperature=0.7, seed=0`.

        Returns:
            an answer per question, each event with start <= end.

        Raises:
            RequestError: no question, or an option that is not known.
            EngineError: an option is out of range.
            VideoError: the file cannot be read; the message names it.
            PromptError: a question contains tokens of frames or images.
        """
        job = self.job(video, questions, history=history, num_frames=num_frames, **generation)
        (finished,) = self.engine.run(job)
        results = self.results(finished)
        for error in results:
            if isinstance(error, Exception):
                raise error
        return results

    def prompt(self, video: Video, question: str, history: History = ()) -> str:
        """Return the text that the model is shown, with each frame's run of tokens counted.

        Args:
            video: path or `VideoSample`.
            question: as for `ask`.
            history: as for `ask`.
        """
        sample = self.processor.load_video(video)
        media = self.processor.video_media(sample)
        questions = [asked for asked, _ in history] + [question]
        template = self.processor.template
        questions[0] = media.place(questions[0], JOIN["demo"], template)
        answers = [answer for _, answer in _written(history, self.processor)]
        text = template.prompt(questions[-1], list(zip(questions, answers, strict=False)))
        for words in media.slot_words:
            text = text.replace(FRAME_TIME_REF, words, 1)
        for token in template.placeholders:
            run = f"(?:{re.escape(token)})+"
            text = re.sub(run, lambda found, token=token: _counted(found[0], token), text)
        return text


def _counted(run: str, token: str) -> str:
    return f"{token} x {len(run) // len(token)}"


class _Questions:
    """What a job asks about one video. A question that cannot be asked keeps no other from it.

    Attributes:
        questions: all of them.
        errors: of those that could not be asked, by their place; known once it is loaded.
        origin: when the first picture is shown on the clock of players, in seconds; likewise.
    """

    def __init__(
        self,
        processor: DisTimeProcessor,
        video: Video,
        questions: Sequence[str],
        history: History,
        num_frames: int | None,
        reencodes: bool,
    ):
        self.processor, self.video, self.num_frames = processor, video, num_frames
        self.reencodes = reencodes
        self.questions, self.history = list(questions), history
        self.errors: dict[int, PromptError] = {}
        self.origin = 0.0

    def load(self) -> PrefixInputs:
        """Read the video and put the questions behind it."""
        processor = self.processor
        sample = processor.load_video(self.video, self.num_frames)
        history = _written(self.history, processor)
        self.origin = sample.start
        prompts = []
        for index, question in enumerate(self.questions):
            try:
                prompts.append(processor.prompt_ids(sample, question, JOIN["demo"], history))
            except PromptError as error:
                self.errors[index] = error
        if not prompts:
            raise next(iter(self.errors.values()))
        inputs = processor.split_prompts(sample, prompts)
        count = int((inputs.prefix["input_ids"] == processor.token_ids.time_stamp).sum())
        # In words, or not re-encoded, answers have no times but those that stand in their text.
        is_text = processor.time_head.in_words or not self.reencodes
        inputs.prefix["time_targets"] = _known_times(() if is_text else self.history, count)
        return inputs


def _ordered(answer: Answer) -> Answer:
    return replace(answer, events=tuple(event.ordered for event in answer.events))


def check_device(device: torch.device | str | None) -> torch.device:
    """Return the device of that name, by default the first GPU where there is one, else the CPU.

    Raises:
        RequestError: there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise RequestError(f'device {device!r}: give one such as "cpu" or "cuda:1"') from None
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            here = f"{count} here, counted from 0" if count else 'none here; give "cpu"'
            raise RequestError(f"device {device!r}: there is no such GPU ({here})")
    return found


def _collected(items: Iterable[Item], is_single: bool) -> Any:
    """Return the one result or the list of them, or raise what stands in their way."""
    items = sorted(items, key=lambda item: item.index)
    failed = [item for item in items if item.error]
    if failed:
        raise failed[0].error if len(items) == 1 else BatchError(items)
    return items[0].result if is_single else [item.result for item in items]


def _pairs(
    video: Video | Sequence[Video], text: str | Sequence[str], name: str
) -> tuple[list[Video], list[str]]:
    """Match videos and texts one to one."""
    one_video, one_text = isinstance(video, Video), isinstance(text, str)
    videos = [video] if one_video else list(video)
    texts = [text] if one_text else list(text)
    if one_video and not one_text:
        videos = videos * len(texts)
    if one_text and not one_video:
        texts = texts * len(videos)
    if len(videos) != len(texts) or not texts:
        raise RequestError(
            f"{len(videos)} videos and {len(texts)} texts: give one {name} for each video, or one "
            f"video, or one {name}"
        )
    return videos, texts


def _written(history: History, processor: DisTimeProcessor) -> list[tuple[str, str]]:
    """Earlier questions and answers as the model writes them."""
    written = []
    for question, answer in history:
        if isinstance(answer, Answer):
            spans = [(one.start - one.origin, one.end - one.origin) for one in answer.events]
            (answer,) = processor.in_own_words([answer.text], spans)
        written.append((question, answer))
    return written


def _known_times(history: History, count: int) -> Tensor:
    """Normalised intervals `(count, 2)` of the `<TIME_STAMP>` tokens of a prompt's beginning.

    NaN, which leaves a token its own embedding, where a token is only written: in questions, and in
    answers given as text.
    """
    unknown = (float("nan"),) * 2
    times: list[tuple[float, float]] = []
    for question, answer in history:
        text = answer.text if isinstance(answer, Answer) else answer
        times += [unknown] * question.count(TIME_STAMP)
        written = text.count(TIME_STAMP)
        if isinstance(answer, Answer) and len(answer.events) == written:
            times += [
                ((e.start - e.origin) / answer.duration, (e.end - e.origin) / answer.duration)
                for e in answer.events
            ]
        else:
            times += [unknown] * written
    # What is left over stands in the part of the question that all questions share.
    times += [unknown] * (count - len(times))
    return torch.tensor(times, dtype=torch.float32).view(-1, 2)
