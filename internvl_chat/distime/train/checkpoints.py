"""Checkpoints: complete or not there, and gone on from only if no sample is lost or repeated.

A checkpoint is written into `.partial` beside its final place and moved there by one rename, after
every process has written its part; a kill at any moment leaves complete `checkpoint-N` folders and
perhaps leftovers in `.partial`, which the next start removes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import distributed

from distime.files import read_json
from distime.train import resume
from distime.train.arguments import TrainArguments
from distime.train.distributed import ResumeError
from distime.train.resume import Schedule

logger = logging.getLogger(__name__)

PARTIAL = ".partial"
RECORD = "resume.json"
_LAST = ("config.json", "adapter_config.json")
_NAME = re.compile(r"checkpoint-(\d+)")


def complete_checkpoints(folder: Path) -> dict[int, Path]:
    """Return the complete checkpoints of a run's folder by their step, the oldest first."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        if not (match := _NAME.fullmatch(path.name)):
            continue
        if (path / RECORD).is_file():
            found[int(match[1])] = path
        else:
            logger.warning("%s is left alone: it has no %s, so it is not complete", path, RECORD)
    return dict(sorted(found.items()))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that every process finds complete in the run's folder."""
    steps = set(complete_checkpoints(folder))
    if distributed.is_available() and distributed.is_initialized():
        seen: list[set[int]] = [set()] * distributed.get_world_size()
        distributed.all_gather_object(seen, steps)
        steps = set.intersection(*seen)
    return folder / f"checkpoint-{max(steps)}" if steps else None


def remove_partial(folder: Path) -> None:
    """Remove what a killed run has left half-written or half-deleted."""
    if (folder / PARTIAL).is_dir():
        left = ", ".join(sorted(path.name for path in (folder / PARTIAL).iterdir()))
        logger.info("removing what a killed run left half-written: %s", left or "nothing")
        shutil.rmtree(folder / PARTIAL)


def publish(folder: Path, name: str) -> None:
    """Move a finished checkpoint from `.partial` to its place, once it is on the disk."""
    partial, target = folder / PARTIAL / name, folder / name
    for file in partial.rglob("*"):
        if file.is_file():
            _flush(file)
    if target.exists():  # of the same step of the same run
        _discard(target)
    partial.rename(target)


def rotate(folder: Path, limit: int | None, best: str | None = None) -> None:
    """Delete the oldest checkpoints, so that `limit` are left; never the newest nor the best."""
    if not limit or limit < 1:
        return
    paths = list(complete_checkpoints(folder).values())
    kept = {paths[-1]} | ({Path(best)} if best else set())
    excess = len(paths) - max(limit, len(kept))
    for path in [path for path in paths if path not in kept][: max(excess, 0)]:
        _discard(path)


def replace_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside its target, then move its files to the target one by one.

    The configuration goes last: without it, a folder is not taken for a checkpoint.
    """
    partial = folder / PARTIAL / "export"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    for file in sorted(partial.iterdir(), key=lambda file: file.name in _LAST):
        _flush(file)
        file.replace(folder / file.name)
    shutil.rmtree(folder / PARTIAL)


def _discard(path: Path) -> None:
    """Delete a folder that must not be found half-deleted."""
    grave = path.parent / PARTIAL / f"deleted-{path.name}"
    grave.parent.mkdir(exist_ok=True)
    path.rename(grave)
    shutil.rmtree(grave)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@dataclass
class RunRecord:
    """What a checkpoint must agree on with the run that goes on from it.

    Attributes:
        rows_per_step: rows of the plan that a step takes.
        samples_until: hash of the samples that the first n rows of the plan hold.
        parameters: hash of the names and shapes of the trained parameters, see `digest_names`.
        flags: all flags, see `distime.train.resume.recorded_flags`.
        sources: of the data, by name: what decides which items they hold.
        schedule: of the learning rate; that of the checkpoint, once `check` has read it.
    """

    rows_per_step: int
    samples_until: Callable[[int], str]
    parameters: str
    flags: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    schedule: Schedule

    def write(self, folder: Path, step: int) -> None:
        """Write the record of a checkpoint: the last of its files."""
        values = {
            "step": step,
            "rows_per_step": self.rows_per_step,
            "samples": self.samples_until(step * self.rows_per_step),
            "parameters": self.parameters,
            "flags": self.flags,
            "sources": self.sources,
            "schedule": asdict(self.schedule),
        }
        (folder / RECORD).write_text(json.dumps(values, indent=2) + "\n")

    def check(self, checkpoint: Path) -> int:
        """Check that the run can go on from a checkpoint, and take over its schedule.

        Returns:
            the step of the checkpoint.

        Raises:
            ResumeError: a flag changed that cannot, other parameters were trained, or on other
                samples than this run's plan has up to there; names what changed.
        """
        before = read_record(checkpoint)
        step = before["step"]
        found = resume.changes(before["flags"], self.flags)
        named = ", ".join(map(str, found))
        if before["parameters"] != self.parameters:
            raise ResumeError(
                f"{checkpoint} has other trained parameters than this run: "
                f"{named or 'the start checkpoint is another one'}. {resume.MEND}"
            )
        changed = _changed_sources(before["sources"], self.sources)
        if before["rows_per_step"] != self.rows_per_step:
            changed.insert(
                0,
                "--per_device_train_batch_size x --gradient_accumulation_steps x processes was "
                f"{before['rows_per_step']}, is {self.rows_per_step}",
            )
        if changed or before["samples"] != self.samples_until(step * self.rows_per_step):
            about_samples = [str(one) for one in found if one.kind is resume.OnResume.SAMPLES]
            raise ResumeError(
                f"{checkpoint} was trained on other samples than this run has for its first "
                f"{step} steps, so that samples would be lost or repeated: "
                f"{', '.join(changed + about_samples) or 'the annotation files have changed'}. "
                f"{resume.MEND}"
            )
        resume.judge(checkpoint, found)
        self.schedule = resume.resumed_schedule(
            Schedule(**before["schedule"]), self.schedule.end, step, found
        )
        return step


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Read what `RunRecord.write` wrote.

    Raises:
        ResumeError: it is damaged, or an earlier version wrote it.
    """
    values, _ = read_json(checkpoint / RECORD, "record of a checkpoint")
    names = ("step", "rows_per_step", "samples", "parameters", "flags", "sources", "schedule")
    if not isinstance(values, dict) or any(name not in values for name in names):
        raise ResumeError(
            f"{checkpoint / RECORD} is damaged or of an earlier version of DisTime, so that "
            f"nothing says what the run was: start a new one with --model_name_or_path {checkpoint}"
        )
    return values


def _changed_sources(before: dict[str, dict], now: dict[str, dict]) -> list[str]:
    if before.keys() != now.keys():
        return [f"the sources were {', '.join(before)}, are {', '.join(now)}"]
    return [
        f"the {what} of source {name} was {before[name].get(what)}, is {value}"
        for name, source in now.items()
        for what, value in source.items()
        if before[name].get(what) != value
    ]


def digest_names(names: Iterable[str]) -> str:
    """Hash a set of names."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def checkpoint_to_resume(training: TrainArguments, record: RunRecord) -> Path | None:
    """Tidy up after a killed run and find the checkpoint to go on from, if there is one.

    Raises:
        ResumeError: the checkpoint is of another run, damaged, or is not to be used and in the way.
    """
    folder = Path(training.output_dir)
    if training.should_save:
        remove_partial(folder)
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        return None
    if training.resume != "auto":
        raise ResumeError(
            f"--output_dir {folder} holds {checkpoint.name} of an earlier run: give --resume auto "
            "to go on from it, or another --output_dir, or delete it"
        )
    step = record.check(checkpoint)
    older = [path for path in complete_checkpoints(folder).values() if path != checkpoint]
    resume.check_files(checkpoint, step, older[-1] if older else None)
    return checkpoint
