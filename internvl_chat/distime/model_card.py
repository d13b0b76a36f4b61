"""The model card (README.md) of a checkpoint folder, filled from what the folder knows of itself.

A folder with weights, config, processor and card is all that a hub needs: `hf upload NAME FOLDER`
or ``huggingface_hub.upload_folder`` publishes it as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from distime.benchmarks.result import Result
from distime.files import FileError
from distime.model.heads import head_class

if TYPE_CHECKING:
    from distime.backbones.base import CommonSettings
    from distime.model.config import TimeConfig

logger = logging.getLogger(__name__)

FILE_NAME = "README.md"

_CARD = Template("""\
---
library_name: distime
pipeline_tag: video-text-to-text
tags:
- video
- temporal-grounding
- dense-video-captioning
---

# $name

A DisTime model: a video language model that says *when*. $how

```python
from distime import DisTime

model = DisTime.from_pretrained("$name")
model.ground("video.mp4", "the person closes the door")   # events with start and end in seconds
model.caption("video.mp4")                                # events with words
model.chat("video.mp4", "What happens after that?")       # an answer, with events where it has some
```

The same from a shell: `distime ground video.mp4 "the person closes the door" --checkpoint $name`.

## What it is made of

$parts

## How it was made

$run

## Results

$results

## Limits

${limits}The model sees
$frames of a video. Nothing orders start and end in its answers.
""")


def write_model_card(
    folder: Path,
    config: TimeConfig,
    settings: CommonSettings,
    *,
    name: str | None = None,
    source: Path | None = None,
) -> Path:
    """Write README.md into a checkpoint folder; one that is there already is kept.

    Args:
        folder: of the checkpoint.
        config: of its model.
        settings: of its processor.
        name: of the model; by default the folder's.
        source: folder whose README.md is taken over where it has one, and whose ``run.json``
            (how it was trained) and ``metrics*.json`` (`distime score --output`) fill the card.

    Returns:
        the path of the card.
    """
    path = folder / FILE_NAME
    if path.exists():
        return path
    source = source or folder
    if (source / FILE_NAME).is_file():
        text = (source / FILE_NAME).read_text(encoding="utf-8")
    else:
        text = model_card(name or folder.resolve().name, config, settings, source)
    path.write_text(text, encoding="utf-8")
    return path


def model_card(name: str, config: TimeConfig, settings: CommonSettings, source: Path) -> str:
    """Return the text of a card; see `write_model_card`."""
    text, vision = config.text_config, config.vision_config
    head = head_class(config.time_head)
    bins = {"bins": config.reg_max + 1, "reg_max": config.reg_max}
    parts = {
        "language model": f"{text.model_type}, {text.num_hidden_layers} layers of width "
        f"{text.hidden_size}, vocabulary {text.vocab_size}",
        "vision tower": f"{vision.num_hidden_layers} layers of width {vision.hidden_size}",
        "frames of a video": f"{settings.frames_in_words}, each {settings.frame_in_words}",
        "time": config.time_head,
    }
    if not head.in_words:
        parts["time"] += (
            f": {config.reg_max + 1} bins, {config.layer_num} layers, "
            f"sigma {config.enc_sigma:g} bins"
        )
    run = source / "run.json"
    return _CARD.substitute(
        name=name,
        how=Template(head.how).substitute(bins),
        limits=Template(head.limits).substitute(bins),
        frames=settings.frames_in_words,
        parts=_table(parts),
        run=_table(dict(_flat(_read_run(run)))) or "No `run.json` was beside the weights.",
        results="\n\n".join(_results(source)) or "None were beside the weights.",
    )


def _read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning("%s: not JSON (%s); the model card does without it", path, error)
        return {}
    return value if isinstance(value, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key, value


def _table(values: Mapping[str, Any]) -> str:
    if not values:
        return ""

    def cell(value: Any) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ")

    rows = [f"| {cell(key)} | {cell(value)} |" for key, value in values.items()]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _results(source: Path) -> Iterator[str]:
    for path in sorted(source.glob("metrics*.json")):
        try:
            result = Result.read(path)
        except FileError as error:
            logger.warning("%s; the model card does without it", error)
            continue
        shown = {name: f"{value:.2f}" for name, value in result.metrics.items()}
        yield f"{result.benchmark} (percent):\n\n{_table(shown)}"
