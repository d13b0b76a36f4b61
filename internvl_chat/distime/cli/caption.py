"""List the events of videos, each with its times and its words.

distime caption cooking.mp4 --checkpoint CHECKPOINT
distime caption a.mp4 b.mp4 --checkpoint CHECKPOINT --json
distime caption cooking.mp4 --steps --checkpoint CHECKPOINT --srt cooking.srt --plot cooking.png

Of several videos the files of --plot and --srt are numbered: cooking-1.png, cooking-2.png, ...

Exit codes: 0 all was answered; 1 something could not be, a line says what; 2 wrong usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distime.cli.shared_flags import (
    add_answer_arguments,
    answer_options,
    for_each_video,
    load_model,
    numbered,
    plot_arguments,
    print_events,
    print_json,
)
from distime.processing.sampling import VideoSample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime caption``."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video, gif, folder of frames")
    parser.add_argument(
        "--steps", action="store_true", help="ask for the steps of an instructional video"
    )
    add_answer_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Answer, print, and write the files asked for."""
    from distime.processing.questions import EVENT_CAPTIONING, STEP_CAPTIONING

    options = answer_options(args)
    options["question"] = STEP_CAPTIONING if args.steps else EVENT_CAPTIONING
    model = load_model(args)
    plots, subtitles = (numbered(path, len(args.videos)) for path in (args.plot, args.srt))

    def answer(place: int, video: str, sample: VideoSample) -> None:
        events = model.caption(sample, **options)
        if args.json:
            print_json({"video": video, **events.to_dict()})
        else:
            print(video)
            print_events(events, texts=True)
        if path := plots[place]:
            from distime.show.plots import plot_events

            plot_events(path, title=Path(video).name, **plot_arguments(sample, events))
        if path := subtitles[place]:
            from distime.show.clips import write_srt

            write_srt(path, events)

    return for_each_video(model, args.videos, args, answer)
