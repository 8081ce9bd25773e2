"""`ogb:NAME[:ROOT]`: node data sets of the Open Graph Benchmark from the files that its downloads hold.

ROOT is the folder that was given to ogb ("dataset" unless told); its sub-folder `ogbn_arxiv` and so on holds `raw/` and
`split/`. What ogb does when it reads them happens here too: the reverse of every edge right behind it where the data
set asks for that, NaN labels = unlabelled. A missing folder is downloaded by ogb's own functions.
"""

from __future__ import annotations

import contextlib
import difflib
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import ConfigError, InputDataError, MissingDependencyError
from gnnsys.ingestion.archive import Archive
from gnnsys.ingestion.arrays import rows_of_array
from gnnsys.ingestion.csv_rows import load_pandas, unpack_csv
from gnnsys.ingestion.source import Names, Rows
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_ROOT = "dataset"
_SPLITS = ("train", "valid", "test")
_ARCHIVES = {"graph": "data.npz", "labels": "node-label.npz"}
_GZIP = 8
"""Bytes of numbers in a byte of packed text, estimated high: ids take 8 bytes, packed 2 or 3."""


@dataclass(frozen=True)
class _Layout:
    """Where the files of a data set are, below its folder, and how ogb reads them."""

    split: str
    edges: str = "raw/edge.csv.gz"
    features: str = "raw/node-feat.csv.gz"
    labels: str = "raw/node-label.csv.gz"
    num_nodes: str = "raw/num-node-list.csv.gz"
    archive: bool = False
    """`raw/data.npz` and `raw/node-label.npz` in place of text."""
    inverse: bool = False
    """ogb puts the reverse of every edge behind it."""
    node_type: str = ""
    """The type of node that is read, where there are several."""


_MAG = _Layout(
    split="split/time/paper",
    edges="raw/relations/paper___cites___paper/edge.csv.gz",
    features="raw/node-feat/paper/node-feat.csv.gz",
    labels="raw/node-label/paper/node-label.csv.gz",
    num_nodes="raw/num-node-dict.csv.gz",
    node_type="paper",
)
_LAYOUTS = {
    "ogbn-arxiv": _Layout("split/time"),
    "ogbn-products": _Layout("split/sales_ranking", inverse=True),
    "ogbn-mag": _MAG,
    "ogbn-papers100M": _Layout("split/time", archive=True),
}


class OgbSource:
    """A node data set of OGB; of ogbn-mag the papers and which of them cite which.

    Args:
        name: as ogb writes it, `ogbn-arxiv`.
        root: folder of all data sets.
    """

    names: Names | None = None
    header_lines = 0
    num_classes: int | None = None

    def __init__(self, name: str, root: Path | None = None) -> None:
        if name not in _LAYOUTS:
            close = difflib.get_close_matches(name, _LAYOUTS, n=1)
            raise ConfigError(
                "GS-CFG-110",
                f"ogb data set {name!r} is not known" + (f"; did you mean {close[0]}?" if close else ""),
                hint=f"Known are {', '.join(_LAYOUTS)}.",
            )
        self._layout = _LAYOUTS[name]
        self._folder = (root or Path(_ROOT)) / name.replace("-", "_")
        if not self._folder.is_dir():
            _download(name, self._folder)
        self._files = self._expected()
        self._edges = np.empty((0, 2), dtype=np.int64)
        self.num_nodes: int | None = None
        self.num_edges = 0
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.splits: list[dict[str, np.ndarray]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {role: digest_file(file) for role, file in self._files.items()}

    def input_bytes(self) -> int:
        archives = [Archive(file) for file in self._files.values() if file.suffix == ".npz"]
        texts = [file for file in self._files.values() if file.suffix == ".gz"]
        return sum(a.unpacked_bytes(a.members) for a in archives) + sum(_GZIP * file.stat().st_size for file in texts)

    def prepare(self, job: Job) -> None:
        if self._layout.archive:
            features, labels = self._unpack_archives(job)
        else:
            features, labels = self._unpack_texts(job)
        if self._edges.ndim != 2 or self._edges.shape[1] != 2 or self._edges.dtype.kind not in "iu":
            raise InputDataError(
                "GS-IN-115",
                f"{self._folder}: edges are {self._edges.dtype} {self._edges.shape}, expected integers (E, 2)",
            )
        self.num_edges = len(self._edges) * (2 if self._layout.inverse else 1)
        self.tables = {"x": rows_of_array(features)}
        self.labels = rows_of_array(labels)
        self.splits = [{name: unpack_csv(job, self._files[name], np.int64)[:, 0] for name in _SPLITS}]

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if not self._layout.inverse:
            pairs = np.asarray(self._edges[start:stop]).astype(np.int64)
            return pairs[:, 0], pairs[:, 1]
        first = start // 2
        raw = np.asarray(self._edges[first : (stop + 1) // 2]).astype(np.int64)
        both = np.stack([raw, raw[:, ::-1]], axis=1).reshape(-1, 2)[start - 2 * first : stop - 2 * first]
        return both[:, 0], both[:, 1]

    def edge_place(self, number: int) -> str:
        place, what = (number // 2, " (or its reverse)") if self._layout.inverse else (number, "")
        return f"{self._files['graph' if self._layout.archive else 'edges']}: edge {place:,}{what}"

    def _expected(self) -> dict[str, Path]:
        """The files by what they hold, all there."""
        layout, folder = self._layout, self._folder
        if (pickled := folder / layout.split / "split_dict.pt").exists():
            raise InputDataError(
                "GS-IN-133",
                f"{pickled}: ogb would take the split from this pickle, which is not read",
                hint="Move it away to take the split from the text files beside it.",
            )
        if layout.archive:
            files = {role: folder / "raw" / name for role, name in _ARCHIVES.items()}
        else:
            roles = ("edges", "features", "labels", "num_nodes")
            files = {role: folder / getattr(layout, role) for role in roles}
        files |= {name: folder / layout.split / f"{name}.csv.gz" for name in _SPLITS}
        for file in files.values():
            if not file.is_file():
                raise InputDataError(
                    "GS-IN-100",
                    f"{file}: no such file",
                    hint=f"Is the download of {folder} complete? Move the folder away to have ogb download it again.",
                )
        return files

    def _unpack_texts(self, job: Job) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels; sets edges and the number of nodes."""
        self.num_nodes = self._read_num_nodes(job)
        self._edges = unpack_csv(job, self._files["edges"], np.int64)
        return unpack_csv(job, self._files["features"], np.float32), unpack_csv(job, self._files["labels"], np.float64)

    def _unpack_archives(self, job: Job) -> tuple[np.ndarray, np.ndarray]:
        graph, labels = Archive(self._files["graph"]), Archive(self._files["labels"])
        for archive, names in ((graph, ("edge_index", "num_nodes_list", "node_feat")), (labels, ("node_label",))):
            if missing := [name for name in names if name not in archive.members]:
                raise InputDataError("GS-IN-114", f"{archive.path}: has no {' and no '.join(missing)}")
        self._edges = graph.unpack(job, "edge_index").T
        self.num_nodes = self._one_graph(graph.unpack(job, "num_nodes_list").ravel(), graph.path)
        return graph.unpack(job, "node_feat"), labels.unpack(job, "node_label")

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


def _download(name: str, folder: Path) -> None:
    """Have ogb download and unpack the data set; it is moved to `folder` when all of it is there."""
    try:
        from ogb import nodeproppred
        from ogb.utils.url import decide_download, download_url, extract_zip
    except ImportError as error:
        raise MissingDependencyError(
            "GS-DEP-003",
            f"{folder}: no such folder, and ogb, which would download it, is not installed",
            hint='pip install "gnnsys[ogb]", or say where the data is: ogb:NAME:ROOT.',
        ) from error
    facts = load_pandas().read_csv(Path(nodeproppred.__file__).parent / "master.csv", index_col=0)[name]
    sys.stderr.write(f"{folder} is not there: ogb downloads {name} from {facts['url']}\n")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # results alone go to stdout
            if not decide_download(facts["url"]):
                raise ConfigError("GS-CFG-111", f"{folder}: no such folder, and the download was declined")
            extract_zip(download_url(facts["url"], str(partial)), str(partial))
        shutil.move(partial / facts["download_name"], folder)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputDataError(
            "GS-IN-134",
            f"{folder}: no such folder, and ogb could not download it ({error})",
            hint="Say where the data is: ogb:NAME:ROOT.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
