"""`gnnsys bench`: figures with the peer in the same run, as JSON and as a table."""

from __future__ import annotations

import difflib
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from gnnsys.bench.harness import write_report
from gnnsys.bench.tables import rows_table
from gnnsys.cli.common import Json, emit
from gnnsys.errors import ConfigError

CASES = ("access", "epoch", "fold", "ingest", "ogb", "overheads", "pack", "pipeline", "plan", "read", "sample")


def bench(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help=f"{' | '.join(CASES)} | all")],
    quick: Annotated[bool, typer.Option("--quick", help="Smaller data and fewer repeats.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for one JSON file per case.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Where test data is written; needs some GiB.")] = None,
    as_json: Json = False,
) -> None:
    """Measure cases beside their peers on this machine.

    Example: gnnsys bench read --quick
    """
    reports: dict[str, dict[str, Any]] = {}
    for case in _checked(cases):
        with tempfile.TemporaryDirectory(prefix="gnnsys-bench-", dir=scratch) as folder:
            reports[case] = import_module(f"gnnsys.bench.{case}").run(quick, Path(folder))
        if out:
            write_report(reports[case], out / f"{case}.json")
    rows = [row for report in reports.values() for row in report["rows"]]
    emit({"rows": rows, "reports": reports}, rows_table(rows), as_json)


def _checked(cases: list[str]) -> list[str]:
    for case in cases:
        if case not in (*CASES, "all"):
            near = difflib.get_close_matches(case, CASES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(CASES)}, all."
            raise ConfigError("GS-CFG-703", f"unknown benchmark {case!r}", hint=hint)
    return list(CASES) if "all" in cases else cases
