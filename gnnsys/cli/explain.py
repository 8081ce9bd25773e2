"""`gnnsys explain CODE`: what an error means, in all the places where it can happen."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import Annotated

import typer

from gnnsys.cli.common import Json, emit
from gnnsys.cli.error_index import Entry, error_index
from gnnsys.errors import ConfigError


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="As an error printed it, GS-IN-101.")],
    as_json: Json = False,
) -> None:
    """Say what an error code means and what to do.

    Example: gnnsys explain GS-IN-101
    """
    index = error_index()
    if code not in index:
        near = difflib.get_close_matches(code, index, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Codes look like GS-IN-101."
        raise ConfigError("GS-CFG-706", f"there is no error {code!r}", hint=hint)
    emit(asdict(index[code]), _page(index[code]), as_json)


def _page(entry: Entry) -> str:
    ends = "a warning" if entry.exit_code is None else f"{entry.kind}, ends a command with {entry.exit_code}"
    lines = [f"{entry.code}: {ends}"]
    for case in entry.cases:
        lines += ["", f"  {case.message}"]
        if case.hint:
            lines.append(f"    {case.hint}")
        lines.append(f"    ({case.module})")
    return "\n".join(lines)
