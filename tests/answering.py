"""A checkpoint with random weights that answers with words and times, and videos to ask about."""

from __future__ import annotations

from pathlib import Path

import torch

from distime.data.synthetic import SyntheticVideo, make_video, write_video
from distime.model.modeling import DisTimeForConditionalGeneration
from distime.processing.processor import DisTimeProcessor
from distime.tiny import write_tiny_checkpoint

QUERIES = ["the red circle is visible.", "the blue square is visible.", "what happens then?"]
WORDS = [*QUERIES, "Give you a textual query: '': When does the described content occur in the"]
WORDS += ["video? Please return the timestamp in seconds. Localize series of activity events, and"]


def write_answering_checkpoint(folder: Path, seed: int = 4) -> Path:
    """Write a tiny checkpoint whose answers differ with the question and mostly name times."""
    write_tiny_checkpoint(folder, WORDS, num_frames=4, hidden_size=32, num_layers=2)
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    processor = DisTimeProcessor.from_pretrained(folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
        # Rows that are longer than others win more often.
        rows = model.get_input_embeddings().weight
        rows[processor.token_ids.time_stamp] *= 2.5
        rows[processor.token_ids.im_end] *= 1.8
        for name in ("<FRAME_TIME_REF>", "<IMG_CONTEXT>", "<img>", "</img>"):
            rows[processor.tokenizer.convert_tokens_to_ids(name)] *= 0.1
    model.save_pretrained(folder)
    return folder


def write_example_videos(folder: Path, count: int = 2) -> list[tuple[Path, SyntheticVideo]]:
    """Write synthetic videos and return their paths and what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [make_video(seed) for seed in range(count)]
    return [(write_video(spec, folder), spec) for spec in specs]
