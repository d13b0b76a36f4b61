"""Find when something happens in videos.

distime ground door.mp4 "the person closes the door" --checkpoint CHECKPOINT
distime ground door.mp4 "he enters" "he sits down" --checkpoint CHECKPOINT --json
distime ground a.mp4 "he enters" --videos b.mp4 c.mp4 --checkpoint CHECKPOINT --plot he.png
distime ground door.mp4 "he enters" --checkpoint CHECKPOINT --clip enters.mp4 --srt door.srt

Every query is asked of every video; each video is read once. The likeliest event comes first. Of
several answers the files of --plot and --clip, and of several videos those of --srt, are numbered:
he-1.png, he-2.png, ...

With --json there is a line for every query of every video: "events" and the model's words in
"answer", or "error".

Exit codes: 0 all was answered (also with "no time"); 1 something could not be, a line says what; 2
wrong usage.
"""

from __future__ import annotations

import argparse

from distime.cli.shared_flags import (
    add_answer_arguments,
    answer_options,
    for_each_video,
    load_model,
    numbered,
    plot_arguments,
    print_events,
    print_json,
    report_error,
)
from distime.processing.sampling import VideoSample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime ground``."""
    parser.add_argument("video", metavar="VIDEO", help="a video, a gif or a folder of frames")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--videos", nargs="+", default=[], metavar="VIDEO", help="more videos, same queries"
    )
    add_answer_arguments(parser, clip=True)


def run(args: argparse.Namespace) -> int:
    """Answer, print, and write the files asked for."""
    options = answer_options(args)
    model = load_model(args)
    videos = [args.video, *args.videos]
    plots = numbered(args.plot, len(videos) * len(args.queries))
    clips = numbered(args.clip, len(videos) * len(args.queries))
    subtitles = numbered(args.srt, len(videos))

    def answer(place: int, video: str, sample: VideoSample) -> bool:
        first = place * len(args.queries)
        items = sorted(model.iter_ground(sample, args.queries, **options), key=lambda i: i.index)
        found = []
        for number, item in enumerate(items, first):
            query, events = item.text, item.result
            asked = {"video": video, "query": query}
            if item.error:
                report_error(item.error, [asked] if args.json else [])
                continue
            found.append(events)
            if args.json:
                print_json({**asked, **events.to_dict()})
            else:
                print(f"{video}: {query}")
                print_events(events, texts=False)
            if path := plots[number]:
                from distime.show.plots import plot_grounding

                plot_grounding(path, query=query, **plot_arguments(sample, events))
            if (path := clips[number]) and events:
                from distime.show.clips import write_clip

                write_clip(path, video, events[0].start, events[0].end)
        if path := subtitles[place]:
            from distime.show.clips import write_srt

            write_srt(path, [event for events in found for event in events])
        return len(found) == len(items)

    asked = [{"query": query} for query in args.queries]
    return for_each_video(model, videos, args, answer, asked)
