"""`report`: read some runs and write their page, with the same facts as JSON beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gnnsys.errors import ConfigError
from gnnsys.reporting.facts import read_run
from gnnsys.reporting.page import page
from gnnsys.storage.files import atomic_write, make_output_folder
from gnnsys.storage.manifest import canonical_json


def report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about `runs` and, beside it, the same facts as `.json`.

    Args:
        runs: folders of runs, finished or not; several are compared.
        out: the page; `report.html` in the folder of a single run, else here.

    Returns:
        The page. The same runs give the same bytes.

    Raises:
        ConfigError: no run was given, or `out` is not a name that ends in `.html`.
        InputDataError, CorruptStoreError: a folder holds no run, or a damaged one.
    """
    if not runs:
        raise ConfigError("GS-CFG-870", "report of no run", hint="Give the folder of a run.")
    path = Path(out) if out is not None else (Path(runs[0]) if len(runs) == 1 else Path()) / "report.html"
    if path.suffix != ".html":
        raise ConfigError("GS-CFG-871", f"{path}: a report is written to a name that ends in .html")
    facts = [read_run(Path(run)) for run in runs]
    make_output_folder(path.parent)
    atomic_write(path.with_suffix(".json"), canonical_json([asdict(one) for one in facts]) + b"\n")
    atomic_write(path, page(facts).encode())
    return path
