"""The coding of one sampled batch: arrays to page-aligned sections and back (table in docs/formats.md, Pool).

    section     0        1       2        3       4        5       6      ...
    content     labels   pairs   ring 0   hop 1   ring 1   hop 2   ring 2

What a reader of the first h hops needs is the run of sections up to `ring(h)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xxhash

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.bits import count_ones, join_new, pack, packed_bytes, split_new, unpack
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import PAGE

LABELS, PAIRS = 0, 1


def ring(r: int) -> int:
    """Section number of ring r."""
    return 2 + 2 * r


def hop(h: int) -> int:
    """Section number of hop h, counted from 1."""
    return 1 + 2 * h


def num_sections(hops: int) -> int:
    return 2 * hops + 3


def section_name(section: int) -> str:
    """What a section is called in errors."""
    if section < 2:
        return ("labels", "pairs")[section]
    return f"ring {section // 2 - 1}" if section % 2 == 0 else f"hop {section // 2}"


@dataclass(frozen=True)
class Coding:
    """How many bits the numbers in the blobs of a pool have: equal for all its batches, so that sizes follow from
    counts."""

    fanouts: tuple[int, ...]
    id_bits: int
    degree_bits: int
    label_columns: int = 0
    """Of a matrix of F32 labels; 0 where they are I64 classes, or none."""

    @classmethod
    def of(cls, fanouts: Sequence[int], num_nodes: int, max_degree: int, label_columns: int = 0) -> Coding:
        """That of a graph with so many nodes and largest in-degree."""
        id_bits, degree_bits = max((num_nodes - 1).bit_length(), 1), max(max_degree.bit_length(), 1)
        return cls(tuple(fanouts), id_bits, degree_bits, label_columns)

    @property
    def label_bytes(self) -> int:
        """Of the labels of a seed."""
        return 4 * self.label_columns or 8

    @property
    def id_dtype(self) -> np.dtype:
        """Type of node ids on disk where they are not packed."""
        return np.dtype(np.int32 if self.id_bits <= 31 else np.int64)

    def count_bits(self, h: int) -> int:
        """Of the number of edges that a node has in hop h."""
        fanout = self.fanouts[h - 1]
        return self.degree_bits if fanout < 0 else fanout.bit_length()

    def parts_of_ring(self, size: Any) -> list[Any]:
        """Bytes of ids and degrees of a ring of so many nodes."""
        return [packed_bytes(size, self.id_bits), packed_bytes(size, self.degree_bits)]

    def parts_of_hop(self, h: int, num_dst: Any, num_edges: Any, num_new: Any, num_nodes: Any) -> list[Any]:
        """Bytes of counts, flags and sources of hop h: edges of `num_dst` nodes, `num_new` of which are the first to
        reach one of the `num_nodes` nodes within h hops."""
        counts, flags = packed_bytes(num_dst, self.count_bits(h)), packed_bytes(num_edges, 1)
        return [counts, flags, packed_bytes(num_edges - num_new, bit_length(num_nodes - 1))]


def bit_length(values: Any) -> Any:
    """Bits of non-negative integers below 2**53: a number, or an array of them."""
    return np.frexp(values)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolBatch:
    """One sampled batch as numpy arrays, whether it was just sampled or read from a Pool.

    Shapes: B seeds, n nodes within h hops, E edges, P pairs. All edges form one CSR by destination; the nodes are
    numbered seeds first, then ring by ring, so the block of every layer is a prefix view of it.
    """

    index: int
    """Number of the batch in its pool."""
    num_nodes: np.ndarray
    """(h + 1,) int64 cumulative: nodes within 0 .. h hops."""
    ids: np.ndarray
    """(n,) int64 global ids."""
    degree: np.ndarray
    """(n,) int32 in-degree in the whole graph, hidden edges not counted."""
    indptr: np.ndarray
    """(D + 1,) int32, D = num_nodes[h - 1] destinations (0 when h is 0)."""
    indices: np.ndarray
    """(E,) int32 local number of the source of every edge."""
    labels: np.ndarray | None = None
    """(B,) int64 classes of the seeds, -1 = unlabelled, or (B, T) float32, NaN = unlabelled."""
    pairs: np.ndarray | None = None
    """(P, 2) int64 positions in the seeds: source and destination."""
    pair_label: np.ndarray | None = None
    """(P,) float32."""
    t: np.ndarray | None = None
    """(P,) int64 event times."""
    bytes_read: int = 0
    """Bytes requested from the disk for it."""

    def copy(self) -> PoolBatch:
        """The same, sharing no array of nodes and edges."""
        arrays = {name: getattr(self, name).copy() for name in ("ids", "degree", "indptr", "indices")}
        return replace(self, **arrays)

    @property
    def hops(self) -> int:
        return len(self.num_nodes) - 1

    @property
    def seeds(self) -> np.ndarray:
        """(B,) int64 global ids of the seeds."""
        return self.ids[: self.num_nodes[0]]

    @property
    def num_edges(self) -> np.ndarray:
        """(h,) int64 edges of every hop, innermost first."""
        return np.diff(self.indptr[np.append(0, self.num_nodes[:-1])].astype(np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedBatch:
    """The blob of one batch and its row of the index. Shapes: L hops, S sections, N bytes."""

    data: np.ndarray
    """(N,) uint8 on a page, N a multiple of PAGE."""
    num_nodes: np.ndarray
    """(L + 1,) int64."""
    num_edges: np.ndarray
    """(L,) int64."""
    num_pairs: int
    offset: np.ndarray
    """(S,) int64 start of every section, from the start of the blob."""
    bytes: np.ndarray
    """(S,) int64 bytes used by it."""
    hash: np.ndarray
    """(S,) uint64."""


def section_hash(data: np.ndarray, index: int) -> int:
    """xxh3-64 of a section's bytes, seeded with the number of its batch."""
    return xxhash.xxh3_64_intdigest(data.data, seed=index)


def encode(batch: PoolBatch, coding: Coding, memory: Callable[[int], np.ndarray] = aligned_buffer) -> EncodedBatch:
    """The blob of a batch sampled with all fanouts of the coding.

    Args:
        memory: gives so many uint8 on a page for it.
    """
    num_edges, num_pairs = batch.num_edges, 0 if batch.pairs is None else len(batch.pairs)
    sizes = expected_bytes(batch.num_nodes[None], num_edges[None], np.array([num_pairs]), coding)[0]
    labels, pairs = _labels(batch, coding), _pairs(batch)
    sizes[LABELS], sizes[PAIRS] = len(labels), len(pairs)
    ends = np.cumsum(-(-sizes // PAGE) * PAGE)
    offset = np.append(0, ends[:-1])
    data = memory(int(ends[-1]))
    sections = [data[start : start + size] for start, size in zip(offset.tolist(), sizes.tolist(), strict=True)]
    sections[LABELS][:], sections[PAIRS][:] = labels, pairs
    for r in range(len(batch.num_nodes)):
        _encode_ring(batch, r, coding, sections[ring(r)])
    for h in range(1, len(batch.num_nodes)):
        _encode_hop(batch, h, coding, sections[hop(h)])
    for start, size, end in zip(offset.tolist(), sizes.tolist(), ends.tolist(), strict=True):
        data[start + size : end] = 0
    hashes = [section_hash(section, batch.index) for section in sections]
    return EncodedBatch(
        data=data,
        num_nodes=batch.num_nodes,
        num_edges=num_edges,
        num_pairs=num_pairs,
        offset=offset,
        bytes=sizes,
        hash=np.array(hashes, dtype=np.uint64),
    )


def _bytes(array: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """(n,) uint8: the values of `array` as little-endian `dtype`."""
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def _labels(batch: PoolBatch, coding: Coding) -> np.ndarray:
    return _bytes(np.empty(0) if batch.labels is None else batch.labels, "<f4" if coding.label_columns else "<i8")


def _pairs(batch: PoolBatch) -> np.ndarray:
    if batch.pairs is None or batch.pair_label is None:
        return np.empty(0, dtype=np.uint8)
    parts = [_bytes(batch.pairs, "<i4"), _bytes(batch.pair_label, "|u1")]
    if batch.t is not None:
        parts.append(_bytes(batch.t, "<i8"))
    return np.concatenate(parts)


def _bounds(num_nodes: np.ndarray, r: int) -> tuple[int, int]:
    """First and last + 1 node of ring r."""
    return (int(num_nodes[r - 1]) if r else 0), int(num_nodes[r])


def _encode_ring(batch: PoolBatch, r: int, coding: Coding, out: np.ndarray) -> None:
    start, stop = _bounds(batch.num_nodes, r)
    split = int(coding.parts_of_ring(stop - start)[0])
    pack(batch.ids[start:stop], coding.id_bits, out[:split])
    pack(batch.degree[start:stop], coding.degree_bits, out[split:])


def _encode_hop(batch: PoolBatch, h: int, coding: Coding, out: np.ndarray) -> None:
    """Counts; whether each edge is the first to reach its source; the sources of those that are not. What is new gets
    the next number, so the flag says it all."""
    start, stop = _bounds(batch.num_nodes, h - 1)
    end = int(batch.num_nodes[h])
    ptr = batch.indptr[start : stop + 1]
    sources = batch.indices[ptr[0] : ptr[-1]]
    sizes = coding.parts_of_hop(h, stop - start, len(sources), end - stop, end)
    counts, flags, old = np.split(out, np.cumsum(sizes)[:-1].tolist())
    pack(np.diff(ptr), coding.count_bits(h), counts)
    split_new(sources, stop, int(bit_length(end - 1)), flags, old)


def expected_bytes(num_nodes: np.ndarray, num_edges: np.ndarray, num_pairs: np.ndarray, coding: Coding) -> np.ndarray:
    """What sections must measure, given the counts of K batches.

    Args:
        num_nodes: (K, L + 1) int64, cumulative.
        num_edges: (K, L) int64.
        num_pairs: (K,) int64.

    Returns:
        (K, 2L + 3) int64; labels and pairs (9 bytes a pair) as when they are there and have no times.
    """
    rings = np.diff(num_nodes, axis=1, prepend=0)
    out = np.empty((len(num_nodes), num_sections(len(coding.fanouts))), dtype=np.int64)
    out[:, LABELS] = coding.label_bytes * rings[:, 0]
    out[:, PAIRS] = 9 * num_pairs
    out[:, ring(0) :: 2] = sum(coding.parts_of_ring(rings))
    for h in range(1, len(coding.fanouts) + 1):
        out[:, hop(h)] = sum(coding.parts_of_hop(h, rings[:, h - 1], num_edges[:, h - 1], rings[:, h], num_nodes[:, h]))
    return out


def ring_ids(section: np.ndarray, count: int, coding: Coding) -> np.ndarray:
    """(count,) int64 ids of a ring."""
    ids = np.empty(count, dtype=np.int64)
    unpack(section, coding.id_bits, ids)
    return ids


def decode(
    sections: Mapping[int, np.ndarray],
    *,
    index: int,
    num_nodes: np.ndarray,
    num_edges: np.ndarray,
    num_pairs: int,
    coding: Coding,
    bytes_read: int,
) -> PoolBatch:
    """The batch in `sections`: by section number the (used bytes,) uint8 of each, already verified.

    `num_nodes` (h + 1,) and `num_edges` (h,) say how many hops to decode. Nothing returned shares memory with
    the sections. Labels and pairs are None when their sections are empty or not given.

    Raises:
        CorruptStoreError: a hop does not add up to its edges, or an edge or a pair names a node that is not there.
    """
    indptr = np.zeros(int(num_nodes[-2]) + 1 if len(num_edges) else 1, dtype=np.int32)
    indices = np.empty(int(num_edges.sum()), dtype=np.int32)
    for h in range(1, len(num_nodes)):
        _decode_hop(sections[hop(h)], h, num_nodes, num_edges, coding, indptr, indices)
    ids = np.empty(int(num_nodes[-1]), dtype=np.int64)
    degree = np.empty(len(ids), dtype=np.int32)
    for r in range(len(num_nodes)):
        part, section = slice(*_bounds(num_nodes, r)), sections[ring(r)]
        unpack(section, coding.id_bits, ids[part])
        unpack(section[coding.parts_of_ring(len(ids[part]))[0] :], coding.degree_bits, degree[part])
    pairs, pair_label, t = _decode_pairs(sections.get(PAIRS), num_pairs, int(num_nodes[0]))
    return PoolBatch(
        index=index,
        num_nodes=num_nodes.copy(),
        ids=ids,
        degree=degree,
        indptr=indptr,
        indices=indices,
        labels=_decode_labels(sections.get(LABELS), coding),
        pairs=pairs,
        pair_label=pair_label,
        t=t,
        bytes_read=bytes_read,
    )


def _decode_labels(section: np.ndarray | None, coding: Coding) -> np.ndarray | None:
    if section is None or len(section) == 0:
        return None
    if coding.label_columns:
        return section.view("<f4").reshape(-1, coding.label_columns).copy()
    return section.view("<i8").copy()


def _decode_hop(
    section: np.ndarray,
    h: int,
    num_nodes: np.ndarray,
    num_edges: np.ndarray,
    coding: Coding,
    indptr: np.ndarray,
    indices: np.ndarray,
) -> None:
    """Continue `indptr` (D + 1,) int32 and `indices` (E,) int32 with hop h."""
    first, last = _bounds(num_nodes, h - 1)
    start, end = int(num_edges[: h - 1].sum()), int(num_edges[:h].sum())
    sizes = coding.parts_of_hop(h, last - first, end - start, int(num_nodes[h]) - last, int(num_nodes[h]))
    counts, flags, old = np.split(section, np.cumsum(sizes)[:-1].tolist())
    ends = np.empty(last - first, dtype=np.int64)
    unpack(counts, coding.count_bits(h), ends)
    np.cumsum(ends, out=ends)
    if (int(ends[-1]) if len(ends) else 0) != end - start:
        raise CorruptStoreError("GS-STORE-008", f"hop {h}: its counts do not add up to its {end - start} edges")
    np.add(ends, start, out=indptr[first + 1 : last + 1], casting="unsafe")
    sources = indices[start:end]
    if count_ones(flags, len(sources)) != num_nodes[h] - last:
        raise CorruptStoreError("GS-STORE-008", f"hop {h}: its edges do not lead to {num_nodes[h] - last} new nodes")
    if len(sources):
        join_new(flags, old if len(old) else flags, np.uint64(bit_length(int(num_nodes[h]) - 1)), last, sources)
        if sources.max() >= num_nodes[h]:
            raise CorruptStoreError("GS-STORE-008", f"hop {h}: an edge starts beyond the {num_nodes[h]} nodes there")


def _decode_pairs(
    section: np.ndarray | None, num_pairs: int, num_seeds: int
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """`pairs`, `pair_label` and `t` of a section with `num_pairs` among `num_seeds` seeds."""
    if section is None or len(section) == 0:
        return None, None, None
    pairs = section[: 8 * num_pairs].view("<i4").reshape(-1, 2).astype(np.int64)
    if ((pairs < 0) | (pairs >= num_seeds)).any():
        raise CorruptStoreError("GS-STORE-008", f"pairs: one of them is not among the {num_seeds} seeds")
    pair_label = section[8 * num_pairs : 9 * num_pairs].astype(np.float32)
    t = section[9 * num_pairs :].view("<i8").astype(np.int64)
    return pairs, pair_label, t if len(t) else None
