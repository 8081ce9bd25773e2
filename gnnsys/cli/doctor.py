"""`gnnsys doctor`: what this machine and environment can do, and what takes the place of what they cannot."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gnnsys.cli.checkup import Finding, environment, volume
from gnnsys.cli.common import Json, emit
from gnnsys.errors import InputDataError, MissingDependencyError


def doctor(
    path: Annotated[Path, typer.Option(help="Folder whose volume is looked at: where packs will lie.")] = Path(),
    as_json: Json = False,
) -> None:
    """Say what this machine and environment can do; measures the disk once, in about two seconds.

    Example: gnnsys doctor --path /data
    """
    if not path.is_dir():
        raise InputDataError("GS-IN-542", f"{path}: there is no such folder", hint="Give --path a folder that exists.")
    findings = [*environment(), *volume(path.resolve())]
    broken = [finding for finding in findings if finding.state == "broken"]
    result = {"good": not broken, "findings": [asdict(finding) for finding in findings]}
    emit(result, "\n".join(map(_line, findings)), as_json)
    if broken:
        raise MissingDependencyError(
            "GS-DEP-005",
            f"gnnsys does not work here: {', '.join(f'{f.topic} ({f.found})' for f in broken)}",
            hint=broken[0].means,
        )


def _line(finding: Finding) -> str:
    state = "OK" if finding.state == "ok" else finding.state
    return f"{state:<9} {finding.topic:<16} {finding.found}" + (f" - {finding.means}" if finding.means else "")
