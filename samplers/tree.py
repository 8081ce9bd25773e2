"""Directional tree sampling: hop h draws in-neighbours of the nodes first found in hop h - 1.

Every draw is a function of (seed, pool index, batch, hop, node), so a batch is the same whoever samples it, in
whatever order, on any number of threads.

Source: Hamilton et al. 2017 (GraphSAGE), algorithm 2, without replacement; the scheme is PyG's NeighborLoader with
`directed` subgraphs. Positions of the neighbour list are drawn, so parallel edges count as often as they are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from gnnsys.budget import Budget
from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.keys import derive
from gnnsys.samplers import kernels
from gnnsys.samplers.batches import SeedBatch, check_key
from gnnsys.samplers.draws import Draw, Hidden, Ring, Uniform
from gnnsys.samplers.numbering import HashTable, Numbering, Stamps, grown
from gnnsys.samplers.seeds import refuse_outside
from gnnsys.storage.blob import PoolBatch
from gnnsys.units import format_size

_LIMIT = np.iinfo(np.int32).max
_T = TypeVar("_T")


class Topology(Protocol):
    """In-edges by destination; `storage.store.Graph` is one."""

    @property
    def indptr(self) -> np.ndarray: ...
    @property
    def indices(self) -> np.ndarray: ...


def checked_fanouts(fanouts: Sequence[int]) -> list[int]:
    """Fanouts as a list, seed side first.

    Raises:
        ConfigError: one of them is not -1 (all neighbours), 0 (none) or more.
    """
    found = [int(f) for f in fanouts]
    if any(f < -1 or f > _LIMIT for f in found):
        raise ConfigError("GS-CFG-200", f"fanouts are {found}; each must be -1 (all neighbours), 0 (none) or more")
    return found


def working_bytes(num_nodes: int, num_edges: int) -> int:
    """Upper bound of the memory that sampling and encoding a batch takes at its peak, a table of stamps apart.

    A node holds up to 16 bytes of hash table and 16 of ids and their room, 8 of the copy, 8 of where its edges begin,
    16 of degree and counts, 16 of offsets. An edge holds 16 bytes of position and source, 8 of local number while
    hops are joined, and 8 of sections.
    """
    return 80 * num_nodes + 32 * num_edges + (1 << 20)


def largest_batch(
    seeds: int, fanouts: Sequence[int], num_nodes: int, num_edges: int, max_degree: int, replace: bool
) -> tuple[int, int]:
    """Upper bounds of the nodes and edges of a batch of so many seeds: every fanout taken in full by nodes that are all
    distinct; never more than the graph has."""
    ring = nodes = min(seeds, num_nodes)
    edges = 0
    for fanout in fanouts:
        drawn = ring * (max_degree if fanout < 0 else fanout)
        drawn = drawn if replace else min(drawn, num_edges)
        ring = min(drawn, num_nodes - nodes)
        nodes, edges = nodes + ring, edges + drawn
        edges = edges if replace else min(edges, num_edges)
    return nodes, edges


def stamp_bytes(num_nodes: int) -> int:
    """Memory of one table of stamps."""
    return 4 * num_nodes


class TreeSampler:
    """Samples batches; may be called from several threads at once, each call has its own scratch.

    Args:
        graph: `indptr` (N + 1,) int64, `indices` (E,) int32 or int64, ascending within a node.
        fanouts: neighbours per node and hop, seed side first; -1 takes all, 0 none.
        seed, pool_index: part of every random key.
        labels: (N,) int64 or (N, T) float32; those of the seeds go into the batch (node tasks).
        budget: a batch that alone does not fit into what is left of it is refused before its edges are fetched.
        draw: which in-edges of a node are drawn; uniformly, each at most once, when None.
        stamped: number nodes by a table of `stamp_bytes` per call at a time, which is faster, and not by a hash table.

    Raises:
        ConfigError: a fanout or a key part is out of range.
    """

    def __init__(
        self,
        graph: Topology,
        fanouts: Sequence[int],
        *,
        seed: int,
        pool_index: int = 0,
        labels: np.ndarray | None = None,
        budget: Budget | None = None,
        draw: Draw | None = None,
        stamped: bool = False,
    ) -> None:
        check_key(seed, pool_index)
        # Kernels compile once per array type: a plain array and a map must not be two.
        self._indptr = np.asarray(graph.indptr)
        self._indices = np.asarray(graph.indices)
        self._labels = labels
        self._limit = None if budget is None else budget.left
        self._key = (seed, pool_index)
        self._draw = draw or Uniform()
        self._stamped = stamped
        # A deque and no lock: as many are made as batches are sampled at once.
        self._idle: deque[_Scratch] = deque()
        self.fanouts = checked_fanouts(fanouts)

    @property
    def num_nodes(self) -> int:
        """Nodes of the graph."""
        return len(self._indptr) - 1

    def sample(self, batch: SeedBatch) -> PoolBatch:
        """The sampled neighbourhood of `batch`.

        Nodes are numbered seeds first, then ring by ring, within a ring in order of first appearance. Edges of a
        node are in the order they were drawn, in that of its neighbour list when all are taken. An isolated seed has
        no edges and stays an input node.

        Raises:
            InputDataError: a seed is not a node of the graph, or a node has 2^31 in-edges or more.
            ConfigError: the batch has 2^31 edges or more.
            MemoryBudgetError: it does not fit into the budget.
        """
        return self.lend(batch, PoolBatch.copy)

    def lend(self, batch: SeedBatch, use: Callable[[PoolBatch], _T]) -> _T:
        """`use` of what `sample` returns, which lies in memory of the sampler's own and is gone when this returns."""
        refuse_outside(batch.ids, self.num_nodes, f"batch {batch.index}")
        try:
            scratch = self._idle.pop()
        except IndexError:
            scratch = _Scratch(Stamps(self.num_nodes) if self._stamped else HashTable(), self._indices.dtype)
        try:
            return use(self._sample(batch, scratch))
        finally:
            self._idle.append(scratch)

    def _sample(self, batch: SeedBatch, scratch: _Scratch) -> PoolBatch:
        numbering = scratch.numbering
        numbering.begin(batch.ids)
        cut = _CutOut(self._indptr, self._indices, batch)
        hidden: Hidden = cut
        self._look_up(scratch, 0)
        scratch.degree[: numbering.count] -= cut.counts
        num_nodes, num_edges = [0, numbering.count], 0
        for h, fanout in enumerate(self.fanouts, start=1):
            start, stop = num_nodes[-2:]
            part = slice(start, stop)
            ptr = scratch.ptr[start : stop + 1]
            ring = Ring(numbering.ids[part], scratch.first[part], scratch.degree[part], ptr, fanout, hidden)
            end = self._checked_end(batch.index, stop, self._draw.count(ring))
            positions, sources, out = scratch.edges(num_edges, end)
            key = np.uint64(derive(*self._key, batch.index, h))
            self._draw.positions(ring, key, positions)
            hidden = _NoneHidden  # in-edges of seeds are drawn in the first hop only
            kernels.fetch_sources(self._indices, positions, sources)
            numbering.number(sources, out)
            self._look_up(scratch, stop)
            num_nodes.append(numbering.count)
            num_edges = end
        return PoolBatch(
            index=batch.index,
            num_nodes=np.array(num_nodes[1:], dtype=np.int64),
            ids=numbering.ids[: numbering.count],
            degree=scratch.degree[: numbering.count],
            indptr=scratch.ptr[: num_nodes[-2] + 1],
            indices=scratch.indices[:num_edges],
            labels=self._labels_of(batch),
            pairs=batch.pairs,
            pair_label=batch.pair_label,
            t=batch.t,
        )

    def _checked_end(self, index: int, num_nodes: int, num_edges: int) -> int:
        """`num_edges`, once a batch with so many, and the nodes found before them, is known to be possible."""
        if num_edges > _LIMIT:
            raise ConfigError(
                "GS-CFG-201",
                f"batch {index} has {num_edges} edges; at most {_LIMIT} are supported",
                hint="Use smaller batches or fanouts.",
            )
        needed = working_bytes(num_nodes, num_edges)
        if self._limit is not None and needed > self._limit:
            raise MemoryBudgetError(
                "GS-MEM-002",
                f"a batch needs at least {format_size(needed)} (number {index}, {num_edges:,} edges), "
                f"{format_size(max(self._limit, 0))} are left of --memory",
                hint="Give more --memory, or use smaller batches or fanouts.",
            )
        return num_edges

    def _look_up(self, scratch: _Scratch, start: int) -> None:
        """Note where the in-edges of the nodes from number `start` on begin, and how many they are."""
        nodes = scratch.numbering.ids[start : scratch.numbering.count]
        scratch.make_room_for_nodes(start, scratch.numbering.count)
        largest = kernels.look_up(self._indptr, nodes, scratch.first[start:], scratch.degree[start:])
        if largest > _LIMIT:
            raise InputDataError("GS-IN-206", f"a node has {largest} in-edges; at most {_LIMIT} are supported")

    def _labels_of(self, batch: SeedBatch) -> np.ndarray | None:
        """Labels are for node tasks: a batch of pairs has its own."""
        if self._labels is None or batch.pairs is not None:
            return None
        return np.asarray(self._labels[batch.ids])


class _Scratch:
    """What one call after another uses: fresh memory costs as much as the work that is done in it.

    Attributes, each with room to spare:
        first (n,) int64, degree (n,) int32: where the in-edges of every numbered node begin in the graph, their number.
        ptr (n + 1,) int32, indices (E,) int32: the CSR of the batch.
    """

    def __init__(self, numbering: Numbering, id_dtype: np.dtype) -> None:
        self.numbering = numbering
        self.first, self.degree = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
        self.ptr, self.indices = np.zeros(1, dtype=np.int32), np.empty(0, dtype=np.int32)
        self._positions, self._sources = np.empty(0, dtype=np.int64), np.empty(0, dtype=id_dtype)

    def make_room_for_nodes(self, used: int, count: int) -> None:
        """Room for `count` nodes; what the first `used` have stays."""
        self.first, self.degree = grown(self.first, used, count), grown(self.degree, used, count)
        self.ptr = grown(self.ptr, used + 1, count + 1)

    def edges(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (E,) int64, sources (E,) and local numbers (E,) int32 of edges start .. end, to be filled."""
        self.indices, count = grown(self.indices, start, end), end - start
        self._positions, self._sources = grown(self._positions, 0, count), grown(self._sources, 0, count)
        return self._positions[:count], self._sources[:count], self.indices[start:end]


class _NoneHidden:
    ptr = begin = end = np.zeros(0, dtype=np.int64)


class _CutOut:
    """Edges into the seeds that must not be drawn: the batch's positive pairs, all their parallel copies.

    Only seeds can have hidden in-edges, because both ends of a pair are seeds; so only hop 1 asks.

    Attributes:
        counts: (B,) int32 hidden in-edges per seed.
        ptr, begin, end: their ranges, see `draws.Hidden`.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, batch: SeedBatch) -> None:
        self.counts = np.zeros(len(batch.ids), dtype=np.int32)
        self.ptr = self.begin = self.end = np.zeros(0, dtype=np.int64)
        if batch.exclude == "none" or batch.pairs is None or batch.pair_label is None:
            return
        edges = batch.pairs[batch.pair_label != 0]
        if batch.exclude == "self+reverse":
            edges = np.concatenate([edges, edges[:, ::-1]])
        into, sources = np.unique(np.stack([edges[:, 1], batch.ids[edges[:, 0]]]), axis=1)
        self.begin, self.end = np.empty((2, len(into)), dtype=np.int64)
        kernels.find_hidden(indptr, indices, batch.ids[into], sources, self.begin, self.end)
        self.ptr = np.searchsorted(into, np.arange(len(batch.ids) + 1))
        np.add.at(self.counts, into, (self.end - self.begin).astype(np.int32))
