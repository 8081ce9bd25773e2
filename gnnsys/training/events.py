"""events.jsonl: what happened in a run, one JSON object per line, appended and never changed.

Every event has `ts` (UTC, ISO 8601), `seq` (no gaps), `kind`, `run` and `rank`. A kill may tear the last line:
readers ignore it and the next writer cuts it off. Nothing is computed from events: lines that are damaged are left out
and counted, and a run goes on behind them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from gnnsys.storage.files import append_line


class Events(Protocol):
    """Takes what happened."""

    def write(self, kind: str, **values: Any) -> None: ...


class EventLog:
    """The one writer of a run's events; `seq` continues where an earlier process stopped, and behind damaged lines with
    a number that no event has.

    Args:
        path: the file, created by the first event.
        run: name of the run, the same in every line.
        rank: of this process.
    """

    def __init__(self, path: Path, run: str, rank: int = 0) -> None:
        self._path, self._run, self._rank = path, run, rank
        _cut_torn_line(path)
        found = read_events(path)
        numbers = [event["seq"] for event in found if _is_count(event.get("seq"))]
        self._seq = max(len(found.events) + found.unreadable, max(numbers, default=-1) + 1)

    def write(self, kind: str, **values: Any) -> None:
        """Append one event. NaN and infinities become strings, so that every line is plain JSON."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"ts": stamp, "seq": self._seq, "kind": kind, "run": self._run, "rank": self._rank}
        append_line(self._path, json.dumps({**head, **finite(values)}, allow_nan=False).encode() + b"\n")
        self._seq += 1


class NoEvents:
    """For ranks that leave the telling to the first one."""

    def write(self, kind: str, **values: Any) -> None:
        pass


@dataclass(frozen=True)
class FoundEvents:
    """What could be read of a file of events, in order."""

    events: tuple[dict[str, Any], ...]
    unreadable: int
    """Lines that are no event, or lack what an event of their kind must have."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.events)


def read_events(path: Path) -> FoundEvents:
    """The events of a file; a torn last line is left out, an absent file has none."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    found = [_parsed(line) for line in lines]
    events = tuple(event for event in found if event is not None)
    return FoundEvents(events, len(found) - len(events))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    needed = _NEEDED.get(event["kind"], {})
    return event if all(good(event.get(key)) for key, good in needed.items()) else None


def _cut_torn_line(path: Path) -> None:
    """Remove a last line without a newline."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    """As `finite` writes one."""
    return (isinstance(value, int | float) and not isinstance(value, bool)) or value in ("nan", "inf", "-inf")


_NEEDED: dict[str, dict[str, Callable[[Any], bool]]] = {
    "epoch": {"epoch": _is_count, "loss": _is_number, "wall_s": _is_number},
    "warning": {"code": _is_text, "msg": _is_text},
    "error": {"code": _is_text, "msg": _is_text},
}
"""What readers take for granted in events of a kind."""


def finite(value: Any) -> Any:
    """`value` with its NaN and infinities as strings, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
