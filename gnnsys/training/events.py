"""events.jsonl: what happened in a run, one JSON object per line, appended and never changed.

Every event has `ts` (UTC, ISO 8601), `seq` (no gaps), `kind`, `run` and `rank`. A kill may tear the last line:
readers ignore it and the next writer cuts it off.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from gnnsys.storage.files import append_line


class Events(Protocol):
    """Takes what happened."""

    def write(self, kind: str, **values: Any) -> None: ...


class EventLog:
    """The one writer of a run's events; `seq` continues where an earlier process stopped.

    Args:
        path: the file, created by the first event.
        run: name of the run, the same in every line.
        rank: of this process.
    """

    def __init__(self, path: Path, run: str, rank: int = 0) -> None:
        self._path, self._run, self._rank = path, run, rank
        self._seq = _cut_torn_line(path)

    def write(self, kind: str, **values: Any) -> None:
        """Append one event. NaN and infinities become strings, so that every line is plain JSON."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"ts": stamp, "seq": self._seq, "kind": kind, "run": self._run, "rank": self._rank}
        append_line(self._path, json.dumps({**head, **_finite(values)}, allow_nan=False).encode() + b"\n")
        self._seq += 1


class NoEvents:
    """For ranks that leave the telling to the first one."""

    def write(self, kind: str, **values: Any) -> None:
        pass


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file in order; a torn last line is left out, an absent file has none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)


def _cut_torn_line(path: Path) -> int:
    """Remove a torn last line; returns the next `seq`."""
    if not path.exists():
        return 0
    last, whole = b"", 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                last, whole = line, whole + len(line)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    return int(json.loads(last)["seq"]) + 1 if last else 0


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
