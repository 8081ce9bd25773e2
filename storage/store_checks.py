"""Look for problems in a Store: files against the manifest, then what the numbers in them must satisfy.

Works in blocks of `_BLOCK` values, so that any graph is checked in a few MiB of memory, and one byte per node for the
splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.files import map_array, open_read
from gnnsys.storage.store import INDICES, INDPTR, LABELS, check_digest, split_path
from gnnsys.storage.writer import read_array

if TYPE_CHECKING:
    from gnnsys.storage.store import Store

_BLOCK = 1 << 19


def problems(store: Store, deep: bool) -> Iterator[str]:
    """Sentences about what is wrong with `store`; nothing when all is well.

    Shallow: every file has its size, `indptr` starts at 0 and ends at E, splits are intact, in range and disjoint,
    unless the Store was made to allow an overlap.
    Deep: also every byte, every edge and every label.
    """
    broken = list(_broken_files(store, deep))
    yield from broken
    if broken:
        return
    yield from _graph_problems(store, deep)
    yield from _split_problems(store)
    if deep and store.manifest.has(LABELS):
        yield from _label_problems(store)


def _broken_files(store: Store, deep: bool) -> Iterator[str]:
    for part in store.parts.values():
        entry, path = part.entry, part.path
        try:
            if deep or entry.role == "split":
                check_digest(path, entry)
            else:
                os.close(open_read(path, num_bytes=entry.size))
        except CorruptStoreError as error:
            yield error.message


def _graph_problems(store: Store, deep: bool) -> Iterator[str]:
    num_nodes, num_edges = store.num_nodes, store.num_edges
    indptr = map_array(store.path / INDPTR, "<i8", (num_nodes + 1,))
    if indptr[0] != 0 or indptr[-1] != num_edges:
        yield f"{store.path / INDPTR}: runs from {indptr[0]} to {indptr[-1]}, expected 0 to {num_edges}"
        return
    if not deep:
        return
    max_degree = 0
    for start in range(0, num_nodes, _BLOCK):
        degrees = np.diff(indptr[start : start + _BLOCK + 1])
        if degrees.min() < 0:
            yield f"{store.path / INDPTR}: decreases after node {start + int(np.argmax(degrees < 0))}"
            return
        max_degree = max(max_degree, int(degrees.max()))
    if max_degree != store.max_degree:
        yield f"{store.path / INDPTR}: the largest in-degree is {max_degree}, the manifest says {store.max_degree}"
    yield from _edge_problems(store.path, indptr, map_array(store.path / INDICES, store.id_dtype, (num_edges,)))


def _edge_problems(path: Path, indptr: np.ndarray, indices: np.ndarray) -> Iterator[str]:
    for start in range(0, len(indices), _BLOCK):
        # One value of the block before: an edge is compared with the one it follows.
        first = max(start - 1, 0)
        block = np.asarray(indices[first : start + _BLOCK])
        if block.min() < 0 or block.max() >= len(indptr) - 1:
            bad = first + int(np.argmax((block < 0) | (block >= len(indptr) - 1)))
            yield f"{path / INDICES}: edge {bad} comes from node {indices[bad]}, outside [0, {len(indptr) - 1})"
            return
        falls = first + 1 + np.flatnonzero(np.diff(block) < 0)
        starts = indptr[np.searchsorted(indptr, falls)] == falls
        if not starts.all():
            yield f"{path / INDICES}: sources are not ascending at edge {falls[np.argmin(starts)]}"
            return


def _split_problems(store: Store) -> Iterator[str]:
    # Versions of a split (train.0, train.1) overlap each other; train.0 and valid.0 must be disjoint. One that was
    # added may hold any nodes.
    added = {name for name in store.split_names if store.is_added(split_path(name))}
    version_of = {name: f"added {name}" if name in added else name.partition(".")[2] for name in store.split_names}
    seen, version = np.zeros(store.num_nodes, dtype=bool), ""
    for name in sorted(store.split_names, key=version_of.__getitem__):
        if version_of[name] != version:
            version = version_of[name]
            seen[:] = False
        part = store.parts[split_path(name)]
        path, ids = part.path, read_array(part.folder, part.entry)
        if len(ids) and (ids[0] < 0 or ids[-1] >= store.num_nodes or (ids[1:] <= ids[:-1]).any()):
            yield f"{path}: ids are not ascending within [0, {store.num_nodes})"
            continue
        if seen[ids].any() and not store.manifest.parameters.get("allow_overlap"):
            yield f"{path}: node {ids[np.argmax(seen[ids])]} is in another split too"
        seen[ids] = True


def _label_problems(store: Store) -> Iterator[str]:
    if store.label_kind != "class":
        yield from _matrix_problems(store)
        return
    labels = map_array(store.path / LABELS, "<i8", (store.num_nodes,))
    for start in range(0, len(labels), _BLOCK):
        block = labels[start : start + _BLOCK]
        if block.min() < -1 or block.max() >= store.num_classes:
            bad = start + int(np.argmax((block < -1) | (block >= store.num_classes)))
            yield f"{store.path / LABELS}: node {bad} has label {labels[bad]}, expected -1 .. {store.num_classes - 1}"
            return


def _matrix_problems(store: Store) -> Iterator[str]:
    columns = store.num_outputs
    labels = map_array(store.path / LABELS, "<f4", (store.num_nodes, columns))
    for start in range(0, len(labels), step := max(1, _BLOCK // columns)):
        block = labels[start : start + step]
        good = np.isin(block, (0, 1)) if store.label_kind == "multilabel" else np.isfinite(block)
        bad = np.argwhere(~good & ~np.isnan(block))
        if len(bad):
            row, column = bad[0]
            yield f"{store.path / LABELS}: node {start + row} has {store.label_kind} label {block[row, column]}"
            return
