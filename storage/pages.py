"""Pages of 4096 bytes: which of them some rows lie on, and where runs of rows that each start on one lie."""

from __future__ import annotations

import math

import numpy as np

from gnnsys.storage import kernels
from gnnsys.storage.files import PAGE

_PIECE_BYTES = 1 << 20


def pages_touched(ids: np.ndarray, row_bytes: int, page_bytes: int = PAGE) -> int:
    """Number of distinct pages that rows `ids` cover: (n,) integers in any order, duplicates allowed."""
    if row_bytes == 0 or len(ids) == 0:
        return 0
    return int(kernels.pages_touched(_ascending(ids), row_bytes, page_bytes))


def page_runs(
    ids: np.ndarray, row_bytes: int, page_bytes: int = PAGE, longest: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pages that rows `ids` cover, neighbours merged into runs of at most `longest` pages.

    Returns:
        first page (m,) int64 ascending, number of pages (m,) int64.
    """
    if row_bytes == 0 or len(ids) == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    capacity = len(ids) + len(ids) * (row_bytes // page_bytes + 2) // longest + 1
    first, count = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
    runs = kernels.page_runs(_ascending(ids), row_bytes, page_bytes, longest, first, count)
    return first[:runs], count[:runs]


def pages_of(ids: np.ndarray, row_bytes: int, page_bytes: int = PAGE) -> np.ndarray:
    """The distinct pages themselves: (p,) int64, ascending."""
    first, count = page_runs(ids, row_bytes, page_bytes)
    ends = np.cumsum(count)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - count), count)


def piece_bytes(row_bytes: int) -> int:
    """Size of the pieces that a run is read in: whole rows and whole pages, about 1 MiB, more where a row and a page
    have few divisors in common (5.6 MiB for 1,433 float32 columns)."""
    unit = math.lcm(row_bytes, PAGE)
    return max(_PIECE_BYTES // unit, 1) * unit


def run_layout(count: np.ndarray, row_bytes: int, shard_bytes: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Where runs lie: shard (K,) uint32, byte offset (K,) int64, bytes of every shard. A run is never split."""
    shard, offset = np.zeros(len(count), dtype=np.uint32), np.zeros(len(count), dtype=np.int64)
    sizes: list[int] = []
    for k, num_bytes in enumerate((-(-count * row_bytes // PAGE) * PAGE).tolist()):
        if num_bytes and (not sizes or (sizes[-1] and sizes[-1] + num_bytes > shard_bytes)):
            sizes.append(0)
        if sizes:
            shard[k], offset[k] = len(sizes) - 1, sizes[-1]
            sizes[-1] += num_bytes
    return shard, offset, sizes


def _ascending(ids: np.ndarray) -> np.ndarray:
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    return ids if len(ids) < 2 or bool((ids[1:] >= ids[:-1]).all()) else np.sort(ids)
