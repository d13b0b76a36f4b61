"""Lines on disk as the work goes on, so that a killed run continues where it stopped.

Every process appends to a file of its own, and begins a new file when it is started again. A line
is written in one piece and counts only with its newline, so a line that a kill cut short is as if
it had never been begun. The first line holds what decides the work (`settings`): files of other
settings are refused.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distime.benchmarks.base import SettingsError

logger = logging.getLogger(__name__)


class Spot(NamedTuple):
    """Where a line lies, to read it again."""

    path: Path
    offset: int

    def read(self) -> dict[str, Any]:
        """Return the line."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return json.loads(file.readline())


class LineJournal:
    """JSON lines of one kind of work, written by this process and read from all.

    Args:
        folder: of the files.
        name: they begin with it.
        settings: what decides the work.
        owner: the flag and folder that messages name, such as "--out-dir results".
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], owner: str):
        self.folder, self.name, self.owner = folder, name, owner
        self.settings = dict(settings)
        self._stream = None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.name}-*.jsonl"))

    def clear(self) -> None:
        """Remove what earlier runs wrote."""
        for path in self._files():
            path.unlink()

    def lines(self) -> Iterator[tuple[Spot, dict[str, Any]]]:
        """Yield what all processes have written, now and before, line by line.

        Raises:
            SettingsError: a file was written with other settings; the message says which.
        """
        for path in self._files():
            for number, (spot, line) in enumerate(whole_lines(path)):
                if number:
                    yield spot, line
                else:
                    self._check(path, line.get("settings", {}))

    def _check(self, path: Path, before: Mapping[str, Any]) -> None:
        now = self.settings
        different = [name for name in now if before.get(name) != now[name]]
        if different:
            changes = "; ".join(f"{n} was {before.get(n)}, is {now[n]}" for n in different)
            flag = self.owner.split()[0]
            raise SettingsError(
                f"{self.owner}: it holds answers of a run with other settings "
                f"({changes}): give another {flag}, or --overwrite to discard them "
                f"(seen in {path.name})"
            )

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        if self._stream is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.NamedTemporaryFile(  # noqa: SIM115 (open until close())
                "w",
                encoding="utf-8",
                dir=self.folder,
                prefix=f"{self.name}-",
                suffix=".jsonl",
                delete=False,
            )
            self._stream.write(json.dumps({"settings": self.settings}) + "\n")
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file of this process."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def whole_lines(path: Path) -> Iterator[tuple[Spot, dict[str, Any]]]:
    """Yield the lines of a journal's file, the one with the settings first."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                logger.warning("%s: the last line was cut short; its video is asked again", path)
                return
            yield Spot(path, offset), json.loads(line.decode("utf-8", errors="replace"))
            offset += len(line)
