"""Rows into the Store: read block by block, checked, changed as asked, appended in journalled units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gnnsys.errors import InputDataError, MemoryBudgetError
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.kernels import bad_rows, normalize_rows
from gnnsys.ingestion.source import Rows
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.store import table_path
from gnnsys.storage.threads import read_in_order
from gnnsys.units import format_size

_STORED = {"f2", "f4", "f8", "u1", "i1"}
_SMALL_ROW = 64 << 10
"""Rows up to here fit into the smallest memory with any number of threads."""


def selected_rows(rows: Rows, kept: np.ndarray | None) -> Rows:
    """The rows `kept` (n,) ascending of a table; all of them when None.

    Rows that are `sequential` are read to their end all the same: only there it shows whether they are what they were.
    """
    if kept is None:
        return rows

    def read(start: int, stop: int) -> np.ndarray:
        ids = kept[start:stop]
        out = np.empty((len(ids), rows.columns), dtype=rows.dtype)
        # Read in pieces no larger than asked for: kept rows may lie far apart.
        end = int(ids[-1]) + 1
        for first in range(int(ids[0]), end, len(ids)):
            a, b = np.searchsorted(ids, [first, first + len(ids)])
            if a < b:
                out[a:b] = rows.read(first, min(first + len(ids), end))[ids[a:b] - first]
        if rows.sequential and stop == len(kept):
            _drain(rows, end)
        return out

    return replace(rows, num_rows=len(kept), read=read)


def _drain(rows: Rows, start: int) -> None:
    """Read on from `start` to the last row."""
    step = max(1, _SMALL_ROW // max(1, rows.columns * rows.dtype.itemsize))
    for first in range(start, rows.num_rows, step):
        rows.read(first, min(first + step, rows.num_rows))


def write_table(job: Job, name: str, rows: Rows, *, normalize: bool, fill: bool) -> tuple[tuple[FileEntry, ...], int]:
    """`tables/<name>.bin`; with `normalize` float32 rows that sum to 1 (rows that sum to 0 stay as they are).

    NaN and infinities become 0 with `fill`, before that; also returns the number of rows that held any.

    Raises:
        InputDataError: a type that is not stored, or, without `fill`, a NaN or an infinity (the first row and how
            many).
    """
    if rows.dtype.str[1:] not in _STORED:
        raise InputDataError(
            "GS-IN-121",
            f"table {name}: values are {rows.dtype}, expected float16, float32, float64, uint8 or int8",
            hint="Convert them to float32.",
        )

    def change(block: np.ndarray, start: int) -> tuple[np.ndarray, int]:
        bad = _bad_rows(block)[1]
        if bad and not fill:
            raise _not_finite(job, name, rows, start, block)
        if bad:
            block = np.where(np.isfinite(block), block, block.dtype.type(0))
        if not normalize:
            return block, bad
        out = np.empty(block.shape, dtype=np.float32)
        normalize_rows(_computable(block), out)
        return out, bad

    dtype = np.dtype(np.float32) if normalize else rows.dtype.newbyteorder("=")
    return write_rows(job, table_path(name), "table", rows, dtype, change)


def write_rows(
    job: Job,
    path: str,
    role: str,
    rows: Rows,
    dtype: np.dtype,
    change: Callable[[np.ndarray, int], tuple[np.ndarray, int]],
    shape: tuple[int, ...] | None = None,
) -> tuple[tuple[FileEntry, ...], int]:
    """File `path` of `dtype`, made of `change(block, first row)` of every block.

    Returns:
        Its entries, and the sum of what `change` counted.
    """
    entries = job.finished_files(path)
    if entries is not None:
        return entries, job.facts(path)["changed"]
    state: dict[str, Any] = job.stage.done.get(f"part/{path}", {"rows": 0, "file": None, "changed": 0})
    changed: int = state["changed"]
    row_bytes = max(1, rows.columns * max(dtype.itemsize, rows.dtype.itemsize))
    _require_room(job, path, row_bytes)
    step = max(1, job.block_bytes // row_bytes)
    writer = job.writer(path, state["file"], num_bytes=rows.num_rows * rows.columns * dtype.itemsize)
    starts = range(state["rows"], rows.num_rows, step)

    def read(start: int) -> tuple[int, np.ndarray]:
        return start, rows.read(start, min(start + step, rows.num_rows))

    def work(block: tuple[int, np.ndarray]) -> tuple[np.ndarray, int]:
        return change(block[1], block[0])

    try:
        durable = writer.num_bytes
        with read_in_order(read, work, starts, job.workers, sequential=rows.sequential) as blocks:
            for start, (block, count) in zip(starts, blocks, strict=True):
                writer.append(block)
                changed += count
                job.progress(f"write {path}", start + len(block), rows.num_rows)
                if writer.num_bytes - durable >= job.unit_bytes:
                    writer.sync()
                    durable = writer.num_bytes
                    job.stage.record(f"part/{path}", rows=start + len(block), file=writer.state(), changed=changed)
        entries = writer.finish(dtype, shape or (rows.num_rows, rows.columns), role)
    finally:
        writer.close()
    job.finish_files(path, entries, changed=changed)
    return entries, changed


def _require_room(job: Job, path: str, row_bytes: int) -> None:
    """Refuse rows of which not even one per thread fits: a few bytes of a sparse matrix can claim any width."""
    limit = max(_SMALL_ROW, job.budget.total // (2 * (job.workers + 2)))
    if row_bytes > limit:
        raise MemoryBudgetError(
            "GS-MEM-103",
            f"{path}: a row takes {format_size(row_bytes)}, --memory {format_size(job.budget.total)} has room for "
            f"rows of {format_size(limit)} with {job.workers} threads",
            hint="Give more --memory, or check how many columns the input says it has.",
        )


def _computable(block: np.ndarray) -> np.ndarray:
    """`block` in a type that the kernels know, without loss."""
    return block if block.dtype in (np.float32, np.float64) else block.astype(np.float32)


def _bad_rows(block: np.ndarray) -> tuple[int, int]:
    """(first row that is not finite or -1, how many)."""
    if block.dtype.kind != "f":
        return -1, 0
    with np.errstate(over="ignore", invalid="ignore"):
        # One fast sum clears almost every block; an overflow only sends it to the slow look.
        if np.isfinite(block.sum(dtype=max(block.dtype, np.dtype(np.float32)))):
            return -1, 0
    return bad_rows(_computable(block))


def _not_finite(job: Job, name: str, rows: Rows, start: int, block: np.ndarray) -> InputDataError:
    """The error for the `block` at `start`: all bad rows from there on are counted. Not where rows are `sequential`:
    their reader is at work further on, and of them only the block is looked at."""
    if rows.sequential:
        bad, count = _bad_rows(block)
        first, where = start + bad, f" of {start} to {start + len(block) - 1}"
    else:
        (first, count), where = _bad_rows_from(job, rows, start), ""
    told = f"1 row{where} holds" if count == 1 else f"{count} rows{where} hold"
    return InputDataError(
        "GS-IN-120",
        f"table {name}: {told} a NaN or an infinity, the first is row {first}",
        hint="--on-nan zero puts 0 in their place.",
    )


def _bad_rows_from(job: Job, rows: Rows, start: int) -> tuple[int, int]:
    """As `_bad_rows`, for all rows from `start` on."""
    step = max(1, job.block_bytes // max(1, rows.columns * rows.dtype.itemsize))
    first, count = -1, 0
    for at in range(start, rows.num_rows, step):
        bad, more = _bad_rows(rows.read(at, min(at + step, rows.num_rows)))
        first = at + bad if first < 0 <= bad else first
        count += more
    return first, count
