"""Local numbers of global ids in order of first appearance: a table of stamps for the whole graph, or a hash table.

Both give the same numbers. Stamps take 4 bytes per node of the graph and answer with one access; the hash
table follows the size of the batch, for graphs whose stamps do not fit.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gnnsys.samplers import kernels

_LIMIT = np.iinfo(np.int32).max


class Numbering(Protocol):
    """Numbers the nodes of one batch after another; not for two threads at once.

    Attributes:
        count: nodes numbered so far in this batch.
        ids: (>= count,) int64; their global ids, in a buffer that the next batch uses again.
    """

    count: int
    ids: np.ndarray

    def begin(self, ids: np.ndarray) -> None:
        """Start a batch: the distinct `ids` (B,) int64 become 0 .. B - 1."""
        ...

    def number(self, sources: np.ndarray, out: np.ndarray) -> None:
        """out (E,) int32 <- local numbers of `sources` (E,); new nodes get the next ones."""
        ...


def grown(buffer: np.ndarray, used: int, count: int) -> np.ndarray:
    """`buffer`, or a larger one when it has no room for `count` values; the first `used` stay."""
    if len(buffer) >= count:
        return buffer
    larger = np.empty(count + count // 8, dtype=buffer.dtype)
    larger[:used] = buffer[:used]
    return larger


class Stamps:
    """By a table with an entry per node of the graph; see `kernels.number_by_stamp`."""

    def __init__(self, num_nodes: int) -> None:
        self.count = 0
        self.ids = np.empty(0, dtype=np.int64)
        self._stamps = np.zeros(num_nodes, dtype=np.int32)
        self._base = 1

    def begin(self, ids: np.ndarray) -> None:
        self._base += self.count
        if self._base > _LIMIT - len(self._stamps):
            self._stamps[:] = 0
            self._base = 1
        self.count = len(ids)
        self.ids = grown(self.ids, 0, self.count)
        self.ids[: self.count] = ids
        self._stamps[ids] = np.arange(self._base, self._base + self.count, dtype=np.int32)

    def number(self, sources: np.ndarray, out: np.ndarray) -> None:
        new = min(len(sources), len(self._stamps) - self.count)
        self.ids = grown(self.ids, self.count, self.count + new + 1)  # the kernel writes one place ahead
        self.count = kernels.number_by_stamp(sources, self._stamps, self._base, self.ids, self.count, out)


class HashTable:
    """By a hash table at most half full, as large as the largest batch so far."""

    def __init__(self) -> None:
        self.count = 0
        self.ids = np.empty(64, dtype=np.int64)
        self._table = np.empty(128, dtype=np.int32)

    def begin(self, ids: np.ndarray) -> None:
        self.count = len(ids)
        if len(self.ids) < self.count:
            self.ids = np.empty(1 << self.count.bit_length(), dtype=np.int64)
            self._table = np.empty(2 * len(self.ids), dtype=np.int32)
        self.ids[: self.count] = ids
        self._fill()

    def number(self, sources: np.ndarray, out: np.ndarray) -> None:
        edge = 0
        while True:
            edge, self.count = kernels.number_by_hash(
                sources, edge, self._table, self._shift, self.ids, self.count, out
            )
            if edge == len(sources):
                return
            self._grow()

    def _grow(self) -> None:
        ids = np.empty(2 * len(self.ids), dtype=np.int64)
        ids[: self.count] = self.ids[: self.count]
        self.ids = ids
        self._table = np.empty(2 * len(ids), dtype=np.int32)
        self._fill()

    def _fill(self) -> None:
        self._shift = np.uint64(64 - (len(self._table) - 1).bit_length())
        self._table[:] = -1
        kernels.fill_table(self.ids, self.count, self._table, self._shift)
