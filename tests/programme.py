"""What the reliability programme has done: each sweep adds its counts to one JSON file, from which docs are made."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path


def record(name: str, counts: dict[str, int]) -> None:
    """Add `counts` (say `{"kills": 20, "violations": 0}`) to those of `name` in $GNNSYS_PROGRAMME_OUT.

    Counts of several calls, processes and days add up. Nothing happens when the variable is unset.
    """

    def add(sums: dict[str, int]) -> None:
        for key, count in counts.items():
            sums[key] = sums.get(key, 0) + count

    _change(name, add)


def measured(name: str, value: int) -> None:
    """Put a figure that was measured into that file, in the place of an earlier one."""
    _change("measured", lambda figures: figures.update({name: value}))


def _change(name: str, change: Callable[[dict[str, int]], None]) -> None:
    if not (out := os.environ.get("GNNSYS_PROGRAMME_OUT")):
        return
    with Path(out).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        results = json.loads(file.read() or "{}")
        change(results.setdefault(name, {}))
        file.truncate(0)
        file.write(json.dumps(results, indent=1, sort_keys=True) + "\n")
