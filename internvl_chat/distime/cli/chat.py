"""Ask anything about a video.

distime chat party.mp4 "How many people dance?" --checkpoint CHECKPOINT
distime chat party.mp4 "Who enters?" "When?" --conversation --checkpoint CHECKPOINT
distime chat party.mp4 "When do they dance?" --checkpoint CHECKPOINT --plot dance.png

Questions are answered each on its own, or, with --conversation, each as a continuation of the ones
before. Of several answers the files of --plot and --srt are numbered: dance-1.png, dance-2.png, ...

Exit codes: 0 all was answered; 1 something could not be, a line says what; 2 wrong usage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distime.cli.shared_flags import (
    add_answer_arguments,
    answer_options,
    for_each_video,
    load_model,
    numbered,
    plot_arguments,
    print_json,
    report_error,
)
from distime.processing.sampling import VideoSample

if TYPE_CHECKING:
    from distime.api import DisTime, Item


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime chat``."""
    parser.add_argument("video", metavar="VIDEO", help="a video, a gif or a folder of frames")
    parser.add_argument("questions", nargs="+", metavar="QUESTION", help="what to ask")
    parser.add_argument(
        "--conversation", action="store_true", help="each question continues the ones before"
    )
    add_answer_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Answer, print, and write the files asked for."""
    options = answer_options(args)
    model = load_model(args)
    plots, subtitles = (numbered(path, len(args.questions)) for path in (args.plot, args.srt))

    def answer_all(_: int, video: str, sample: VideoSample) -> bool:
        results = zip(_answers(model, sample, args, options), plots, subtitles, strict=True)
        complete = True
        for item, plot, srt in results:
            question, answer = item.text, item.result
            asked = {"video": video, "question": question}
            if item.error:
                complete = False
                report_error(item.error, [asked] if args.json else [])
                continue
            if args.json:
                print_json({**asked, **answer.to_dict()})
            else:
                print(f"{question}\n  {answer.readable}", flush=True)
            if plot:
                from distime.show.plots import plot_events

                plot_events(plot, title=question, **plot_arguments(sample, answer.events))
            if srt:
                from distime.show.clips import write_srt

                write_srt(srt, answer.events)
        return complete

    asked = [{"question": question} for question in args.questions]
    return for_each_video(model, [args.video], args, answer_all, asked)


def _answers(
    model: DisTime, sample: VideoSample, args: argparse.Namespace, options: dict[str, Any]
) -> Iterator[Item]:
    """An item for each question, in order."""
    if not args.conversation:
        items = model.iter_chat(sample, args.questions, **options)
        yield from sorted(items, key=lambda item: item.index)
        return
    history = []
    for question in args.questions:
        (item,) = model.iter_chat(sample, question, history, **options)
        if item.result is not None:
            history.append((question, item.result))
        yield item
