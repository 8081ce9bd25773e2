"""Tables of numbers as text without a header (`.csv.gz`), read by pandas as ogb reads them, block by block."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError, MissingDependencyError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.source import require_file, unpacking

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_PARSED = 8
"""Bytes of a parsed number, whatever it is kept as."""


def unpack_csv(job: Job, path: Path, dtype: type[np.generic]) -> np.ndarray:
    """All rows of `path` as a read-only map (rows, columns) of `dtype`; parsed once per stage.

    Decimals are parsed to float64 first. An empty cell is NaN, and refused where `dtype` holds integers.

    Raises:
        InputDataError: absent, damaged, or a row is not as wide as the first or no row of numbers.
    """
    unit = f"csv/{path.parent.name}/{path.name}"
    file = job.stage.work / f"columns-{unit.replace('/', '-')}.bin"
    if unit not in job.stage.done:
        require_file(path)
        parsed = _Blocks(path, job.block_bytes, np.dtype(dtype))
        # decimals where integers belong, which pandas refuses; more than float32 holds, which rows refuse
        with unpacking(path), np.errstate(invalid="ignore", over="ignore"):
            write_scratch(file, parsed)
        job.stage.record(unit, rows=parsed.rows, columns=parsed.columns)
    facts = job.stage.done[unit]
    return map_raw(file, np.dtype(dtype), (facts["rows"], facts["columns"]), fortran=False)


class _Blocks:
    """Blocks of rows, and how many there were."""

    def __init__(self, path: Path, num_bytes: int, dtype: np.dtype) -> None:
        self._path, self._num_bytes, self._dtype = path, num_bytes, dtype
        self.rows, self.columns = 0, 1

    def __iter__(self) -> Iterator[np.ndarray]:
        pandas = load_pandas()
        read = np.int64 if self._dtype.kind == "i" else np.float64
        try:
            with gzip.open(self._path, "rt", encoding="ascii") as file:
                self.columns = len(file.readline().split(","))
                file.seek(0)
                step = max(1, self._num_bytes // (_PARSED * self.columns))
                for block in pandas.read_csv(file, header=None, dtype=read, chunksize=step):
                    yield np.ascontiguousarray(block.to_numpy(), dtype=self._dtype)
                    self.rows += len(block)
        except pandas.errors.EmptyDataError:
            return
        except (ValueError, OverflowError) as error:  # also a row too long, and bytes that are not text
            raise InputDataError("GS-IN-103", f"{self._path}, after row {self.rows:,}: {error}") from None


def load_pandas() -> Any:
    """The package pandas, which is only there to read OGB's files."""
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            "GS-DEP-003", "pandas, which reads OGB's files, is not installed", hint="pip install 'gnnsys[ogb]'"
        ) from error
    return pandas
