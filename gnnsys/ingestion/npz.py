"""`npz:FILE`: graphs saved by numpy, in the two forms that benchmark collections use.

CSR     adj_data, adj_indices, adj_indptr, adj_shape   row i, column j is an edge i -> j
        attr_data, attr_indices, attr_indptr, attr_shape, or attr_matrix   features
        labels (N,) or (N, T)                          optional
        train_idx, val_idx, test_idx                   optional
edges   edges (E, 2)                                   edge from the first to the second column
        node_features (N, F), node_labels (N,) or (N, T)
        train_masks, val_masks, test_masks (K, N)      optional: K versions of the splits
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.archive import Archive
from gnnsys.ingestion.kernels import add_rows, rows_of
from gnnsys.ingestion.source import NOTHING_SKIPPED, Names, Rows
from gnnsys.ingestion.values import rows_of_array
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_CSR = ("adj_indices", "adj_indptr", "adj_shape")
_ATTR = ("attr_data", "attr_indices", "attr_indptr", "attr_shape")
_INDEXED = {"train": "train_idx", "valid": "val_idx", "test": "test_idx"}
_MASKED = {"train": "train_masks", "valid": "val_masks", "test": "test_masks"}
_EDGES = ("edges",)
_OPTIONAL = ("attr_matrix", "labels", "node_features", "node_labels", *_INDEXED.values(), *_MASKED.values())

_STEP = 1 << 16


class NpzSource:
    """A graph in a .npz archive."""

    weights: Rows | None = None
    names: Names | None = None
    skipped = NOTHING_SKIPPED
    num_classes: int | None = None
    label_kind: str | None = None
    sequential = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive = Archive(path)
        held = self._archive.members.keys()
        self._csr = all(name in held for name in _CSR)
        if not self._csr and "edges" not in held:
            raise InputDataError(
                "GS-IN-114",
                f"{path}: holds {', '.join(sorted(held)) or 'nothing'}; expected adj_indices, adj_indptr, adj_shape, "
                "or edges",
            )
        wanted = (*(_CSR if self._csr else _EDGES), *_OPTIONAL, *(_ATTR if all(n in held for n in _ATTR) else ()))
        self._wanted = [name for name in wanted if name in held]
        self._arrays: dict[str, np.ndarray] = {}
        self.num_nodes: int | None = None
        self.num_edges = 0
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.splits: list[dict[str, np.ndarray]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {"npz": digest_file(self._path)}

    def input_bytes(self) -> int:
        return self._archive.unpacked_bytes(self._wanted)

    def prepare(self, job: Job) -> None:
        for name in self._wanted:
            self._arrays[name] = self._archive.unpack(job, name)
        if self._csr:
            self._prepare_csr()
        else:
            self._prepare_edges()
        self._prepare_rows()
        self.splits = list(self._versions())

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if not self._csr:
            pairs = np.asarray(self._arrays["edges"][start:stop]).astype(np.int64)
            return pairs[:, 0], pairs[:, 1]
        indptr = self._arrays["adj_indptr"]
        first = int(np.searchsorted(indptr, start, side="right")) - 1
        last = int(np.searchsorted(indptr, stop, side="left"))
        src = np.empty(stop - start, dtype=np.int64)
        rows_of(np.array(indptr[first : last + 1], dtype=np.int64), first, start, src)
        return src, np.array(self._arrays["adj_indices"][start:stop], dtype=np.int64)

    def edge_place(self, number: int) -> str:
        return f"{self._path}: {'adj entry' if self._csr else 'edges row'} {number}"

    def _prepare_csr(self) -> None:
        rows, columns = self._checked_csr("adj")
        if rows != columns:
            raise InputDataError("GS-IN-115", f"{self._path}: adj_shape is ({rows}, {columns}), expected a square")
        self.num_nodes, self.num_edges = rows, len(self._arrays["adj_indices"])

    def _prepare_edges(self) -> None:
        edges = self._arrays["edges"]
        if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
            raise InputDataError(
                "GS-IN-115", f"{self._path}: edges is {edges.shape} {edges.dtype}, expected (E, 2) ids"
            )
        self.num_edges = len(edges)

    def _prepare_rows(self) -> None:
        arrays = self._arrays
        dense = arrays.get("attr_matrix", arrays.get("node_features"))
        if dense is not None:
            self._expect(dense.ndim == 2, "node_features", dense)
            self.tables = {"x": rows_of_array(dense)}
        elif "attr_indptr" in arrays:
            num_rows, columns = self._checked_csr("attr")
            self._expect(len(arrays["attr_data"]) == len(arrays["attr_indices"]), "attr_data", arrays["attr_data"])
            self.tables = {"x": Rows(num_rows, columns, np.dtype(np.float32), self._dense_rows)}
        labels = arrays.get("labels", arrays.get("node_labels"))
        if labels is not None:
            self._expect(labels.ndim in (1, 2) and labels.dtype.kind in "iufb", "labels", labels)
            self.labels = rows_of_array(labels)
        if self.num_nodes is None:
            known = [*self.tables.values(), *([self.labels] if self.labels else [])]
            self.num_nodes = known[0].num_rows if known else None

    def _dense_rows(self, start: int, stop: int) -> np.ndarray:
        indptr = np.array(self._arrays["attr_indptr"][start : stop + 1], dtype=np.int64)
        inside = slice(int(indptr[0]), int(indptr[-1]))
        columns = np.array(self._arrays["attr_indices"][inside], dtype=np.int64)
        values = np.array(self._arrays["attr_data"][inside], dtype=np.float32)
        out = np.zeros((stop - start, self.tables["x"].columns), dtype=np.float32)
        bad = add_rows(indptr, columns, values, out)
        if bad >= 0:
            raise InputDataError(
                "GS-IN-115", f"{self._path}: attr_indices[{inside.start + bad}] is {columns[bad]}, outside the columns"
            )
        return out

    def _versions(self) -> Iterator[dict[str, np.ndarray]]:
        arrays = self._arrays
        if any(name in arrays for name in _INDEXED.values()):
            yield {split: np.asarray(arrays[name]) for split, name in _INDEXED.items() if name in arrays}
            return
        masks = {split: np.atleast_2d(arrays[name]) for split, name in _MASKED.items() if name in arrays}
        for name, mask in masks.items():
            same = mask.dtype == np.bool_ and mask.shape == (len(next(iter(masks.values()))), self.num_nodes)
            self._expect(same, _MASKED[name], mask)
        for version in range(len(next(iter(masks.values()))) if masks else 0):
            yield {split: np.flatnonzero(mask[version]) for split, mask in masks.items()}

    def _checked_csr(self, prefix: str) -> tuple[int, int]:
        """(rows, columns) of a CSR matrix whose row pointers make sense; column ids are checked as they are read."""
        indptr, indices = self._arrays[f"{prefix}_indptr"], self._arrays[f"{prefix}_indices"]
        shape = self._arrays[f"{prefix}_shape"]
        self._expect(shape.shape == (2,) and shape.dtype.kind in "iu" and shape.min() >= 0, f"{prefix}_shape", shape)
        self._expect(indices.ndim == 1 and indices.dtype.kind in "iu", f"{prefix}_indices", indices)
        good = indptr.shape == (int(shape[0]) + 1,) and indptr.dtype.kind in "iu"
        self._expect(good and indptr[0] == 0 and indptr[-1] == len(indices), f"{prefix}_indptr", indptr)
        for start in range(0, len(indptr), _STEP):
            block = np.asarray(indptr[start : start + _STEP + 1])
            self._expect(bool((block[1:] >= block[:-1]).all()), f"{prefix}_indptr", indptr)
        return int(shape[0]), int(shape[1])

    def _expect(self, good: bool, name: str, array: np.ndarray) -> None:
        if not good:
            raise InputDataError(
                "GS-IN-115",
                f"{self._path}: {name} ({array.dtype}, shape {array.shape}) does not fit the other arrays",
            )
