"""What every verb shares: option spellings, the result on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gnnsys.errors import ConfigError
from gnnsys.progress import Progress, silent

Memory = Annotated[str, typer.Option(help="Memory the command may grow by, e.g. 2GiB.")]
Disk = Annotated[str | None, typer.Option(help="Disk the pack may take, e.g. 40GiB; free space when not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Seed = Annotated[int | None, typer.Option(help="Decides every random draw; 0 when not given.")]
Workers = Annotated[int | None, typer.Option(help="Sampling and packing threads; never changes the result.")]
Fanouts = Annotated[
    str | None, typer.Option(help="Neighbours per hop, seed side first; -1 takes all; 10,5 when not given.")
]
BatchSize = Annotated[int | None, typer.Option(help="Seeds per batch; 1024 when not given.")]
SeedNodes = Annotated[
    str | None,
    typer.Option("--seeds", help="Split whose nodes are the seeds, or FILE.npy of node ids; train when not given."),
]
Weighted = Annotated[
    bool, typer.Option("--weighted", help="Draw neighbours in proportion to the edge weights of the Store.")
]
StorePath = Annotated[str | None, typer.Option("--store", help="Where the Store is now, when it has moved.")]

_LINE_EVERY_S = 10.0


class Stopped(BaseException):
    """Ctrl-C or SIGTERM arrived: signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def parse_fanouts(text: str) -> list[int]:
    """`"15,10,5"` as a list.

    Raises:
        ConfigError: not integers, or below -1.
    """
    try:
        fanouts = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError("GS-CFG-701", f"--fanouts {text!r} is not a list like 15,10,5") from None
    if min(fanouts) < -1:
        raise ConfigError("GS-CFG-701", f"--fanouts {text!r}: the smallest fanout is -1 (all neighbours)")
    return fanouts


def emit(result: dict[str, Any], text: str, as_json: bool) -> None:
    """The command's result: one JSON object or text for people."""
    print(json.dumps(result) if as_json else text, flush=True)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A bar with rate and time left on a terminal, else a line every ten seconds; nothing with --quiet."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
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
            print(f"{stage}: {done:,.0f} of {total:,.0f}", file=sys.stderr, flush=True)
