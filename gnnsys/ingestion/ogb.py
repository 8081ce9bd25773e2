"""`ogb:NAME[:ROOT]`: node data sets of the Open Graph Benchmark from the files that its downloads hold.

ROOT is the folder that was given to ogb ("dataset" unless told); its sub-folder `ogbn_arxiv` and so on holds `raw/` and
`split/`. What ogb does when it reads them happens here too: the reverse of every edge right behind it where the data
set asks for that, NaN labels = unlabelled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.archive import Archive
from gnnsys.ingestion.csv_rows import load_pandas, unpack_csv
from gnnsys.ingestion.edge_means import edge_means
from gnnsys.ingestion.ogb_files import LAYOUTS, SPLITS, download_node_set, incomplete, node_files, num_edges_file
from gnnsys.ingestion.pickles import read_pickle
from gnnsys.ingestion.source import NOTHING_SKIPPED, Names, Rows
from gnnsys.ingestion.values import rows_of_array
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_GZIP = 8
"""Bytes of numbers in a byte of packed text, estimated high: ids take 8 bytes, packed 2 or 3."""

RawEdges = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


class OgbSource:
    """A node data set of OGB; of ogbn-mag the papers and which of them cite which.

    ogbn-proteins has features of edges only: `x` is their mean over the edges that reach a node, as OGB's own baselines
    take it.

    Args:
        name: as ogb writes it, `ogbn-arxiv`; one of `LAYOUTS`.
        root: folder of all data sets.
    """

    weights: Rows | None = None
    names: Names | None = None
    skipped = NOTHING_SKIPPED
    num_classes: int | None = None

    def __init__(self, name: str, root: Path) -> None:
        self._layout = LAYOUTS[name]
        self.label_kind: str | None = "multilabel" if self._layout.multilabel else "class"
        self._folder = root / name.replace("-", "_")
        download_node_set(name, self._folder)
        self._files = node_files(self._layout, self._folder)
        if self._layout.left_out:
            warnings.warn(
                f"GS-IN-137: of {name} a Store has the papers and which of them cite which; left out are "
                f"{self._layout.left_out}",
                RuntimeWarning,
                stacklevel=5,  # the caller of `ingest`
            )
        self.sequential = self._layout.archive
        self._raw: RawEdges
        self.num_nodes: int | None = None
        self.num_edges = 0
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.splits: list[dict[str, np.ndarray]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {role: digest_file(file) for role, file in self._files.items()}

    def input_bytes(self) -> int:
        """Archives are streamed: nothing of them is unpacked but a few counts."""
        return sum(_GZIP * file.stat().st_size for file in self._files.values() if file.suffix == ".gz")

    def prepare(self, job: Job) -> None:
        num_raw = self._open_archives(job) if self._layout.archive else self._unpack_texts(job)
        self.num_edges = num_raw * (2 if self._layout.inverse else 1)
        self.splits = [self._read_split(job)]

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if not self._layout.inverse:
            return self._raw(start, stop)
        first = start // 2
        raw = np.stack(self._raw(first, (stop + 1) // 2), axis=1)
        both = np.stack([raw, raw[:, ::-1]], axis=1).reshape(-1, 2)[start - 2 * first : stop - 2 * first]
        return both[:, 0], both[:, 1]

    def edge_place(self, number: int) -> str:
        place, what = (number // 2, " (or its reverse)") if self._layout.inverse else (number, "")
        return f"{self._files['graph' if self._layout.archive else 'edges']}: edge {place:,}{what}"

    def _unpack_texts(self, job: Job) -> int:
        """Everything but the split; returns the edges in the file."""
        self.num_nodes = self._read_num_nodes(job)
        pairs = unpack_csv(job, self._files["edges"], np.int64)
        self._check_edges(pairs.shape, pairs.dtype, (len(pairs), 2))
        if said := num_edges_file(self._files["edges"]):
            self._check_count(len(pairs), unpack_csv(job, said, np.int64), said.name)
        self._raw = lambda start, stop: (np.array(pairs[start:stop, 0]), np.array(pairs[start:stop, 1]))
        self.labels = rows_of_array(unpack_csv(job, self._files["labels"], np.float64))
        if "features" in self._files:
            self.tables = {"x": rows_of_array(unpack_csv(job, self._files["features"], np.float32))}
        else:
            values = unpack_csv(job, self._files["edge_features"], np.float32)
            self.tables = {"x": edge_means(job, pairs, values, self.num_nodes, str(self._files["edge_features"]))}
        return len(pairs)

    def _open_archives(self, job: Job) -> int:
        """Everything but the split; returns the edges in the archive."""
        graph, labels = Archive(self._files["graph"]), Archive(self._files["labels"])
        for archive, names in ((graph, ("edge_index", "num_nodes_list", "node_feat")), (labels, ("node_label",))):
            if missing := [name for name in names if name not in archive.members]:
                raise InputDataError("GS-IN-114", f"{archive.path}: has no {' and no '.join(missing)}")
        self.num_nodes = self._one_graph(graph.unpack(job, "num_nodes_list").ravel(), graph.path)
        self.tables = {"x": graph.stream("node_feat").rows()}
        self.labels = labels.stream("node_label").rows()
        # (2, E) one row after the other: each is read by a stream of its own
        src, dst = graph.stream("edge_index"), graph.stream("edge_index")
        shape, count = src.header.shape, src.header.shape[-1] if src.header.shape else 0
        self._check_edges(shape if not src.header.fortran else shape[::-1], src.header.dtype, (2, count))
        if "num_edges_list" in graph.members:
            self._check_count(count, graph.unpack(job, "num_edges_list"), "num_edges_list")
        self._raw = lambda start, stop: (
            src.read(start, stop).astype(np.int64, copy=False),
            dst.read(count + start, count + stop).astype(np.int64, copy=False),
        )
        return count

    def _check_edges(self, shape: tuple[int, ...], dtype: np.dtype, expected: tuple[int, int]) -> None:
        if shape != expected or dtype.kind not in "iu":
            raise InputDataError(
                "GS-IN-115", f"{self._folder}: edges are {dtype} {shape}, expected integers {expected}"
            )

    def _check_count(self, found: int, said: np.ndarray, where: str) -> None:
        expected = int(said.sum())
        if found != expected:
            raise InputDataError(
                "GS-IN-136",
                f"{self._folder}: {found:,} edges, {where} says {expected:,}",
                hint=incomplete(self._folder),
            )

    def _read_split(self, job: Job) -> dict[str, np.ndarray]:
        if "split" not in self._files:
            return {name: unpack_csv(job, self._files[name], np.int64)[:, 0] for name in SPLITS}
        pickled = read_pickle(job, self._files["split"])
        suffix = f"/{self._layout.node_type}" if self._layout.node_type else ""
        found = {name: pickled.get(name + suffix) for name in SPLITS}
        if missing := [name for name, ids in found.items() if not isinstance(ids, np.ndarray)]:
            raise InputDataError(
                "GS-IN-115", f"{self._files['split']}: has no array {missing[0] + suffix!r}, there are {list(pickled)}"
            )
        return {name: np.asarray(ids) for name, ids in found.items()}

    def _read_num_nodes(self, job: Job) -> int:
        file = self._files["num_nodes"]
        if not self._layout.node_type:
            return self._one_graph(unpack_csv(job, file, np.int64).ravel(), file)
        try:
            return int(load_pandas().read_csv(file)[self._layout.node_type].iloc[0])
        except (KeyError, IndexError, ValueError, EOFError, OSError) as error:
            raise InputDataError("GS-IN-115", f"{file}: does not say how many papers there are ({error})") from None

    @staticmethod
    def _one_graph(counts: np.ndarray, file: Path) -> int:
        if len(counts) != 1:
            raise InputDataError("GS-IN-115", f"{file}: {len(counts)} graphs, expected one")
        return int(counts[0])
