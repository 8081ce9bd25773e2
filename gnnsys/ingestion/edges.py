"""`edges:FILE`: an edge list (.npy, or text as in the text module), with optional feature and label files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.npy import map_npy
from gnnsys.ingestion.source import Names, Rows, require_file
from gnnsys.ingestion.text import EDGES, LABELS, line_of_row, parse_columns
from gnnsys.ingestion.values import rows_of_array
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job


class EdgeListSource:
    """Edges from one file.

    Args:
        path: `.npy` (E, 2) or (2, E) integers ((2, 2) counts as the latter), else text, `.gz` or plain.
        features: `.npy` (N, F); N is then the number of nodes.
        labels: `.npy` (N,) or (N, T), or text with one integer per row.

    Row i of both belongs to node i; when the ids are names, to the i-th name in order of first appearance.
    """

    num_classes: int | None = None
    weights: Rows | None = None
    label_kind: str | None = None
    sequential = False
    splits: list[dict[str, np.ndarray]] = []  # noqa: RUF012 - an edge list has none

    def __init__(self, path: Path, features: Path | None = None, labels: Path | None = None) -> None:
        self._path, self._features, self._labels = path, features, labels
        for file in filter(None, (path, features, labels)):
            require_file(file)
        self._pairs = np.empty((0, 2), dtype=np.int64)
        self.num_nodes: int | None = None
        self.num_edges = self.header_lines = 0
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.names: Names | None = None

    def fingerprint(self) -> dict[str, Any]:
        files = {"edges": self._path, "features": self._features, "labels": self._labels}
        return {role: digest_file(file) for role, file in files.items() if file is not None}

    def input_bytes(self) -> int:
        # Two 8-byte ids per row of text, whose rows are rarely shorter than 8 bytes; .gz shrinks ids four times.
        factors = {".npy": 0, ".gz": 8}
        files = filter(None, (self._path, self._labels))
        return sum(file.stat().st_size * factors.get(file.suffix, 2) for file in files)

    def prepare(self, job: Job) -> None:
        self.header_lines = 0
        if self._features is not None:
            features = map_npy(self._features)
            if features.ndim != 2:
                raise InputDataError("GS-IN-123", f"{self._features}: shape {features.shape}, expected (N, F)")
            self.tables = {"x": rows_of_array(features)}
        if self._labels is not None:
            self.labels = rows_of_array(self._read_labels(job, self._labels))
        self._pairs = self._read_pairs(job)
        self.num_edges = len(self._pairs)
        self.num_nodes = self._count_nodes()

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = self._pairs[start:stop]
        return np.array(pairs[:, 0], dtype=np.int64), np.array(pairs[:, 1], dtype=np.int64)

    def edge_place(self, number: int) -> str:
        if self._path.suffix == ".npy":
            return f"{self._path} edge {number:,}"
        return f"{self._path} row {line_of_row(self._path, number):,}"

    def _read_pairs(self, job: Job) -> np.ndarray:
        if self._path.suffix != ".npy":
            columns = parse_columns(job, self._path, EDGES)
            self.names = columns.names
            self.header_lines += columns.header
            return columns.values
        pairs = map_npy(self._path)
        if pairs.ndim != 2 or 2 not in pairs.shape or pairs.dtype.kind not in "iu":
            raise InputDataError(
                "GS-IN-104", f"{self._path}: {pairs.dtype} {pairs.shape}, expected integers (E, 2) or (2, E)"
            )
        return pairs.T if pairs.shape[0] == 2 else pairs

    def _read_labels(self, job: Job, path: Path) -> np.ndarray:
        if path.suffix != ".npy":
            columns = parse_columns(job, path, LABELS)
            self.header_lines += columns.header
            return columns.values[:, 0]
        labels = map_npy(path)
        if labels.ndim not in (1, 2):
            raise InputDataError("GS-IN-132", f"{path}: shape {labels.shape}, expected labels (N,) or (N, T)")
        return labels

    def _count_nodes(self) -> int | None:
        if self.names is not None:
            return self.names.offsets_path.stat().st_size // 8 - 1
        rows = [*self.tables.values(), *([self.labels] if self.labels is not None else [])]
        return rows[0].num_rows if rows else None
