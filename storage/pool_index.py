"""The index of a Pool: one array per column, written at commit, and refused by readers unless its numbers agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.blob import LABELS, PAIRS, Coding, expected_bytes, num_sections, ring
from gnnsys.storage.files import PAGE
from gnnsys.storage.manifest import FileEntry, Manifest, dtype_name
from gnnsys.storage.writer import read_array, write_array

HASHES = "index/hash.bin"
_LIMIT = np.iinfo(np.int32).max
MEND = "Sample the pool again into an empty folder, or copy it from a good one."


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolIndex:
    """Where every section of every batch is. Shapes: K batches, L hops, S = 2L + 3 sections."""

    shard: np.ndarray
    """(K,) uint32 number of the shard."""
    num_nodes: np.ndarray
    """(K, L + 1) int64 cumulative: nodes within h hops."""
    num_edges: np.ndarray
    """(K, L) int64 edges of hop h."""
    num_pairs: np.ndarray
    """(K,) int64."""
    offset: np.ndarray
    """(K, S) int64 byte of the shard where the section starts."""
    bytes: np.ndarray
    """(K, S) int64 bytes used by it."""
    hash: np.ndarray
    """(K, S) uint64."""


def columns(num_batches: int, hops: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """dtype and shape of every column of an index, by name."""
    sections = num_sections(hops)
    return {
        "shard": (np.dtype(np.uint32), (num_batches,)),
        "num_nodes": (np.dtype(np.int64), (num_batches, hops + 1)),
        "num_edges": (np.dtype(np.int64), (num_batches, hops)),
        "num_pairs": (np.dtype(np.int64), (num_batches,)),
        "offset": (np.dtype(np.int64), (num_batches, sections)),
        "bytes": (np.dtype(np.int64), (num_batches, sections)),
        "hash": (np.dtype(np.uint64), (num_batches, sections)),
    }


def summary(index: PoolIndex, num_bytes: int, coding: Coding) -> dict[str, Any]:
    """`counts` of the manifest of a Pool whose shards hold `num_bytes`."""
    nodes, edges = index.num_nodes[:, -1], index.num_edges.sum(axis=1)
    return {
        "batches": len(nodes),
        "hops": index.num_edges.shape[1],
        "seeds": int(index.num_nodes[:, 0].sum()),
        "nodes": int(nodes.sum()),
        "edges": int(edges.sum()),
        "max_nodes": int(nodes.max()),
        "max_edges": int(edges.max()),
        "bytes": num_bytes,
        "id_bits": coding.id_bits,
        "degree_bits": coding.degree_bits,
        **({"label_columns": coding.label_columns} if coding.label_columns else {}),
    }


def write_index(folder: Path, index: PoolIndex) -> list[FileEntry]:
    """Write every column; returns their manifest entries."""
    return [write_array(folder, f"index/{f.name}.bin", getattr(index, f.name), "index") for f in fields(index)]


def read_index(folder: Path, manifest: Manifest, num_batches: int, hops: int) -> PoolIndex:
    """Read every column and verify its digest.

    Raises:
        CorruptStoreError: a column is absent, of another type or shape, or changed.
    """
    read = {}
    for name, (dtype, shape) in columns(num_batches, hops).items():
        path = f"index/{name}.bin"
        entry = manifest.entry(path) if manifest.has(path) else None
        if entry is None or entry.shape != shape or entry.dtype != dtype_name(dtype):
            raise CorruptStoreError("GS-STORE-007", f"{folder}: {path} is not {dtype} of shape {shape}", hint=MEND)
        read[name] = read_array(folder, entry)
    return PoolIndex(**read)


def check_index(folder: Path, index: PoolIndex, coding: Coding, shard_bytes: Sequence[int]) -> None:
    """Refuse an index whose numbers do not follow from each other.

    Raises:
        CorruptStoreError: a count is impossible, a section is not where and as long as the counts imply, or a blob
            does not lie inside its shard.
    """

    def require(column: str, good: np.ndarray) -> None:
        if not good.all():
            what = f"index/{column}.bin: impossible value for batch {int(np.argmin(good))}"
            raise CorruptStoreError("GS-STORE-007", f"{folder}: {what}", hint=MEND)

    rings = np.diff(index.num_nodes, axis=1, prepend=0)
    edges = index.num_edges
    require("num_nodes", (rings >= 0).all(axis=1) & (index.num_nodes[:, -1] <= _LIMIT) & (rings[:, 0] > 0))
    require("num_edges", ((edges >= 0) & (edges <= _LIMIT)).all(axis=1) & (edges.sum(axis=1) <= _LIMIT))
    require("num_pairs", (index.num_pairs >= 0) & (index.num_pairs <= _LIMIT))
    require("shard", _shards_follow(index.shard.astype(np.int64), len(shard_bytes)))
    require("num_nodes", np.asarray((rings[:, 1:] <= edges).all(axis=1)))
    require("bytes", _sizes_follow(index, coding))
    room = np.array(shard_bytes, dtype=np.int64)[index.shard]
    require("offset", (index.offset >= 0).all(axis=1) & (index.offset <= room[:, None]).all(axis=1))
    require("offset", _offsets_follow(index) & (index.offset[:, -1] <= room - index.bytes[:, -1]))


def _shards_follow(shard: np.ndarray, num_shards: int) -> np.ndarray:
    """(K,) bool: shards are 0, 1, ... in order and all of them are used."""
    good = np.isin(np.diff(shard, prepend=0), (0, 1))
    good[-1] &= shard[-1] == num_shards - 1
    return good


def _sizes_follow(index: PoolIndex, coding: Coding) -> np.ndarray:
    """(K,) bool: sections measure what the counts say; labels may be absent, pairs may have times."""
    expected = expected_bytes(index.num_nodes, index.num_edges, index.num_pairs, coding)
    labels, pairs = index.bytes[:, LABELS], index.bytes[:, PAIRS]
    rest = (index.bytes[:, ring(0) :] == expected[:, ring(0) :]).all(axis=1)
    labels_fit = (labels == 0) | (labels == expected[:, LABELS])
    pairs_fit = (pairs == expected[:, PAIRS]) | (pairs == expected[:, PAIRS] + 8 * index.num_pairs)
    return np.asarray(rest & labels_fit & pairs_fit)


def _offsets_follow(index: PoolIndex) -> np.ndarray:
    """(K,) bool: every section starts on the page after the one before; blobs fill their shards without gaps."""
    ends = index.offset + -(-index.bytes // PAGE) * PAGE
    inside = (index.offset[:, 1:] == ends[:, :-1]).all(axis=1)
    begins = np.append(0, ends[:-1, -1])
    begins[1:][np.diff(index.shard.astype(np.int64)) != 0] = 0
    return np.asarray(inside & (index.offset[:, 0] == begins))
