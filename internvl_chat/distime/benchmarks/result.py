"""What every scorer returns: headline metrics, the published scorer's values, and counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distime.files import FileError, read_json, write_json
from distime.values import expect, is_number


@dataclass(frozen=True)
class Result:
    """The score of one prediction file.

    All values of ``metrics`` and ``published_as_run`` are percent at full precision, unless the
    name says otherwise (``n_preds``).
    """

    benchmark: str
    """Benchmark name as on the command line."""
    metrics: Mapping[str, float]
    """Headline values."""
    counts: Mapping[str, int]
    """How many samples there were and how many were missing, reversed, ... ."""
    published_as_run: Mapping[str, float] = field(default_factory=dict)
    """What the published scorer gives on the same files, quirks included."""
    warnings: Sequence[str] = ()
    """What a reader should know before quoting the numbers."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Which files were scored: ``predictions`` and, where one was read, ``ground_truth``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "benchmark": self.benchmark,
            "metrics": dict(self.metrics),
            "published_as_run": dict(self.published_as_run),
            "counts": dict(self.counts),
            "warnings": list(self.warnings),
            "files": dict(self.files),
        }

    def write(self, path: str | Path) -> None:
        """Write the JSON form to ``path``, all or nothing."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Read a file that ``write`` made.

        Raises:
            FileError: the file is missing or not a result.
        """
        path = Path(path)
        value, _ = read_json(path, "metrics file written by `distime score --output`")
        try:
            result = cls(
                benchmark=str(value["benchmark"]),
                metrics=dict(value["metrics"]),
                counts=dict(value["counts"]),
                published_as_run=dict(value.get("published_as_run", {})),
                warnings=tuple(value.get("warnings", ())),
                files=dict(value.get("files", {})),
            )
        except (TypeError, KeyError, ValueError):
            raise FileError(
                f"{path}: not a metrics file; make one with `distime score ... --output FILE`."
            ) from None
        for name, number in {**result.metrics, **result.published_as_run}.items():
            expect(is_number(number), f"{path}, {name}", f"expected a number, found {number!r}.")
        return result

    def table(self) -> str:
        """Return an aligned table: metrics, then the published scorer's values, then counts."""
        lines = format_columns(
            [[name, f"{value:.4f}"] for name, value in self.metrics.items()],
            header=[self.benchmark, "percent"],
        )
        if self.published_as_run:
            lines += ["", "published scorer, as run:"]
            lines += format_columns(
                [[name, f"{value:.4f}"] for name, value in self.published_as_run.items()]
            )
        if self.counts:
            lines += [""] + format_columns([[name, str(n)] for name, n in self.counts.items()])
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)


def format_columns(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> list[str]:
    """Return ``rows`` as lines: the first column flush left, the others flush right."""
    everything = ([list(header)] if header else []) + [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    lines = []
    for row in everything:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    if header:
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines


def compare(results: Sequence[tuple[str, Result]]) -> str:
    """Return a table of several results of one benchmark side by side.

    With two results a last column holds the second minus the first, in points.

    Raises:
        FileError: the results belong to different benchmarks.
    """
    benchmarks = {result.benchmark for _, result in results}
    if len(benchmarks) != 1:
        raise FileError(
            f"the files score different benchmarks ({', '.join(sorted(benchmarks))}); "
            "compare runs of one benchmark."
        )
    rows = []
    for part in ("metrics", "published_as_run"):
        columns = [getattr(result, part) for _, result in results]
        for name in dict.fromkeys(name for column in columns for name in column):
            values = [column.get(name) for column in columns]
            label = name if part == "metrics" else f"{name} (as run)"
            row = [label] + ["-" if value is None else f"{value:.4f}" for value in values]
            if len(results) == 2:
                known = None not in values
                row.append(f"{values[1] - values[0]:+.4f}" if known else "-")
            rows.append(row)
    header = [benchmarks.pop()] + [label for label, _ in results]
    if len(results) == 2:
        header.append("difference")
    return "\n".join(format_columns(rows, header=header))
