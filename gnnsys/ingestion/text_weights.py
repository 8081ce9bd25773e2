"""Weights of edges in a further column of their text, as (E, 1) float64 in a scratch file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.text import edge_rows

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_PARSED = 200
"""Memory of a row whose number was read, as Python holds it."""


def parse_weights(job: Job, path: Path, column: int) -> np.ndarray:
    """The numbers in column `column`, counted from 1, of every row of `path`; parsed once per stage.

    Raises:
        InputDataError: a row has no number there, or the file cannot be unpacked.
    """
    unit, file = "text/weights", job.stage.work / "columns-weights.bin"
    if unit not in job.stage.done:
        write_scratch(file, _blocks(path, column, max(1, job.block_bytes // _PARSED)))
        job.stage.record(unit, rows=file.stat().st_size // 8)
    return map_raw(file, np.dtype(np.float64), (job.stage.done[unit]["rows"], 1), fortran=False)


def _blocks(path: Path, column: int, rows: int) -> Iterator[np.ndarray]:
    numbers = (_number(path, line, fields, column) for line, fields in edge_rows(path))
    while block := list(islice(numbers, rows)):
        yield np.array(block)


def _number(path: Path, line: int, fields: list[bytes], column: int) -> float:
    try:
        return float(fields[column - 1])
    except IndexError:
        problem = f"{len(fields)} columns, the weights are in column {column}"
    except ValueError:
        problem = f"{fields[column - 1][:60].decode('utf-8', 'replace')!r} in column {column}, which is no number"
    hint = "--edge-weights says which column; a line of column names is one when it begins with #."
    raise InputDataError("GS-IN-177", f"{path} row {line:,} has {problem}", hint=hint)
