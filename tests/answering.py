"""A checkpoint with random weights that answers with words and times, and videos to ask about."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import torch

from distime import DisTime
from distime.processing.questions import EVENT_CAPTIONING, moment_retrieval_question
from distime.toy.synthetic import SyntheticVideo, make_video, write_video
from distime.toy.tiny import write_tiny_checkpoint

QUERIES = ["the red circle is visible.", "the blue square is visible.", "what happens then?"]
WORDS = [*QUERIES, "Give you a textual query: '': When does the described content occur in the"]
WORDS += ["video? Please return the timestamp in seconds. Localize series of activity events, and"]


def write_answering_checkpoint(folder: Path, queries: Sequence[str] = ()) -> Path:
    """Write a tiny checkpoint whose answers differ with the question and name times.

    That holds for `QUERIES`, for `queries` and for a dense caption, asked of the first video of
    `write_example_videos`.
    """
    queries = [*QUERIES, *queries]
    write_tiny_checkpoint(folder, [*WORDS, *queries], num_frames=4, hidden_size=32, num_layers=2)
    # Random weights amplify rounding; in double precision equal answers are equal.
    model = DisTime.from_pretrained(folder, dtype=torch.float64, device="cpu")
    with tempfile.TemporaryDirectory() as videos:
        video = model.processor.load_video(write_video(make_video(0), Path(videos)))
    questions = [*QUERIES, *map(moment_retrieval_question, queries), EVENT_CAPTIONING]
    for seed in count():
        _randomise(model, seed)
        answers = model.ask(video, questions, max_new_tokens=12)
        different = len({answer.text for answer in answers}) == len(answers)
        if different and all(answer.events for answer in answers):
            model.save_pretrained(folder)
            return folder


def _randomise(model: DisTime, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
        # Rows that are longer than others win more often.
        rows, processor = model.model.get_input_embeddings().weight, model.processor
        rows[processor.token_ids.time_stamp] *= 2.5
        rows[processor.token_ids.im_end] *= 1.5
        for name in ("<FRAME_TIME_REF>", "<IMG_CONTEXT>", "<img>", "</img>"):
            rows[processor.tokenizer.convert_tokens_to_ids(name)] *= 0.1


def write_example_videos(folder: Path, count: int = 2) -> list[tuple[Path, SyntheticVideo]]:
    """Write synthetic videos and return their paths and what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [make_video(seed) for seed in range(count)]
    return [(write_video(spec, folder), spec) for spec in specs]
