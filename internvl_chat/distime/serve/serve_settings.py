"""What the operator of a server decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distime.errors import DisTimeError


class ServeError(DisTimeError):
    """The server cannot be run so; the message names the flag and the mend."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Bounds of a server.

    Attributes:
        model_name: what requests call the model.
        roots: folders whose files may be named by requests; no other file of the machine is read.
        allow_remote: fetch videos from public addresses; private ones are refused all the same.
        max_megabytes: largest video, and with its base64 largest request.
        max_new_tokens: longest answer.
        max_queries: most queries of one grounding request.
        max_waiting: requests that are unfinished; one more is told to come back later (429).
        timeout: seconds until an unfinished request is given up (504).
        api_key: what `Authorization: Bearer` must say; None lets everybody in.

    Raises:
        ServeError: a root is no folder, or a bound is below 1.
    """

    model_name: str = "distime"
    roots: tuple[Path, ...] = ()
    allow_remote: bool = False
    max_megabytes: int = 200
    max_new_tokens: int = 1000
    max_queries: int = 64
    max_waiting: int = 128
    timeout: float = 300.0
    api_key: str | None = None

    def __post_init__(self):
        for root in self.roots:
            if not root.is_dir():
                raise ServeError(f"--root {root}: no such folder")
        for name in ("max_megabytes", "max_new_tokens", "max_queries", "max_waiting", "timeout"):
            if not getattr(self, name) > 0:
                flag = "--" + name.replace("_", "-")
                raise ServeError(f"{flag} {getattr(self, name)}: give at least 1")

    @property
    def max_body(self) -> int:
        """Bytes of the largest request: base64 takes four characters for three bytes."""
        return int(self.max_megabytes * 1e6 * 4 / 3) + 1_000_000
