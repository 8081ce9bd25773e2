"""How long work reports where it stands: a function of (stage name, units done, units in all)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, float, float], None]

_LINE_EVERY_S = 10.0


def silent(_stage: str, _done: float, _total: float) -> None:
    """Report nothing."""


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A bar with time left on a terminal, else (logs, notebooks) a line every ten seconds, on stderr.

    Example: with gs.show_progress() as progress: gs.ingest("edges:edges.csv", "store", progress=progress)
    """
    if sys.stderr.isatty():
        with _Bars() as bars:
            yield bars.report
    else:
        yield _Lines().report


class _Bars:
    """One rich bar per stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._rich = RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._rich.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._rich.stop()

    def report(self, stage: str, done: float, total: float) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._rich.add_task(stage, total=total)
        self._rich.update(self._tasks[stage], completed=done, total=total)


class _Lines:
    """A plain line now and then, for logs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def report(self, stage: str, done: float, total: float) -> None:
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            sys.stderr.write(f"{stage}: {done:,.0f} of {total:,.0f}\n")
            sys.stderr.flush()
