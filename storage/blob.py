"""The coding of one sampled batch: arrays to page-aligned sections and back (table in docs/formats.md, Pool).

    section     0        1       2        3       4        5       6      ...
    content     labels   pairs   ring 0   hop 1   ring 1   hop 2   ring 2

What a reader of the first h hops needs is the run of sections up to `ring(h)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.files import PAGE, round_up

LABELS, PAIRS = 0, 1
NARROW_NODES = 1 << 16
"""Up to this many nodes the local number of a source fits in 16 bits."""


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


def count_bytes(fanout: int) -> int:
    """Bytes of one sampled count in a hop of `fanout`."""
    return 1 if 0 <= fanout <= 255 else 4


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
    """(B,) int64 labels of the seeds, -1 = unlabelled."""
    pairs: np.ndarray | None = None
    """(P, 2) int64 positions in the seeds: source and destination."""
    pair_label: np.ndarray | None = None
    """(P,) float32."""
    t: np.ndarray | None = None
    """(P,) int64 event times."""
    bytes_read: int = 0
    """Bytes requested from the disk for it."""

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
    """(N,) uint8, N a multiple of PAGE."""
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


def encode(batch: PoolBatch, fanouts: Sequence[int], id_dtype: np.dtype) -> EncodedBatch:
    """The blob of a batch sampled with all of `fanouts`."""
    sections = [_labels(batch), _pairs(batch), _ring(batch, 0, id_dtype)]
    for h, fanout in enumerate(fanouts, start=1):
        sections += [_hop(batch, h, fanout), _ring(batch, h, id_dtype)]
    sizes = np.array([len(s) for s in sections], dtype=np.int64)
    ends = np.cumsum(-(-sizes // PAGE) * PAGE)
    offset = np.append(0, ends[:-1])
    data = np.zeros(int(ends[-1]), dtype=np.uint8)
    for section, start in zip(sections, offset, strict=True):
        data[start : start + len(section)] = section
    return EncodedBatch(
        data=data,
        num_nodes=batch.num_nodes,
        num_edges=batch.num_edges,
        num_pairs=0 if batch.pairs is None else len(batch.pairs),
        offset=offset,
        bytes=sizes,
        hash=np.array([section_hash(s, batch.index) for s in sections], dtype=np.uint64),
    )


def _bytes(array: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """(n,) uint8: the values of `array` as little-endian `dtype`."""
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def _labels(batch: PoolBatch) -> np.ndarray:
    return _bytes(np.empty(0) if batch.labels is None else batch.labels, "<i8")


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


def _ring(batch: PoolBatch, r: int, id_dtype: np.dtype) -> np.ndarray:
    start, stop = _bounds(batch.num_nodes, r)
    ids = _bytes(batch.ids[start:stop], id_dtype.newbyteorder("<"))
    return np.concatenate([ids, _bytes(batch.degree[start:stop], "<i4")])


def _hop(batch: PoolBatch, h: int, fanout: int) -> np.ndarray:
    start, stop = _bounds(batch.num_nodes, h - 1)
    counts = _bytes(np.diff(batch.indptr[start : stop + 1]), f"<u{count_bytes(fanout)}")
    edges = batch.indices[batch.indptr[start] : batch.indptr[stop]]
    wide = 2 if batch.num_nodes[h] <= NARROW_NODES else 4
    return np.concatenate([counts, np.zeros(-len(counts) % 4, dtype=np.uint8), _bytes(edges, f"<u{wide}")])


def expected_bytes(
    num_nodes: np.ndarray, num_edges: np.ndarray, num_pairs: np.ndarray, fanouts: Sequence[int], id_bytes: int
) -> np.ndarray:
    """What sections must measure, given the counts of K batches.

    Args:
        num_nodes: (K, L + 1) int64, cumulative.
        num_edges: (K, L) int64.
        num_pairs: (K,) int64.

    Returns:
        (K, 2L + 3) int64; labels and pairs (9 bytes a pair) as when they are there and have no times.
    """
    rings = np.diff(num_nodes, axis=1, prepend=0)
    out = np.empty((len(num_nodes), num_sections(len(fanouts))), dtype=np.int64)
    out[:, LABELS] = 8 * rings[:, 0]
    out[:, PAIRS] = 9 * num_pairs
    out[:, ring(0) :: 2] = rings * (id_bytes + 4)
    for h, fanout in enumerate(fanouts, start=1):
        counts = -(-rings[:, h - 1] * count_bytes(fanout) // 4) * 4
        wide = np.where(num_nodes[:, h] <= NARROW_NODES, 2, 4)
        out[:, hop(h)] = counts + num_edges[:, h - 1] * wide
    return out


def ring_ids(section: np.ndarray, count: int, id_dtype: np.dtype) -> np.ndarray:
    """(count,) int64 ids of a ring."""
    return section[: count * id_dtype.itemsize].view(id_dtype).astype(np.int64)


def decode(
    sections: Mapping[int, np.ndarray],
    *,
    index: int,
    num_nodes: np.ndarray,
    num_edges: np.ndarray,
    num_pairs: int,
    fanouts: Sequence[int],
    id_dtype: np.dtype,
    bytes_read: int,
) -> PoolBatch:
    """The batch in `sections`: by section number the (used bytes,) uint8 of each, already verified.

    `num_nodes` (h + 1,) and `num_edges` (h,) say how many hops to decode. Nothing returned shares memory with
    the sections. Labels and pairs are None when their sections are empty or not given.

    Raises:
        CorruptStoreError: a hop does not add up to its edges, or an edge or a pair names a node that is not there.
    """
    rings = np.diff(num_nodes, prepend=0)
    blocks = [sections[ring(r)] for r in range(len(num_nodes))]
    indptr = np.zeros(int(num_nodes[-2]) + 1 if len(num_edges) else 1, dtype=np.int32)
    indices = np.empty(int(num_edges.sum()), dtype=np.int32)
    for h in range(1, len(num_nodes)):
        _decode_hop(sections[hop(h)], h, num_nodes, num_edges, fanouts[h - 1], indptr, indices)
    pairs, pair_label, t = _decode_pairs(sections.get(PAIRS), num_pairs, int(num_nodes[0]))
    labels = sections.get(LABELS)
    return PoolBatch(
        index=index,
        num_nodes=num_nodes.copy(),
        ids=np.concatenate([ring_ids(b, n, id_dtype) for b, n in zip(blocks, rings, strict=True)]),
        degree=np.concatenate([b[n * id_dtype.itemsize :].view("<i4") for b, n in zip(blocks, rings, strict=True)]),
        indptr=indptr,
        indices=indices,
        labels=labels.view("<i8").copy() if labels is not None and len(labels) else None,
        pairs=pairs,
        pair_label=pair_label,
        t=t,
        bytes_read=bytes_read,
    )


def _decode_hop(
    section: np.ndarray,
    h: int,
    num_nodes: np.ndarray,
    num_edges: np.ndarray,
    fanout: int,
    indptr: np.ndarray,
    indices: np.ndarray,
) -> None:
    """Continue `indptr` (D + 1,) int32 and `indices` (E,) int32 with hop h."""
    first, last = _bounds(num_nodes, h - 1)
    start = int(num_edges[: h - 1].sum())
    stop = start + int(num_edges[h - 1])
    width = count_bytes(fanout)
    sums = np.cumsum(section[: (last - first) * width].view(f"<u{width}"), dtype=np.int64)
    sources = section[round_up((last - first) * width, 4) :].view("<u2" if num_nodes[h] <= NARROW_NODES else "<u4")
    if (sums[-1] if len(sums) else 0) != stop - start:
        raise CorruptStoreError("GS-STORE-008", f"hop {h}: its counts do not add up to its {stop - start} edges")
    if len(sources) and sources.max() >= num_nodes[h]:
        raise CorruptStoreError("GS-STORE-008", f"hop {h}: an edge starts at a node beyond the {num_nodes[h]} there")
    np.add(sums, start, out=indptr[first + 1 : last + 1], casting="unsafe")
    indices[start:stop] = sources


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
