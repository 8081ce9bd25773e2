"""Who is asked for how often: exact counts over a pool, the hottest nodes, and what a cache leaves to be read.

Two passes over the ids of a pool. Ties between equally hot nodes go to the smaller id, so a cache is the same
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from gnnsys.budget import Budget
from gnnsys.progress import Progress, silent
from gnnsys.storage.pages import pages_touched
from gnnsys.storage.pool import Pool
from gnnsys.storage.threads import in_order

_CHUNK = 1 << 17
"""Nodes looked at together: masks and their positions take about 12 bytes of each."""


@dataclass(frozen=True)
class Access:
    """How often an epoch asks for every node.

    Attributes:
        counts: (N,) uint32.
        histogram: (largest count + 1,) int64: nodes by their count.
        pages: (K,) int64 distinct 4096-byte pages of the feature file under the nodes of every batch.
    """

    counts: np.ndarray
    histogram: np.ndarray
    pages: np.ndarray

    @property
    def num_requested(self) -> int:
        """Nodes asked for at least once."""
        return int(self.histogram[1:].sum())


@dataclass(frozen=True)
class Cached:
    """The hottest `rows` nodes, told by their counts alone: those above `floor`, and of those at `floor` the ids up
    to `last`."""

    rows: int
    floor: int
    last: int

    def mask(self, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the nodes `ids`, asked for `counts` times, are cached."""
        return (counts > self.floor) | ((counts == self.floor) & (ids <= self.last))


def access_counts(
    pool: Pool,
    num_nodes: int,
    row_bytes: int,
    budget: Budget,
    workers: int,
    progress: Progress = silent,
    hops: int | None = None,
) -> Access:
    """Count the requests of one epoch, of nodes within `hops` hops only when given.

    Memory: 4 bytes per node of the graph, reserved in `budget` as "access counts" and kept with the result, and 40
    per node of `workers + 1` batches.

    Raises:
        MemoryBudgetError: that does not fit.
    """
    budget.reserve(4 * num_nodes, "access counts")
    counts = np.zeros(num_nodes, dtype=np.uint32)
    pages = np.zeros(pool.num_batches, dtype=np.int64)

    def look(k: int) -> np.ndarray:
        ids = pool.ids(k, hops)
        pages[k] = pages_touched(ids, row_bytes)
        return ids

    with _batches_held(pool, budget, workers), in_order(look, range(pool.num_batches), workers) as batches:
        for k, ids in enumerate(batches):
            counts[ids] += np.uint32(1)  # the ids of a batch are distinct
            progress("count", k + 1, pool.num_batches)
    return Access(counts, histogram(counts), pages)


def hottest_rows(access: Access, rows: int) -> Cached:
    """The cache of the hottest `rows` nodes; nodes that nobody asks for are never in it."""
    rows = min(rows, access.num_requested)
    if rows == 0:
        return Cached(0, int(np.iinfo(np.uint32).max), -1)
    at_least = np.cumsum(access.histogram[::-1])[::-1]
    floor = int(np.flatnonzero(at_least >= rows)[-1])
    above = int(at_least[floor + 1]) if floor + 1 < len(at_least) else 0
    return Cached(rows, floor, _nth_at(access.counts, floor, rows - above))


def hottest_nodes(access: Access, cached: Cached) -> np.ndarray:
    """(C,) int64 ids of the cached nodes, by (-count, id). Memory: at most 48 bytes per node on the way."""
    ids, done = np.empty(cached.rows, dtype=np.int64), 0
    for first, part in _chunks(access.counts):
        found = np.flatnonzero(cached.mask(np.arange(first, first + len(part)), part))
        ids[done : done + len(found)] = first + found
        done += len(found)
    return ids[np.argsort(~access.counts[ids], kind="stable")]  # the complement: most requests first


def packed_counts(
    pool: Pool,
    access: Access,
    cached: Cached,
    budget: Budget,
    workers: int,
    progress: Progress = silent,
    hops: int | None = None,
) -> np.ndarray:
    """(K,) int64 rows of every batch, within `hops` hops only when given, that the cache does not hold."""

    def cold(k: int) -> int:
        ids = pool.ids(k, hops)
        return len(ids) - int(np.count_nonzero(cached.mask(ids, access.counts[ids])))

    found = np.zeros(pool.num_batches, dtype=np.int64)
    with _batches_held(pool, budget, workers), in_order(cold, range(pool.num_batches), workers) as counts:
        for k, count in enumerate(counts):
            found[k] = count
            progress("plan", k + 1, pool.num_batches)
    return found


def counting_memory(num_nodes: int, largest_batch: int, workers: int = 1) -> int:
    """Least memory that the passes of this module work in."""
    return 4 * num_nodes + (workers + 1) * 40 * largest_batch


def _batches_held(pool: Pool, budget: Budget, workers: int) -> AbstractContextManager[None]:
    return budget.holding((workers + 1) * 40 * int(pool.num_nodes[:, -1].max()), "batches being counted")


def _chunks(counts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(counts), _CHUNK):
        yield first, counts[first : first + _CHUNK]


def histogram(counts: np.ndarray) -> np.ndarray:
    """(largest count + 1,) int64: how many nodes have each count."""
    found = np.zeros(int(counts.max(initial=0)) + 1, dtype=np.int64)
    for _, part in _chunks(counts):
        found += np.bincount(part, minlength=len(found))
    return found


def _nth_at(counts: np.ndarray, level: int, nth: int) -> int:
    """Id of the nth node (from 1) whose count is `level`."""
    for first, part in _chunks(counts):
        here = np.flatnonzero(part == level)
        if nth <= len(here):
            return first + int(here[nth - 1])
        nth -= len(here)
    raise AssertionError("the histogram counted more nodes at this level")
