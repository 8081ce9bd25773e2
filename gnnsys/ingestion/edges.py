"""`edges:FILE`: an edge list (.npy, or text as in the text module), with optional feature and label files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion.npy import map_npy
from gnnsys.ingestion.source import Names, Rows, require_file
from gnnsys.ingestion.text import EDGES, LABELS, line_of_row, num_columns, parse_columns
from gnnsys.ingestion.text_labels import parse_labels_by_name
from gnnsys.ingestion.text_weights import parse_weights
from gnnsys.ingestion.values import rows_of_array
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job


class EdgeListSource:
    """Edges from one file.

    Args:
        path: `.npy` (E, 2) or (2, E) integers ((2, 2) counts as the latter), else text, `.gz` or plain.
        features: `.npy` (N, F); N is then the number of nodes.
        labels: `.npy` (N,) or (N, T), or text with one integer per row, or, where ids are names, with a name and an
            integer per row in any order.
        weights: of the edges: `.npy` (E,), or in which column of the text they are, counted from 1.

    Row i of features and labels without names belongs to node i; when the ids are names, to the i-th name in order of
    first appearance.
    """

    num_classes: int | None = None
    label_kind: str | None = None
    sequential = False
    splits: list[dict[str, np.ndarray]] = []  # noqa: RUF012 - an edge list has none

    def __init__(
        self,
        path: Path,
        features: Path | None = None,
        labels: Path | None = None,
        weights: Path | int | None = None,
    ) -> None:
        self._path, self._features, self._labels = path, features, labels
        self._weight_file = weights if isinstance(weights, Path) else None
        self._weight_column = weights if isinstance(weights, int) else None
        for file in filter(None, (path, features, labels, self._weight_file)):
            require_file(file)
        if self._weight_column is not None and (self._weight_column < 3 or path.suffix == ".npy"):
            raise ConfigError(
                "GS-CFG-974",
                f"edge weights are to be in column {self._weight_column} of {path}",
                hint="Columns 1 and 2 of a text are source and destination, weights begin at 3; beside a .npy file of "
                "edges, weights are a .npy file too.",
            )
        self._pairs = np.empty((0, 2), dtype=np.int64)
        self.num_nodes: int | None = None
        self.num_edges = self.header_lines = 0
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.weights: Rows | None = None
        self.names: Names | None = None
        self.ignored_columns = 0

    def fingerprint(self) -> dict[str, Any]:
        files = {"edges": self._path, "features": self._features, "labels": self._labels}
        files |= {"weights": self._weight_file}
        column = {} if self._weight_column is None else {"weight_column": self._weight_column}
        return {role: digest_file(file) for role, file in files.items() if file is not None} | column

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
        self._pairs = self._read_pairs(job)
        if self._labels is not None:
            self.labels = rows_of_array(self._read_labels(job, self._labels))
        self.num_edges = len(self._pairs)
        self.num_nodes = self._count_nodes()
        weights = self._read_weights(job)
        self.weights = None if weights is None else rows_of_array(weights)
        if self._path.suffix != ".npy":
            used = 2 if self._weight_column is None else 3
            self.ignored_columns = max(0, num_columns(self._path) - used)

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
            if self.names is not None and num_columns(path) > 1:
                return parse_labels_by_name(job, path, self.names)
            columns = parse_columns(job, path, LABELS)
            self.header_lines += columns.header
            return columns.values[:, 0]
        labels = map_npy(path)
        if labels.ndim not in (1, 2):
            raise InputDataError("GS-IN-132", f"{path}: shape {labels.shape}, expected labels (N,) or (N, T)")
        return labels

    def _read_weights(self, job: Job) -> np.ndarray | None:
        if self._weight_column is not None:
            return parse_weights(job, self._path, self._weight_column)
        return None if self._weight_file is None else map_npy(self._weight_file)

    def _count_nodes(self) -> int | None:
        if self.names is not None:
            return self.names.offsets_path.stat().st_size // 8 - 1
        rows = [*self.tables.values(), *([self.labels] if self.labels is not None else [])]
        return rows[0].num_rows if rows else None
