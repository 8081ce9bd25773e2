"""Pass 2 over the edges: cut the key space by exact rank into buckets that fit, sort each, append it to the topology.

A bucket is a range of keys [low, high). All runs are sorted, so the rank of a key is a sum of binary searches and no
memory grows with the number of nodes. Where the cuts fall depends on the memory given; what is appended does not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gnnsys.errors import CorruptStoreError
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.kernels import fold_sorted, key_facts
from gnnsys.ingestion.sorting import Runs
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.store import INDICES, INDPTR, id_dtype

_PIECE = 1 << 16
_SHIFT, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@dataclass
class Totals:
    """What was written so far."""

    low: int = 0
    """Keys below this are done."""
    edges: int = 0
    repeats: int = 0
    """Edges equal to the one before: merged, or kept as parallel edges."""
    loops: int = 0
    max_degree: int = 0
    last: int = 0
    """Last value of indptr."""
    total: int = 0
    """Order-free sum of the keys taken."""


def write_topology(job: Job, runs: Runs, num_nodes: int, *, unique: bool) -> tuple[tuple[FileEntry, ...], Totals]:
    """`graph/indptr.bin` and `graph/indices.bin` from sorted runs; with `unique` each ordered pair once.

    Raises:
        CorruptStoreError: the runs no longer hold the keys that were put in.
    """
    entries = job.finished_files("graph")
    if entries is None:
        entries = _Topology(job, runs, num_nodes, unique).write()
    return entries, Totals(**job.facts("graph")["totals"])


class _Topology:
    """Both files of the topology, growing bucket by bucket."""

    def __init__(self, job: Job, runs: Runs, num_nodes: int, unique: bool) -> None:
        self._job, self._runs, self._num_nodes, self._unique = job, runs, num_nodes, unique
        state: dict[str, Any] = job.stage.done.get("bucket", {})
        self._totals = Totals(**state.get("totals", {}))
        self._indptr = job.writer(INDPTR, state.get("indptr"), num_bytes=8 * (num_nodes + 1))
        self._indices = job.writer(INDICES, state.get("indices"))
        if not state:
            self._indptr.append(np.zeros(1, dtype=np.int64))

    def write(self) -> tuple[FileEntry, ...]:
        end = self._num_nodes << 32
        num_keys = min(self._job.sort_bytes // 8, max(self._runs.num_keys, 1))
        buffer = aligned_buffer(8 * num_keys).view(np.uint64)
        taken = _ranks(self._runs, self._totals.low)
        try:
            while self._totals.low < end:
                high = _cut(self._runs, self._totals.low, end, sum(taken) + len(buffer))
                stops = _ranks(self._runs, high)
                self._append_bucket(buffer, taken, stops, high)
                taken = stops
                self._record(high)
            return self._finish()
        finally:
            self._indptr.close()
            self._indices.close()

    def _append_bucket(self, buffer: np.ndarray, taken: list[int], stops: list[int], high: int) -> None:
        count = sum(stops) - sum(taken)
        if count > len(buffer):
            self._append_copies(buffer, count)
            return
        filled = 0
        for run, start, stop in zip(self._runs.maps, taken, stops, strict=True):
            buffer[filled : filled + stop - start] = run[start:stop]
            filled += stop - start
        buffer[:filled].sort()
        left = self._fold(buffer[:filled], self._unique)
        self._append_ends(buffer[:left], high)
        self._append_sources(buffer[:left])

    def _append_copies(self, buffer: np.ndarray, count: int) -> None:
        """A bucket that does not fit holds copies of one key, which ends no node."""
        buffer[:] = self._totals.low
        loops = self._totals.loops
        for start in range(0, count, len(buffer)):
            piece = buffer[: min(len(buffer), count - start)]
            left = self._fold(piece, self._unique)
            again = start > 0
            self._totals.repeats += int(again)
            if again and self._unique:
                left = 0
            self._append_sources(piece[:left])
        if self._unique:
            # Every piece counted the one that is kept.
            self._totals.loops = min(self._totals.loops, loops + 1)

    def _fold(self, keys: np.ndarray, unique: bool) -> int:
        total, _ = key_facts(keys)
        left, repeats, loops = fold_sorted(keys, unique)
        self._totals.total = (self._totals.total + int(total)) % (1 << 64)
        self._totals.repeats += repeats
        self._totals.loops += loops
        return left

    def _append_sources(self, keys: np.ndarray) -> None:
        ids = id_dtype(self._num_nodes)
        for start in range(0, len(keys), _PIECE):
            self._indices.append((keys[start : start + _PIECE] & _LOW).astype(ids))
        self._totals.edges += len(keys)

    def _append_ends(self, keys: np.ndarray, high: int) -> None:
        """indptr of the nodes whose last possible key lies in this bucket."""
        totals = self._totals
        for start in range(totals.low >> 32, high >> 32, _PIECE):
            nodes = np.arange(start + 1, min(start + _PIECE, high >> 32) + 1, dtype=np.uint64)
            ends = totals.edges + np.searchsorted(keys, nodes << _SHIFT).astype(np.int64)
            degrees = np.diff(ends, prepend=totals.last)
            totals.max_degree, totals.last = max(totals.max_degree, int(degrees.max())), int(ends[-1])
            self._indptr.append(ends)

    def _record(self, high: int) -> None:
        self._totals.low = high
        self._job.progress("write topology", self._totals.edges + self._totals.repeats, self._runs.num_keys)
        self._indptr.sync()
        self._indices.sync()
        states = {"indptr": self._indptr.state(), "indices": self._indices.state()}
        self._job.stage.record("bucket", totals=asdict(self._totals), **states)

    def _finish(self) -> tuple[FileEntry, ...]:
        totals = self._totals
        if totals.total != self._runs.total:
            raise CorruptStoreError(
                "GS-STORE-010",
                f"{self._job.stage.work}: scratch files changed while they were in use",
                hint="Delete the unfinished folder and repeat the command; check the disk.",
            )
        indptr = self._indptr.finish(np.dtype(np.int64), (self._num_nodes + 1,), "indptr")
        indices = self._indices.finish(id_dtype(self._num_nodes), (totals.edges,), "indices")
        self._job.finish_files("graph", (*indptr, *indices), totals=asdict(totals))
        return (*indptr, *indices)


def _ranks(runs: Runs, key: int) -> list[int]:
    """How many keys of each run are smaller than `key`."""
    return [int(np.searchsorted(run, np.uint64(key))) for run in runs.maps]


def _cut(runs: Runs, low: int, end: int, most: int) -> int:
    """The highest bucket end in (low, end] with at most `most` keys below it; low + 1 when there is none."""
    if runs.num_keys <= most:
        return end
    fits, too_high = low + 1, end
    while too_high - fits > 1:
        middle = (fits + too_high) // 2
        if sum(_ranks(runs, middle)) <= most:
            fits = middle
        else:
            too_high = middle
    return fits
