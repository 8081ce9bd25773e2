"""Scan the features once and scatter their rows into the runs of all batches, in bounded memory.

The table is cut into ranges of nodes. While one range is scattered the next is read by a thread, and the one before
is made durable by another. Ids and slots of a run both ascend, so a range gives each run one contiguous piece:

    for every range:  for every batch with ids in it:  gather rows -> stage -> pwrite at run offset + slot * row bytes

After every range its end and the sums so far are recorded. Ranges may be cut differently when work is continued
with another memory: the bytes and the sums of the result do not depend on the cuts.

    .work/sums-0.bin, sums-1.bin     (targets,) uint64 sums of the rows written so far, by turns
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from pathlib import Path

import numpy as np
import xxhash

from gnnsys.budget import Budget
from gnnsys.errors import CorruptStoreError, MemoryBudgetError
from gnnsys.progress import Progress
from gnnsys.storage.checksums import BLOCK_BYTES, chunk_sum
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import (
    PAGE,
    disk_errors,
    make_data_durable,
    make_folder,
    open_sized,
    raw_bytes,
    read_into,
    round_up,
    write_all,
)
from gnnsys.storage.kernels import gather
from gnnsys.storage.stage import Stage
from gnnsys.storage.table_direct import DirectTable
from gnnsys.units import format_size

STAGE_BYTES = 2 << 20
"""Rows gathered before one write. 1, 4 and 8 MiB were tried: no difference beyond noise."""
RANGE_BYTES = 64 << 20
"""A range as long as this overlaps reading, scattering and syncing well; longer only for the sake of PIECE_BYTES.
(1 GiB of features, 1.4 GB written: 64, 128 and 256 MiB differ less than two runs of one do.)"""
PIECE_BYTES = 256 << 10
"""Mean length of one range's piece of one run below which the disk seeks more than it writes."""
SPARE_BYTES = 32 << 20
"""Left to the heap, at most a quarter of what is left: freed arrays of earlier steps may still be in it (20 MiB were
measured), and small ones come and go."""
_MIN_ROWS = 64
_UNIT = "rows"


@dataclass(frozen=True)
class Targets:
    """Where rows go: target t is the run of a batch, or the cache.

    Shapes: T targets, M ids.

    Attributes:
        ids: (M,) node ids, ascending within a target.
        start: (T + 1,) int64: target t takes `ids[start[t] : start[t + 1]]`.
        file: (T,) number of the file; offset: (T,) int64 byte offset of its first row there.
        paths, sizes: the files and the bytes to allocate for each.
    """

    ids: np.ndarray
    start: np.ndarray
    file: np.ndarray
    offset: np.ndarray
    paths: list[Path]
    sizes: list[int]


@dataclass(frozen=True)
class _Range:
    """Rows first .. stop of the table, and per target the ids that fall into it: `ids[low[t] : high[t]]`."""

    first: int
    stop: int
    low: np.ndarray
    high: np.ndarray


def scatter(
    stage: Stage, table: DirectTable, targets: Targets, budget: Budget, workers: int, progress: Progress
) -> np.ndarray:
    """Write every row of every target, continuing where the journal of `stage` ends.

    Returns:
        (T,) uint64: `chunk_sum` of every target.

    Raises:
        DiskSpaceError: the files cannot be allocated.
        MemoryBudgetError: two ranges of 64 rows do not fit.
        CorruptStoreError: a block of the table fails its checksum.
    """
    with _Scatter(stage, table, targets, budget, workers) as work:
        work.run(progress)
        return work.sums


def scatter_memory(row_bytes: int, workers: int = 1) -> int:
    """Least memory that `scatter` works in."""
    return 2 * _range_buffer(_MIN_ROWS * row_bytes) + workers * _stage_memory(row_bytes)


class _Scatter:
    """Buffers, files and threads of one `scatter`."""

    def __init__(self, stage: Stage, table: DirectTable, targets: Targets, budget: Budget, workers: int) -> None:
        self._stage, self._table, self._targets = stage, table, targets
        self._stack = ExitStack()
        self._sized(budget, workers)
        self._local = threading.local()
        self._fds = [self._open(path, size) for path, size in zip(targets.paths, targets.sizes, strict=True)]
        self._sum_fds = [self._open(stage.work / f"sums-{i}.bin", 8 * len(targets.file)) for i in (0, 1)]
        self._units, self.next_row, self.sums = self._resumed()

    def __enter__(self) -> _Scatter:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def run(self, progress: Progress) -> None:
        """All ranges that are left. The threads end before the files close."""
        ranges = self._ranges()
        buffers = [aligned_buffer(_range_buffer(self._range_rows * self._table.row_bytes)) for _ in range(2)]
        syncing: Future[_Unit] | None = None
        with (
            ThreadPoolExecutor(1, "gnnsys-read") as reader,
            ThreadPoolExecutor(1, "gnnsys-sync") as syncer,
            ThreadPoolExecutor(self._workers, "gnnsys-write") as writers,
        ):
            current = next(ranges, None)
            reading = reader.submit(self._read, current, buffers[0]) if current else None
            while current and reading:
                rows, following = reading.result(), next(ranges, None)
                buffers.reverse()
                reading = reader.submit(self._read, following, buffers[0]) if following else None
                self._scatter(current, rows, writers)
                if syncing:
                    self._record(syncing.result(), progress)
                syncing = syncer.submit(self._sync, _Unit(self._units, current.stop, self.sums.copy()))
                self._units += 1
                current = following
            if syncing:
                self._record(syncing.result(), progress)

    def _sized(self, budget: Budget, workers: int) -> None:
        """Shares of the memory: a stage per worker, some for the heap, the rest for two ranges."""
        row_bytes, left = self._table.row_bytes, budget.left
        if left < scatter_memory(row_bytes):
            raise MemoryBudgetError(
                "GS-MEM-301",
                f"packing rows of {format_size(row_bytes)} needs {format_size(scatter_memory(row_bytes))}, "
                f"{format_size(max(left, 0))} are left of --memory {format_size(budget.total)}",
                hint=f"At least --memory {format_size(budget.total + scatter_memory(row_bytes) - left)} is needed.",
            )
        self._workers = max(w for w in range(1, workers + 1) if w == 1 or scatter_memory(row_bytes, w) <= left)
        share = min(STAGE_BYTES, left // (8 * self._workers))
        self._stage_rows = max(share // _stage_memory(row_bytes), 1)
        stages = self._workers * self._stage_rows * _stage_memory(row_bytes)
        spare = min(left // 4, SPARE_BYTES)
        range_bytes = min((left - stages - spare) // 2 - 2 * BLOCK_BYTES - PAGE, self._wanted_range())
        rows = max(range_bytes // row_bytes, 1)
        # whole blocks, where their number is small, so that no block is read for two ranges
        whole = BLOCK_BYTES // gcd(BLOCK_BYTES, row_bytes)
        self._range_rows = rows // whole * whole if rows >= 4 * whole else rows
        budget.reserve(stages + 2 * _range_buffer(self._range_rows * row_bytes), "ranges and stages of packing")
        self._stack.callback(budget.shares.pop, "ranges and stages of packing")

    def _wanted_range(self) -> int:
        """Bytes of a range that gives pieces of PIECE_BYTES."""
        written = max(len(self._targets.ids) * self._table.row_bytes, 1)
        return max(RANGE_BYTES, self._table.num_bytes * len(self._targets.file) * PIECE_BYTES // written)

    def _open(self, path: Path, num_bytes: int) -> int:
        make_folder(path.parent)
        try:
            fd = open_sized(path, num_bytes)
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(os.close, fd)
        return fd

    def _resumed(self) -> tuple[int, int, np.ndarray]:
        """Units done, first row to do and sums so far, from the journal."""
        done = [payload for name, payload in self._stage.done.items() if name.startswith(_UNIT)]
        sums = np.zeros(len(self._targets.file), dtype=np.uint64)
        if not done:
            return 0, 0, sums
        turn = (len(done) - 1) % 2
        path = self._stage.work / f"sums-{turn}.bin"
        read_into(self._sum_fds[turn], sums, 0, path)
        if xxhash.xxh3_64_hexdigest(raw_bytes(sums)) != done[-1]["hash"]:
            self._stack.close()
            raise CorruptStoreError(
                "GS-STORE-006",
                f"{path}: changed since it was written",
                hint="Delete the unfinished folder and repeat the command.",
            )
        return len(done), int(done[-1]["stop"]), sums

    def _ranges(self) -> Iterator[_Range]:
        """What is left of the table in ranges; those that nobody asks for are skipped."""
        low = self._cut(self.next_row)
        for first in range(self.next_row, self._table.num_rows, self._range_rows):
            stop = min(first + self._range_rows, self._table.num_rows)
            high = self._cut(stop)
            if (high > low).any():
                yield _Range(first, stop, low, high)
            low = high

    def _cut(self, row: int) -> np.ndarray:
        """(T,) int64: per target the position of its first id that is at least `row`."""
        ids, start = self._targets.ids, self._targets.start.tolist()
        return np.array([a + int(ids[a:b].searchsorted(row)) for a, b in pairwise(start)], dtype=np.int64)

    def _read(self, part: _Range, buffer: np.ndarray) -> np.ndarray:
        """(rows, B) uint8 of a range: whole blocks are read and verified, a block on a border twice."""
        row_bytes = self._table.row_bytes
        begin = part.first * row_bytes // BLOCK_BYTES * BLOCK_BYTES
        end = min(round_up(part.stop * row_bytes, BLOCK_BYTES), self._table.num_bytes)
        self._table.read_raw(buffer[: round_up(end - begin)], begin)
        self._table.verify_blocks(begin // BLOCK_BYTES, buffer[: end - begin])
        rows = buffer[part.first * row_bytes - begin : part.stop * row_bytes - begin]
        return rows.reshape(-1, row_bytes)

    def _scatter(self, part: _Range, rows: np.ndarray, writers: ThreadPoolExecutor) -> None:
        futures = [writers.submit(self._write, task, rows, part.first) for task in self._tasks(part)]
        try:
            for future in futures:
                where, sums = future.result()
                np.add.at(self.sums, where, sums)
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _tasks(self, part: _Range) -> Iterator[list[tuple[int, int, int]]]:
        """Pieces (target, low, high) in groups of about one stage; a piece is never longer than that."""
        task: list[tuple[int, int, int]] = []
        room = self._stage_rows
        used = np.flatnonzero(part.high > part.low)
        for t, low, high in zip(used.tolist(), part.low[used].tolist(), part.high[used].tolist(), strict=True):
            while low < high:
                stop = min(high, low + room)
                task.append((t, low, stop))
                room -= stop - low
                low = stop
                if room == 0:
                    yield task
                    task, room = [], self._stage_rows
        if task:
            yield task

    def _write(self, task: list[tuple[int, int, int]], rows: np.ndarray, first: int) -> tuple[list[int], np.ndarray]:
        """Gather, sum and write the pieces of one task.

        Through the page cache: the kernel joins what neighbouring ranges write into one page. O_DIRECT for the whole
        pages inside a piece was tried (750 KB pieces): 1.2 to 3 times slower, the allocated extents are converted at
        every write.
        """
        stage, targets, sums = self._buffer(), self._targets, []
        for t, low, high in task:
            piece, slot = stage[: high - low], low - int(targets.start[t])
            gather(rows, targets.ids[low:high] - first, piece)
            sums.append(chunk_sum(piece, first_slot=slot))
            with disk_errors(targets.paths[targets.file[t]]):
                write_all(self._fds[targets.file[t]], piece, int(targets.offset[t]) + slot * rows.shape[1])
        return [t for t, _, _ in task], np.array(sums, dtype=np.uint64)

    def _buffer(self) -> np.ndarray:
        """This thread's stage: (stage rows, B) uint8."""
        if not hasattr(self._local, "stage"):
            num_bytes = self._stage_rows * self._table.row_bytes
            self._local.stage = aligned_buffer(num_bytes).reshape(-1, self._table.row_bytes)
        stage: np.ndarray = self._local.stage
        return stage

    def _sync(self, unit: _Unit) -> _Unit:
        """Make rows and sums durable; pages that later ranges dirty meanwhile go along."""
        fd = self._sum_fds[unit.number % 2]
        with disk_errors(self._stage.folder):
            for rows_fd in self._fds:
                make_data_durable(rows_fd)
            write_all(fd, unit.sums, 0)
            make_data_durable(fd)
        return unit

    def _record(self, unit: _Unit, progress: Progress) -> None:
        self._stage.record(
            f"{_UNIT}-{unit.number:06d}", stop=unit.stop, hash=xxhash.xxh3_64_hexdigest(raw_bytes(unit.sums))
        )
        progress("write", unit.stop, self._table.num_rows)


@dataclass(frozen=True)
class _Unit:
    number: int
    stop: int
    sums: np.ndarray


def _range_buffer(num_bytes: int) -> int:
    """Bytes of the buffer for a range of that length: it may begin and end inside a block."""
    return round_up(num_bytes, PAGE) + 2 * BLOCK_BYTES


def _stage_memory(row_bytes: int) -> int:
    """Bytes per staged row: the row, its padded copy for the sum when it is not whole words, its id twice."""
    return row_bytes + (round_up(row_bytes, 8) if row_bytes % 8 else 0) + 16
