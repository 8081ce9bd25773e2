"""`edges:FILE`: an edge list (.npy, or text as in the text module), with optional feature and label files."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion.node_text import NodeText, parse_node_text, scratch_ratio
from gnnsys.ingestion.npy import map_npy
from gnnsys.ingestion.sorting import MAX_NODES, refuse_sparse_ids
from gnnsys.ingestion.source import Names, Rows, require_file
from gnnsys.ingestion.text import EDGES, LABELS, is_integer, line_of_row, num_columns, text_rows
from gnnsys.ingestion.text_columns import Columns, parse_columns
from gnnsys.ingestion.text_weights import parse_weights
from gnnsys.ingestion.values import rows_of_array
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_STEP = 1 << 19
_FEW = 10
"""Edges of a graph in which a pair of nodes of its own is nothing to speak of."""


class EdgeListSource:
    """Edges from one file.

    Args:
        path: `.npy` (E, 2) or (2, E) integers ((2, 2) counts as the latter), else text, `.gz` or plain.
        features: `.npy` (N, F), N is then the number of nodes, or text with the id of a node and F numbers per row.
        labels: `.npy` (N,) or (N, T), or text with one integer per row, or with the id of a node and T numbers or the
            name of a class.
        weights: of the edges: `.npy` (E,), or in which column of the text they are, counted from 1.

    Rows with ids stand in any order: all nodes need features, those without a row have no label. Row i of features and
    labels without ids belongs to node i; when the ids are names, to the i-th name in order of first appearance.
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
        for file in filter(None, (path, features, labels)):
            require_file(file)
        if self._weight_file is not None:
            require_file(self._weight_file, "A column of the text is given by its number, from 1: --edge-weights 3.")
        if self._weight_column is not None and (self._weight_column < 3 or path.suffix == ".npy"):
            raise ConfigError(
                "GS-CFG-974",
                f"edge weights are to be in column {self._weight_column} of {path}",
                hint="Columns 1 and 2 of a text are source and destination, weights begin at 3; beside a .npy file of "
                "edges, weights are a .npy file too.",
            )
        self._pairs = np.empty((0, 2), dtype=np.int64)
        self.num_nodes: int | None = None
        self.num_edges = 0
        self._skipped = Counter[str]()
        self.skipped: Mapping[str, int] = self._skipped
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.weights: Rows | None = None
        self.names: Names | None = None

    def fingerprint(self) -> dict[str, Any]:
        files = {"edges": self._path, "features": self._features, "labels": self._labels}
        files |= {"weights": self._weight_file}
        column = {} if self._weight_column is None else {"weight_column": self._weight_column}
        return {role: digest_file(file) for role, file in files.items() if file is not None} | column

    def input_bytes(self) -> int:
        # Two 8-byte ids per row of edges, whose rows are rarely shorter than 8 bytes; .gz shrinks text four times.
        texts = [file for file in (self._path, self._features, self._labels) if file and file.suffix != ".npy"]
        ratios = [2.0 if file == self._path else scratch_ratio(file) for file in texts]
        sizes = [file.stat().st_size * (4 if file.suffix == ".gz" else 1) for file in texts]
        return int(sum(size * ratio for size, ratio in zip(sizes, ratios, strict=True)))

    def prepare(self, job: Job) -> None:
        self._skipped.clear()
        self._pairs = self._read_pairs(job)
        self.num_edges = len(self._pairs)
        self._read_node_rows(job)
        weights = self._read_weights(job)
        self.weights = None if weights is None else rows_of_array(weights)
        if self._path.suffix != ".npy":
            used = 2 if self._weight_column is None else 3
            self._skipped["ignored_columns"] = max(0, num_columns(self._path) - used)

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
            self._note(columns)
            if columns.names is not None:
                _warn_of_signs(self._path, columns.names, columns.doubtful)
            if columns.names is not None and not columns.header:
                _warn_of_header(self._path, columns.names, columns.values)
            if columns.names is None and columns.header:
                _warn_of_index(self._path, columns.values)
            return columns.values
        pairs = map_npy(self._path)
        if pairs.ndim != 2 or 2 not in pairs.shape or pairs.dtype.kind not in "iu":
            raise InputDataError(
                "GS-IN-104", f"{self._path}: {pairs.dtype} {pairs.shape}, expected integers (E, 2) or (2, E)"
            )
        return pairs.T if pairs.shape[0] == 2 else pairs

    def _note(self, columns: Columns) -> None:
        self._skipped["header_lines"] += columns.header
        self._skipped["comment_lines"] += columns.comments

    def _read_node_rows(self, job: Job) -> None:
        """Features and labels, which with the edges tell how many nodes there are."""
        features = None if self._features is None else self._read_features(job, self._features)
        labels = None if self._labels is None else self._read_labels(job, self._labels)
        self.num_nodes = self._count_nodes(features, labels)
        if features is not None:
            self.tables = {"x": _rows(features, self.num_nodes)}
        self.labels = None if labels is None else _rows(labels, self.num_nodes)

    def _read_features(self, job: Job, path: Path) -> np.ndarray | NodeText:
        if path.suffix != ".npy":
            return self._read_text(job, path, "features", np.float32)
        features = map_npy(path)
        if features.ndim != 2:
            raise InputDataError("GS-IN-123", f"{path}: shape {features.shape}, expected (N, F)")
        return features

    def _read_labels(self, job: Job, path: Path) -> np.ndarray | NodeText:
        if path.suffix != ".npy":
            if not _is_one_column(path):
                return self._read_text(job, path, "labels", np.float64)
            columns = parse_columns(job, path, LABELS)
            self._note(columns)
            return columns.values[:, 0]
        labels = map_npy(path)
        if labels.ndim not in (1, 2):
            raise InputDataError("GS-IN-132", f"{path}: shape {labels.shape}, expected labels (N,) or (N, T)")
        return labels

    def _read_text(self, job: Job, path: Path, role: str, dtype: type[np.generic]) -> NodeText:
        found = parse_node_text(job, path, role, self.names, dtype)
        if role == "features":
            found.require_all(found.num_nodes if self.names is None else len(self.names), self.names)
        self._skipped["header_lines"] += found.titles is not None
        return found

    def _read_weights(self, job: Job) -> np.ndarray | None:
        if self._weight_column is not None:
            return parse_weights(job, self._path, self._weight_column)
        return None if self._weight_file is None else map_npy(self._weight_file)

    def _count_nodes(self, features: np.ndarray | NodeText | None, labels: np.ndarray | NodeText | None) -> int | None:
        """None when only the edges tell."""
        if self.names is not None:
            return len(self.names)
        if features is None and isinstance(labels, NodeText):  # which need not have a row of every node
            largest = max(self._largest_id(), labels.num_nodes - 1)
            refuse_sparse_ids(largest, self.num_edges)
            return largest + 1
        told = labels if features is None else features
        return told.num_nodes if isinstance(told, NodeText) else None if told is None else len(told)

    def _largest_id(self) -> int:
        """-1 without edges. Ids that no node can have are not counted: whoever sorts edges refuses or drops them."""
        largest = -1
        for start in range(0, len(self._pairs), _STEP):
            pairs = self._pairs[start : start + _STEP]
            usable = pairs[(pairs >= 0) & (pairs < MAX_NODES)]
            largest = max(largest, int(usable.max()) if len(usable) else -1)
        return largest


def _warn_of_signs(path: Path, names: Names, doubtful: int) -> None:
    """Names may begin as comments do: what was taken for which."""
    text, offsets = names.mapped()
    begins = text[offsets[:-1]]
    signed = int(np.count_nonzero((begins == ord("#")) | (begins == ord("%"))))
    if signed or doubtful:
        warnings.warn(
            f"{path}: {signed} names begin with # or %, and {doubtful} lines above the first row that do so were taken "
            "for comments. Put a blank behind the sign of a comment, and a line of column names above such names",
            stacklevel=2,
        )


def _warn_of_index(path: Path, pairs: np.ndarray) -> None:
    """A first of three columns that counts rows is likely no source."""
    parts = ((start, pairs[start : start + _STEP, 0]) for start in range(0, len(pairs), _STEP))
    counts = all(np.array_equal(part, np.arange(start, start + len(part))) for start, part in parts)
    if len(pairs) > _FEW and counts and num_columns(path) > 2:
        warnings.warn(
            f"{path}: the first column counts the rows from 0. If that is an index and the edges stand behind it, "
            "leave it out: df.to_csv(.., index=False)",
            stacklevel=2,
        )


def _warn_of_header(path: Path, names: Names, pairs: np.ndarray) -> None:
    """The names of a first line that stand nowhere else are likely those of columns."""
    ends = sum(int((pairs[start : start + _STEP] < 2).sum()) for start in range(0, len(pairs), _STEP))
    if len(pairs) > _FEW and pairs[0].tolist() == [0, 1] and ends == 2:
        warnings.warn(
            f"{path}: the first row was read as an edge from {names[0]!r} to {names[1]!r}, which no other row has. If "
            "these are names of columns, begin the line with #",
            stacklevel=2,
        )


def _is_one_column(path: Path) -> bool:
    """Rows have one field, but for one with the names of columns."""
    first, second = ([fields for _, fields in islice(text_rows(path), 2)] + [[b""], [b""]])[:2]
    return len(first) == 1 or (len(second) == 1 and second != [b""] and not any(map(is_integer, first)))


def _rows(given: np.ndarray | NodeText, num_nodes: int | None) -> Rows:
    if isinstance(given, NodeText):
        assert num_nodes is not None
        return given.rows(num_nodes)
    return rows_of_array(given)
