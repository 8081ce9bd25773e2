"""`report`: read some runs and write their page, with the same facts as JSON beside it; replaces nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gnnsys.errors import ConfigError
from gnnsys.reporting.facts import read_runs
from gnnsys.reporting.page import END, page
from gnnsys.storage.files import atomic_write, make_output_folder
from gnnsys.storage.manifest import canonical_json
from gnnsys.training.events import finite

_JSON_END = b'"written_by":"gnnsys report"}\n'


def report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about `runs` and, beside `page.html`, the same facts as `page.report.json`.

    Args:
        runs: folders of runs, finished or not; several are compared.
        out: the page; `report.html` in the folder of a single run, else here. An earlier report is replaced.

    Returns:
        The page. The same runs give the same bytes.

    Raises:
        ConfigError: no run was given, `out` is not a name that ends in `.html`, or a file that is no report is there.
        InputDataError, CorruptStoreError: a folder holds no run, or a damaged one.
    """
    if not runs:
        raise ConfigError("GS-CFG-870", "report of no run", hint="Give the folder of a run.")
    path = Path(out) if out is not None else (Path(runs[0]) if len(runs) == 1 else Path()) / "report.html"
    if path.suffix != ".html":
        raise ConfigError("GS-CFG-871", f"{path}: a report is written to a name that ends in .html")
    beside = path.with_suffix(".report.json")
    _refuse_to_replace(path, END.encode())
    _refuse_to_replace(beside, _JSON_END)
    facts = read_runs([Path(run) for run in runs])
    make_output_folder(path.parent)
    document = {"runs": [asdict(one) for one in facts], "written_by": "gnnsys report"}
    atomic_write(beside, canonical_json(finite(document)) + b"\n")
    atomic_write(path, page(facts).encode(errors="replace"))
    return path


def _refuse_to_replace(path: Path, end: bytes) -> None:
    """A file there must be an earlier report, which ends with `end`."""
    if path.exists() and not (path.is_file() and path.read_bytes().endswith(end)):
        raise ConfigError(
            "GS-CFG-872",
            f"{path}: is there already and is no report of gnnsys: it is not replaced",
            hint="Give the report another name with --out, e.g. --out page.html.",
        )
