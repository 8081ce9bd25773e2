"""Graphs of other libraries become the Store that their arrays in a file become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.errors import ConfigError, InputDataError

pyg = pytest.importorskip("torch_geometric.data")


def contents(store: gs.Store) -> dict[str, str | None]:
    """Digest of every file that does not depend on the id of the Store."""
    return {f.path: f.digest for f in store.manifest.files if not f.path.endswith(".xxh")}


def test_a_data_becomes_what_its_arrays_in_a_file_become(tmp_path: Path, data_file: Callable[[str], Path]) -> None:
    file = data_file("static/yandex-tolokers/tolokers.npz")
    with np.load(file) as held:
        arrays = {name: torch.from_numpy(held[name]) for name in held.files}
    masks = {f"{name}_mask": arrays[f"{name}_masks"].T for name in ("train", "val", "test")}
    data = pyg.Data(x=arrays["node_features"], y=arrays["node_labels"], edge_index=arrays["edges"].T, **masks)
    made = gs.ingest(data, tmp_path / "data", undirected=True)
    from_file = gs.ingest(f"npz:{file}", tmp_path / "file", undirected=True)
    assert contents(made) == contents(from_file)
    assert made.split_names == from_file.split_names


def test_bfloat16_rows_become_float32_and_one_version_of_masks_is_the_splits(tmp_path: Path) -> None:
    x, mask = torch.randn(4, 3).bfloat16(), torch.tensor([True, False, True, False])
    data = pyg.Data(x=x, edge_index=torch.tensor([[0, 1], [1, 3]]), y=torch.arange(4), train_mask=mask)
    store = gs.ingest(data, tmp_path)
    assert np.array_equal(store.table().read(np.arange(4)), x.float().numpy())
    assert store.split("train").tolist() == [0, 2]


def test_a_sparse_matrix_is_edges_from_rows_to_columns(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    store = gs.ingest(sparse.csr_matrix(([1, 1], ([0, 2], [1, 1])), shape=(4, 4)), tmp_path)
    assert (store.num_nodes, store.graph.indices.tolist()) == (4, [0, 2])


def test_features_beside_a_matrix_are_answered_with_a_way(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ConfigError, match=r"(?s)GS-CFG-105.*gs\.ArraySource\(edge_index, x="):
        gs.ingest(sparse.eye_array(3), tmp_path / "store", features="x.npy")


def test_attributes_of_edges_are_not_dropped_in_silence(tmp_path: Path) -> None:
    data = pyg.Data(edge_index=torch.tensor([[0], [1]]), edge_attr=torch.ones(1, 2), num_nodes=2)
    with pytest.warns(RuntimeWarning, match="edge_attr is not kept") as warned:
        gs.ingest(data, tmp_path)
    assert warned[0].filename == __file__


class DGLGraph:
    """What is read of a graph of DGL, which not every machine has."""

    __module__ = "dgl.heterograph"
    is_homogeneous = True

    def __init__(self, **edata: torch.Tensor) -> None:
        self.ndata, self.edata = {"feat": torch.ones(3, 2)}, edata

    def edges(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([0, 1]), torch.tensor([1, 2])

    def num_nodes(self) -> int:
        return 3


def test_data_of_edges_of_dgl_is_not_dropped_in_silence(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"edata \(w, kind\) is not kept.*edge_weight") as warned:
        store = gs.ingest(DGLGraph(w=torch.ones(2), kind=torch.ones(2), _ID=torch.arange(2)), tmp_path / "a")
    assert warned[0].filename == __file__
    assert store.num_edges == 2
    gs.ingest(DGLGraph(_ID=torch.arange(2)), tmp_path / "b")  # without a warning, which would be an error here


def test_several_types_of_nodes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"(?s)GS-IN-151.*to_homogeneous"):
        gs.ingest(pyg.HeteroData(), tmp_path)


def test_what_is_no_graph_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-152: a builtins\.dict"):
        gs.ingest({}, tmp_path)
