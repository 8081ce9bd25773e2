"""What every verb shares: option spellings, the result on stdout, progress on stderr."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import typer

from gnnsys.errors import ConfigError
from gnnsys.progress import Progress, show_progress, silent

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


def progress(quiet: bool) -> AbstractContextManager[Progress]:
    """See `show_progress`; nothing with --quiet."""
    return nullcontext(silent) if quiet else show_progress()
