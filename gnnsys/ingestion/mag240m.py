"""`ogb:mag240m[:ROOT]`: the papers of MAG240M and which of them cite which, from the files of its download.

The download is `mag240m_kddcup2021/` with arrays under `processed/`, mapped and never loaded, and two small pickles.
Authors and institutions wait for typed graphs. The test labels are hidden, so `train` and `valid` are the splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.npy import map_npy
from gnnsys.ingestion.ogb_files import SPLIT_PICKLE, download_mag240m, require_files
from gnnsys.ingestion.pickles import Pickled, read_pickle
from gnnsys.ingestion.source import NOTHING_SKIPPED, Names, Rows
from gnnsys.ingestion.values import rows_of_array
from gnnsys.storage.checksums import digest_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

NAME = "mag240m"
_FOLDER = "mag240m_kddcup2021"
_FILES = {
    "meta": "meta.pt",
    "split": SPLIT_PICKLE,
    "features": "processed/paper/node_feat.npy",
    "labels": "processed/paper/node_label.npy",
    "edges": "processed/paper___cites___paper/edge_index.npy",
}
_SPLITS = ("train", "valid")
_HIDDEN = ("test-dev", "test-challenge")
"""Their labels are not in the download: they can be predicted, not scored."""


class Mag240mSource:
    """The papers of MAG240M; `x` in half precision, as it is there.

    Args:
        root: folder that holds `mag240m_kddcup2021/`.
    """

    weights: Rows | None = None
    names: Names | None = None
    skipped = NOTHING_SKIPPED
    sequential = False

    def __init__(self, root: Path) -> None:
        folder = root / _FOLDER
        download_mag240m(NAME, folder)
        self._files = require_files(folder, {role: folder / name for role, name in _FILES.items()})
        self.num_classes: int | None = None
        self.label_kind: str | None = None
        self.num_nodes: int | None = None
        self.num_edges = 0
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.splits: list[dict[str, np.ndarray]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {role: digest_file(file) for role, file in self._files.items()}

    def input_bytes(self) -> int:
        return sum(self._files[role].stat().st_size for role in ("meta", "split"))

    def prepare(self, job: Job) -> None:
        self._edge_index = map_npy(self._files["edges"])
        shape, dtype = self._edge_index.shape, self._edge_index.dtype
        if len(shape) != 2 or shape[0] != 2 or dtype.kind not in "iu":
            raise InputDataError("GS-IN-115", f"{self._files['edges']}: {dtype} {shape}, expected integers (2, E)")
        self.num_edges = shape[1]
        self.tables = {"x": rows_of_array(map_npy(self._files["features"]))}
        self.labels = rows_of_array(map_npy(self._files["labels"]))
        meta = read_pickle(job, self._files["meta"])
        self.num_nodes, self.num_classes = self._number(meta, "paper"), self._number(meta, "num_classes")
        pickled = read_pickle(job, self._files["split"])
        hidden = [name for name in _HIDDEN if name in pickled]
        self.splits = [{name: self._ids(pickled, name) for name in (*_SPLITS, *hidden)}]

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return self._edge_index[0, start:stop].astype(np.int64), self._edge_index[1, start:stop].astype(np.int64)

    def edge_place(self, number: int) -> str:
        return f"{self._files['edges']}: edge {number:,}"

    def _number(self, meta: Pickled, name: str) -> int:
        value = meta.get(name)
        if not isinstance(value, int):
            raise InputDataError("GS-IN-115", f"{self._files['meta']}: does not say {name!r}, there are {list(meta)}")
        return value

    def _ids(self, pickled: Pickled, name: str) -> np.ndarray:
        ids = pickled.get(name)
        if not isinstance(ids, np.ndarray):
            raise InputDataError(
                "GS-IN-115", f"{self._files['split']}: has no array {name!r}, there are {list(pickled)}"
            )
        return ids
