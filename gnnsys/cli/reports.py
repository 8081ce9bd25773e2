"""`gnnsys report`: what runs did, as a page to look at and to show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnnsys.cli.common import Json, emit
from gnnsys.reporting.facts import read_runs
from gnnsys.reporting.report import report as write_report
from gnnsys.reporting.tensorboard import write_tensorboard


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(help="page.html, with page.report.json beside it; RUN/report.html, for several report.html."),
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard events besides.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page about a run, or one that compares several: curves, times, memory, options.

    Example: gnnsys report runs/cora
    """
    path = write_report(runs, out)
    if tensorboard is not None:
        for run in read_runs(runs):
            write_tensorboard(run, tensorboard)
    events = None if tensorboard is None else str(tensorboard)
    emit({"report": str(path), "tensorboard": events}, f"{path}: {len(runs)} run{'s' * (len(runs) > 1)}", as_json)
