"""Directional tree sampling: hop h draws in-neighbours of the nodes first found in hop h - 1.

Every draw is a function of (seed, pool index, batch, hop, node), so a batch is the same whoever samples it, in
whatever order, on any number of threads.

Source: Hamilton et al. 2017 (GraphSAGE), algorithm 2, without replacement; the scheme is PyG's NeighborLoader with
`directed` subgraphs. Positions of the neighbour list are drawn, so parallel edges count as often as they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gnnsys.budget import Budget
from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.keys import derive
from gnnsys.samplers import kernels
from gnnsys.samplers.batches import SeedBatch, check_key
from gnnsys.samplers.seeds import refuse_outside
from gnnsys.storage.blob import PoolBatch
from gnnsys.units import format_size

_LIMIT = np.iinfo(np.int32).max


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
    """Upper bound of the memory that sampling and encoding a batch takes at its peak.

    At the end of sampling a node holds up to 16 bytes of hash table, 16 of ids and their room, 8 of the copy, 8 of
    degrees and 16 of counts and offsets; while the table grows, half of table and ids again instead of the copies.
    An edge holds 16 bytes of position and source in its own hop, then 4 of local number, then up to 16 of sections.
    """
    return 80 * num_nodes + 24 * num_edges + (1 << 20)


class TreeSampler:
    """Samples batches; may be called from several threads at once, scratch belongs to the call.

    Args:
        graph: `indptr` (N + 1,) int64, `indices` (E,) int32 or int64, ascending within a node.
        fanouts: neighbours per node and hop, seed side first; -1 takes all, 0 none.
        seed, pool_index: part of every random key.
        labels: (N,) int64; those of the seeds go into the batch (node tasks).
        budget: a batch that alone does not fit into what is left of it is refused before its edges are fetched.

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
    ) -> None:
        check_key(seed, pool_index)
        # Kernels compile once per array type: a plain array and a map must not be two.
        self._indptr = np.asarray(graph.indptr)
        self._indices = np.asarray(graph.indices)
        self._labels = labels
        self._limit = None if budget is None else budget.left
        self._key = (seed, pool_index)
        self._room = 0
        self.fanouts = checked_fanouts(fanouts)

    @property
    def num_nodes(self) -> int:
        """Nodes of the graph."""
        return len(self._indptr) - 1

    def sample(self, batch: SeedBatch) -> PoolBatch:
        """The sampled neighbourhood of `batch`.

        Nodes are numbered seeds first, then ring by ring, within a ring in order of first appearance. Edges of a
        node keep the order of its neighbour list. An isolated seed has no edges and stays an input node.

        Raises:
            InputDataError: a seed is not a node of the graph, or a node has 2^31 in-edges or more.
            ConfigError: the batch has 2^31 edges or more.
            MemoryBudgetError: it does not fit into the budget.
        """
        refuse_outside(batch.ids, self.num_nodes, f"batch {batch.index}")
        numbering = _Numbering(batch.ids, self._room)
        hidden = _Hidden(self._indptr, self._indices, batch)
        degree = [self._degrees(batch.ids) - hidden.counts]
        num_nodes = [0, len(batch.ids)]
        counts, indices = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.int32)]
        for h, fanout in enumerate(self.fanouts, start=1):
            ring = numbering.ids[num_nodes[-2] : num_nodes[-1]]
            counts.append(degree[-1] if fanout < 0 else np.minimum(degree[-1], np.int32(fanout)))
            ptr = _offsets(counts[-1], batch.index)
            self._require_room(batch.index, numbering.count, sum(map(len, indices)) + int(ptr[-1]))
            sources = self._sources(ring, degree[-1], ptr, hidden if h == 1 else None, (batch.index, h))
            indices.append(numbering.number(sources))
            num_nodes.append(numbering.count)
            degree.append(self._degrees(numbering.ids[num_nodes[-2] : num_nodes[-1]]))
        self._room = max(self._room, numbering.count)
        return PoolBatch(
            index=batch.index,
            num_nodes=np.array(num_nodes[1:], dtype=np.int64),
            ids=numbering.ids[: numbering.count].copy(),
            degree=np.concatenate(degree),
            indptr=_offsets(np.concatenate(counts), batch.index).astype(np.int32),
            indices=np.concatenate(indices),
            labels=self._labels_of(batch),
            pairs=batch.pairs,
            pair_label=batch.pair_label,
            t=batch.t,
        )

    def _require_room(self, index: int, num_nodes: int, num_edges: int) -> None:
        """Refuse a hop by the edges it is about to fetch; the nodes it will find are not known yet."""
        needed = working_bytes(num_nodes, num_edges)
        if self._limit is not None and needed > self._limit:
            raise MemoryBudgetError(
                "GS-MEM-002",
                f"a batch needs at least {format_size(needed)} (number {index}, {num_edges:,} edges), "
                f"{format_size(max(self._limit, 0))} are left of --memory",
                hint="Give more --memory, or use smaller batches or fanouts.",
            )

    def _sources(
        self, ring: np.ndarray, degree: np.ndarray, ptr: np.ndarray, hidden: _Hidden | None, key: tuple[int, int]
    ) -> np.ndarray:
        """(E,) global ids of the sources drawn for every node of a ring: those of node i at ptr[i] .. ptr[i + 1]."""
        positions = np.empty(ptr[-1], dtype=np.int64)
        kernels.draw_positions(self._indptr, ring, degree, ptr, np.uint64(derive(*self._key, *key)), positions)
        if hidden is not None:
            hidden.skip(ptr, positions)
        sources = np.empty(ptr[-1], dtype=self._indices.dtype)
        kernels.fetch_sources(self._indices, positions, sources)
        return sources

    def _degrees(self, nodes: np.ndarray) -> np.ndarray:
        out = np.empty(len(nodes), dtype=np.int32)
        largest = kernels.ring_degrees(self._indptr, nodes, out)
        if largest > _LIMIT:
            raise InputDataError("GS-IN-206", f"a node has {largest} in-edges; at most {_LIMIT} are supported")
        return out

    def _labels_of(self, batch: SeedBatch) -> np.ndarray | None:
        """Labels are for node tasks: a batch of pairs has its own."""
        if self._labels is None or batch.pairs is not None:
            return None
        return np.asarray(self._labels[batch.ids], dtype=np.int64)


def _offsets(counts: np.ndarray, index: int) -> np.ndarray:
    """(n + 1,) int64: where the edges of every node begin, when node i has counts[i]."""
    ptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=ptr[1:])
    if ptr[-1] > _LIMIT:
        raise ConfigError(
            "GS-CFG-201",
            f"batch {index} has {ptr[-1]} edges; at most {_LIMIT} are supported",
            hint="Use smaller batches or fanouts.",
        )
    return ptr


class _Numbering:
    """Local numbers of global ids in order of first appearance; memory follows the batch, not the graph.

    Args:
        ids: (B,) int64 distinct, numbered 0 .. B - 1.
        room: nodes expected in all; more make the table grow.
    """

    def __init__(self, ids: np.ndarray, room: int) -> None:
        self.count = len(ids)
        self.ids = np.ascontiguousarray(ids, dtype=np.int64)
        self._grow(max(room, 2 * self.count, 64))

    def number(self, sources: np.ndarray) -> np.ndarray:
        """(E,) int32 local numbers of `sources` (E,); new ones get the next numbers."""
        out = np.empty(len(sources), dtype=np.int32)
        edge = 0
        while True:
            edge, self.count = kernels.number_nodes(sources, edge, self._table, self._shift, self.ids, self.count, out)
            if edge == len(sources):
                return out
            self._grow(2 * self.count)

    def _grow(self, room: int) -> None:
        bits = (2 * room - 1).bit_length()
        ids = np.empty(1 << bits - 1, dtype=np.int64)
        ids[: self.count] = self.ids[: self.count]
        self.ids = ids
        self._shift = np.uint64(64 - bits)
        self._table = np.full(1 << bits, -1, dtype=np.int32)
        kernels.fill_table(ids, self.count, self._table, self._shift)


class _Hidden:
    """Edges into the seeds that must not be drawn: the batch's positive pairs, all their parallel copies.

    Only seeds can have hidden in-edges, because both ends of a pair are seeds; so only hop 1 asks.

    Attributes:
        counts: (B,) int32 hidden in-edges per seed.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, batch: SeedBatch) -> None:
        self.counts = np.zeros(len(batch.ids), dtype=np.int32)
        self._ptr = np.zeros(0, dtype=np.int64)
        if batch.exclude == "none" or batch.pairs is None or batch.pair_label is None:
            return
        edges = batch.pairs[batch.pair_label != 0]
        if batch.exclude == "self+reverse":
            edges = np.concatenate([edges, edges[:, ::-1]])
        into, sources = np.unique(np.stack([edges[:, 1], batch.ids[edges[:, 0]]]), axis=1)
        self._begin, self._end = np.empty((2, len(into)), dtype=np.int64)
        kernels.find_hidden(indptr, indices, batch.ids[into], sources, self._begin, self._end)
        self._ptr = np.searchsorted(into, np.arange(len(batch.ids) + 1))
        np.add.at(self.counts, into, (self._end - self._begin).astype(np.int32))

    def skip(self, ptr: np.ndarray, positions: np.ndarray) -> None:
        """Turn positions among the visible in-edges of the seeds into positions among all, in place."""
        if len(self._ptr):
            kernels.skip_hidden(ptr, self._ptr, self._begin, self._end, positions)
