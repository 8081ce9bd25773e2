"""Store: open a graph on disk (topology, tables, labels, splits) and hand out verified read-only views of it.

    graph/indptr.bin  graph/indices.bin       in-edges by destination, sources ascending
    graph/weights.bin                         of the edges, in the order of indices, when they have any
    tables/<name>.bin                         rows, `x` holds the features
    labels/y.bin  splits/<name>.bin           classes or a matrix, see `storage.labels`; ids of each split
    names/bytes.bin  names/offsets.bin        ids in the source, when they were not 0 .. N-1
    added/                                    tables and splits that came later, see `storage.additions`

Opening reads only the manifests. Files are hashed against it the first time this object touches them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.storage.additions import Part, parts_of, read_additions
from gnnsys.storage.checksums import digest_file
from gnnsys.storage.files import map_array, open_read
from gnnsys.storage.labels import LabelKind, described, require_names
from gnnsys.storage.manifest import FileEntry, Manifest, dtype_name, numpy_dtype, read_manifest
from gnnsys.storage.tables import Table, Verify, open_table
from gnnsys.storage.writer import read_array

FORMAT = "gnnsys-store"
VERSION = 1

INDPTR, INDICES, LABELS = "graph/indptr.bin", "graph/indices.bin", "labels/y.bin"
WEIGHTS = "graph/weights.bin"
NAME_BYTES, NAME_OFFSETS = "names/bytes.bin", "names/offsets.bin"
PARTS = ("graph", "tables", "labels", "splits", "names")
"""Folders of a Store."""


def table_path(name: str) -> str:
    """Where the rows of table `name` lie inside a Store."""
    return f"tables/{name}.bin"


def split_path(name: str) -> str:
    """Where the node ids of split `name` lie inside a Store."""
    return f"splits/{name}.bin"


def id_dtype(num_nodes: int) -> np.dtype:
    """Type of node ids on disk: int32 below 2^31 nodes, else int64."""
    return np.dtype(np.int32 if num_nodes < 1 << 31 else np.int64)


@dataclass(frozen=True)
class Graph:
    """In-edges by destination: the sources of node v are `indices[indptr[v] : indptr[v + 1]]`, ascending."""

    indptr: np.ndarray
    """(N + 1,) int64."""
    indices: np.ndarray
    """(E,) int32 or int64."""

    @property
    def num_nodes(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.indices)


class Store:
    """A finished Store. Make one with `Store.open(path)` or `gnnsys.ingest`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._verified: set[str] = set()
        _check_shapes(path, manifest)
        self.parts: dict[str, Part] = {}
        added = read_additions(path, manifest.id, self.num_nodes, dtype_name(self.id_dtype))
        for part in (*added, *parts_of(path, manifest)):
            self.parts[part.entry.path] = part

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """The Store in folder `path`; only its manifest, and those of what was added to it, are read.

        Raises:
            InputDataError: no finished Store is there.
            CorruptStoreError: a manifest is damaged.
            VersionError: a newer gnnsys wrote it.
        """
        path = Path(path)
        return cls(path, read_manifest(path, FORMAT, VERSION))

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, nodes={self.num_nodes}, edges={self.num_edges}, tables={self.table_names})"

    @property
    def id(self) -> str:
        return self.manifest.id

    @cached_property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def num_nodes(self) -> int:
        return int(self.manifest.counts["nodes"])

    @property
    def num_edges(self) -> int:
        return int(self.manifest.counts["edges"])

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels and where they are a matrix."""
        return int(self.manifest.counts["classes"])

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What the classes are called, by number; None where they are numbers."""
        names = self.manifest.counts.get("class_names")
        return None if names is None else tuple(names)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Of the columns of `x`, where a text named them."""
        names = self.manifest.counts.get("feature_names")
        return None if names is None else tuple(names)

    @property
    def label_kind(self) -> LabelKind | None:
        """`class`, `multilabel` or `regression`, see `storage.labels`; None without labels."""
        return described(self.manifest.counts)[0] if self.manifest.has(LABELS) else None

    @property
    def num_outputs(self) -> int:
        """Numbers that a model of the labels gives per node: one per class, or per column; 0 without labels."""
        return self.num_classes or described(self.manifest.counts)[1]

    @property
    def max_degree(self) -> int:
        """Largest in-degree."""
        return int(self.manifest.counts["max_degree"])

    @property
    def id_dtype(self) -> np.dtype:
        """Type of node ids on disk."""
        return id_dtype(self.num_nodes)

    @property
    def split_names(self) -> list[str]:
        """Those of the ingest in their order, then those that were added."""
        own = list(self.manifest.counts["splits"])
        return [*own, *(name for name in self._named("split") if name not in own)]

    @property
    def table_names(self) -> list[str]:
        return self._named("table")

    def is_added(self, path: str) -> bool:
        """File `path` was added to the Store later: its id says nothing of it."""
        return self.parts[path].folder != self.path

    @cached_property
    def graph(self) -> Graph:
        """The topology, mapped; both files are hashed the first time.

        Raises:
            CorruptStoreError: they are not what the manifest says.
        """
        return Graph(self._map(INDPTR), self._map(INDICES))

    def edge_weights(self) -> np.ndarray | None:
        """(E,) float32 weight of every edge in the order of `graph.indices`, mapped; None when the Store has none.

        Sampling can draw by them (`weights=store.edge_weights()`); layers count every edge that was drawn once.
        """
        return self._map(WEIGHTS) if self.manifest.has(WEIGHTS) else None

    def labels(self) -> np.ndarray | None:
        """(N,) int64 class of every node, -1 = unlabelled, or an (N, T) float32 matrix, NaN = unlabelled; mapped. None
        when the Store has no labels."""
        return self._map(LABELS) if self.manifest.has(LABELS) else None

    def split(self, name: str) -> np.ndarray:
        """(n,) int64 node ids of split `name`, ascending.

        Raises:
            ConfigError: there is no such split.
        """
        if name not in self.split_names:
            have = ", ".join(self.split_names) or "none"
            hint = "Splits come with ingest (--split given, per-class:20/30, random:60/20/20) or gnnsys add."
            if f"{name}.0" in self.split_names:
                hint = f"There are several versions: choose one, as {name}.0, or keep one: ingest --split given:0."
            raise ConfigError("GS-CFG-020", f"{self.path}: no split named {name!r}; there are: {have}", hint=hint)
        part = self.parts[split_path(name)]
        return read_array(part.folder, part.entry).astype(np.int64)

    @property
    def has_names(self) -> bool:
        """The nodes have ids of the user's own beside their numbers."""
        return self.manifest.has(NAME_OFFSETS)

    def names(self, ids: np.ndarray | Sequence[int]) -> list[str]:
        """The user's own ids of nodes `ids` (n,), in that order; repeated ids are fine.

        Raises:
            ConfigError: the Store has no names: ids were numbers already.
            InputDataError: an id is outside [0, N).
            CorruptStoreError: the names are not what the manifest says; both files are hashed the first time.
        """
        if not self.has_names:
            raise ConfigError(
                "GS-CFG-022",
                f"{self.path}: the nodes have no names",
                hint="The source numbered them itself: node i is the source's node i.",
            )
        wanted = np.asarray(ids, dtype=np.int64).reshape(-1)
        for bad in wanted[(wanted < 0) | (wanted >= self.num_nodes)][:1]:
            raise InputDataError("GS-IN-024", f"{self.path}: node {bad} is outside [0, {self.num_nodes})")
        offsets, text = self._map(NAME_OFFSETS), self._map(NAME_BYTES)
        try:
            return [text[offsets[i] : offsets[i + 1]].tobytes().decode() for i in wanted]
        except UnicodeDecodeError as error:
            raise CorruptStoreError(
                "GS-STORE-001", f"{self.path / NAME_BYTES}: a name is not UTF-8 ({error})"
            ) from None

    def table(self, name: str = "x", backend: str = "mapped", verify: Verify = "first") -> Table:
        """The rows of table `name`, see `storage.tables.open_table`.

        Args:
            backend: `mapped`, `direct` (O_DIRECT) or `memory`.
            verify: when blocks are checked against their sums: `first`, `always` or `off`.

        Raises:
            ConfigError: there is no such table.
        """
        part = self.table_part(name)
        return open_table(part.folder, part.entry, part.artefact_id, backend, verify)

    def table_part(self, name: str) -> Part:
        """The file that holds table `name`.

        Raises:
            ConfigError: there is no such table.
        """
        if name not in self.table_names:
            have = ", ".join(self.table_names) or "none"
            raise ConfigError("GS-CFG-021", f"{self.path}: no table named {name!r}; there are: {have}")
        return self.parts[table_path(name)]

    def row_bytes(self, name: str = "x") -> int:
        entry = self.table_part(name).entry
        return entry.shape[1] * numpy_dtype(entry.dtype).itemsize

    def table_dtype(self, name: str = "x") -> str:
        """safetensors name of the type of a table's values: F32, F16, BF16, U8, ..."""
        return self.table_part(name).entry.dtype

    def table_columns(self, name: str = "x") -> int:
        return self.table_part(name).entry.shape[1]

    def verify(self, deep: bool = False) -> list[str]:
        """Problems found, one sentence each; empty when there are none. `deep` reads every byte again."""
        from gnnsys.storage.store_checks import problems

        return list(problems(self, deep))

    def _named(self, role: str) -> list[str]:
        """Names of the tables or splits, in the order of their paths."""
        return [Path(path).stem for path, part in sorted(self.parts.items()) if part.entry.role == role]

    def _map(self, path: str) -> np.ndarray:
        entry = self.manifest.entry(path)
        full = self.path / path
        array = map_array(full, numpy_dtype(entry.dtype), entry.shape)
        if path not in self._verified:
            check_digest(full, entry)
            self._verified.add(path)
        return array


def check_digest(path: Path, entry: FileEntry) -> None:
    """Hash a whole file and compare with the manifest.

    Raises:
        CorruptStoreError: missing, of another size, or changed.
    """
    os.close(open_read(path, num_bytes=entry.size))
    if digest_file(path) != entry.digest:
        raise CorruptStoreError(
            "GS-STORE-004",
            f"{path}: fails its checksum",
            hint="The file changed since it was written. Ingest again, or copy it from a good Store.",
        )


def _check_shapes(path: Path, manifest: Manifest) -> None:
    """The counts and the shapes of the files must tell one story before any of them sizes an array."""
    try:
        counts = {key: int(manifest.counts[key]) for key in ("nodes", "edges", "classes", "max_degree")}
        edges = (counts["edges"],)
        expected: dict[str, tuple[int, ...]] = {INDPTR: (counts["nodes"] + 1,), INDICES: edges, WEIGHTS: edges}
        expected |= {split_path(name): manifest.entry(split_path(name)).shape for name in manifest.counts["splits"]}
        ids = dtype_name(id_dtype(counts["nodes"]))
        columns = described(manifest.counts)[1]
        require_names(manifest.counts)
        dtypes = {INDPTR: "I64", INDICES: ids, WEIGHTS: "F32", LABELS: "F32" if columns else "I64"}
        dtypes |= {split_path(name): ids for name in manifest.counts["splits"]}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptStoreError("GS-STORE-001", f"{path}: the manifest lacks {error}") from error
    if manifest.has(NAME_OFFSETS):
        expected[NAME_OFFSETS] = (counts["nodes"] + 1,)
    if manifest.has(LABELS):
        expected[LABELS] = (counts["nodes"], columns) if columns else (counts["nodes"],)
    for entry in manifest.files:
        rows_differ = entry.role == "table" and (len(entry.shape) != 2 or entry.shape[0] != counts["nodes"])
        if rows_differ or entry.shape != expected.get(entry.path, entry.shape):
            raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path} has shape {entry.shape}, counts disagree")
        if entry.dtype != dtypes.get(entry.path, entry.dtype):
            raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path} has dtype {entry.dtype}")
    for required in (INDPTR, INDICES):
        if not manifest.has(required):
            raise CorruptStoreError("GS-STORE-001", f"{path}: the manifest lists no {required}")
