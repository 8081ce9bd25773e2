"""Edges of a batch are found again in the topology: the numbers that a Loader gives with `edge_ids`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.errors import ConfigError
from gnnsys.samplers.kernels import find_positions

NODES = 60


def _store(folder: Path, edges: int, *, weighted: bool = False, **options: Any) -> gs.Store:
    """With many edges most of them have copies; the weight of one is src * NODES + dst."""
    ends = np.random.default_rng(0).integers(0, NODES, (2, edges))
    weights = (ends[0] * NODES + ends[1]).astype(np.float32) if weighted else None
    x = np.zeros((NODES, 1), np.float32)
    return gs.ingest(gs.ArraySource(ends, NODES, x=x, edge_weight=weights), folder, **options)


def _loader(store: gs.Store, **options: Any) -> gs.Loader:
    return gs.Loader(store, edge_ids=True, with_y=False, **{"seeds": np.arange(NODES), **options})


@pytest.mark.parametrize("edges", [200, 20_000])
@pytest.mark.parametrize(
    "drawn",
    [
        {"fanouts": [-1, -1]},
        {"fanouts": [3, 7]},
        {"fanouts": [300]},
        {"fanouts": [9, 9], "replace": True},
        {"fanouts": [-1], "seeds": gs.Seeds.links(np.array([[1, 2], [3, 4], [0, 59], [7, 7]]), negatives=2)},
    ],
)
def test_edges_are_found_by_their_ends(tmp_path: Path, edges: int, drawn: dict[str, Any]) -> None:
    store = _store(tmp_path, edges)
    graph = store.graph
    with _loader(store, batch_size=16, **drawn) as loader:
        for batch in loader:
            assert batch.e_id is not None
            e_id, (source, destination) = batch.e_id.numpy(), batch.n_id[batch.edge_index].numpy()
            assert np.array_equal(graph.indices[e_id], source)
            assert ((graph.indptr[destination] <= e_id) & (e_id < graph.indptr[destination + 1])).all()
            if not drawn.get("replace"):
                assert len(np.unique(e_id)) == len(e_id)


def test_weights_of_edges_are_found_where_copies_were_added_up(tmp_path: Path) -> None:
    store = _store(tmp_path, 2000, weighted=True, dedup=True)
    weights = store.edge_weights()
    assert weights is not None
    with _loader(store, batch_size=16, fanouts=[5, 5], weights=weights) as loader:
        for batch in loader:
            source, destination = batch.n_id[batch.edge_index].numpy()
            assert batch.e_id is not None
            found = weights[batch.e_id.numpy()]
            assert (found % np.maximum(source * NODES + destination, 1) == 0).all()
            assert (found >= source * NODES + destination).all()


def test_parallel_edges_with_weights_of_their_own_are_refused(tmp_path: Path) -> None:
    weighted, plain = _store(tmp_path / "w", 20_000, weighted=True), _store(tmp_path / "p", 20_000)
    for store, options in ((weighted, {}), (plain, {"weights": np.ones(20_000, np.float32)})):
        with pytest.raises(ConfigError, match=r"GS-CFG-416: .*edges have the ends of another one"):
            _loader(store, fanouts=[2], **options)


def test_whole_lists_are_numbered_in_order(tmp_path: Path) -> None:
    store = _store(tmp_path, 20_000)
    with _loader(store, batch_size=NODES, fanouts=[-1]) as loader:
        (batch,) = loader
    assert batch.e_id is not None
    spans = [np.arange(store.graph.indptr[v], store.graph.indptr[v + 1]) for v in batch.seeds.tolist()]
    assert np.array_equal(batch.e_id.numpy(), np.concatenate(spans))


@pytest.mark.parametrize(
    ("drawn", "found"),
    [
        ([1, 0, 1, 1], [1, 0, 2, 3]),
        ([0, 1, 1, 1, 2], [0, 1, 2, 3, 5]),
        ([1] * 6, [1, 2, 3, 4, 1, 2]),
        ([2, 1, 1, 0, 1, 1, 1], [5, 1, 2, 0, 3, 4, 1]),
        ([], []),
    ],
)
def test_edges_with_equal_ends_get_one_position_after_the_other(drawn: list[int], found: list[int]) -> None:
    indptr, indices = np.array([0, 6, 6, 6]), np.array([0, 1, 1, 1, 1, 2])
    sources, out = np.array(drawn, dtype=np.int32), np.empty(len(drawn), dtype=np.int64)
    find_positions(indptr, indices, np.arange(3), np.array([0, len(drawn)], dtype=np.int32), sources, True, out)
    assert out.tolist() == found


def test_memory_of_edge_ids_is_counted(tmp_path: Path) -> None:
    store = _store(tmp_path, 20_000)
    with _loader(store, fanouts=[20]) as loader, gs.Loader(store, seeds=np.arange(NODES), fanouts=[20]) as usual:
        (batch,) = loader
        assert loader.max_batch_bytes() - usual.max_batch_bytes() >= 8 * batch.blocks[0].num_edges


def test_positions_reach_pyg_and_a_weighted_convolution(tmp_path: Path) -> None:
    """A weighted mean by hand equals the aggregation that a PyG layer does with the weights found."""
    pyg = pytest.importorskip("torch_geometric.nn")
    store = _store(tmp_path, 2000, weighted=True, dedup=True)
    weights = torch.from_numpy(np.array(store.edge_weights()))
    x = torch.randn(NODES, 4, generator=torch.Generator().manual_seed(0))
    with _loader(store, batch_size=20, fanouts=[-1]) as loader:
        for batch in loader:
            data = batch.to_pyg()
            layer = pyg.GraphConv(4, 4, aggr="add", bias=False)
            with torch.no_grad():
                found = layer(x[data.n_id], data.edge_index, weights[data.e_id])[: data.batch_size]
                for i, node in enumerate(batch.seeds.tolist()):
                    begin, end = store.graph.indptr[node], store.graph.indptr[node + 1]
                    near = torch.from_numpy(store.graph.indices[begin:end].astype(np.int64))
                    total = (weights[begin:end, None] * x[near]).sum(0)
                    assert torch.allclose(
                        found[i], layer.lin_rel(total) + layer.lin_root(x[node]), rtol=1e-4, atol=1e-2
                    )


def test_a_pre_aggregated_pack_has_no_single_edges(tmp_path: Path) -> None:
    store = gs.ingest("synthetic:powerlaw:nodes=500,edges=3000,feat=4,classes=2", tmp_path / "s", memory="16MiB")
    options = {"layout": "pre-aggregated", "aggregate": "mean", "memory": "32MiB"}
    pack = gs.pack(store, tmp_path / "p", fanouts=[4, 3], batch_size=64, **options)
    with pytest.raises(ConfigError, match="GS-CFG-415"):
        gs.Loader(pack, edge_ids=True)
    with gs.Loader(pack, edge_ids=True, rows="direct") as loader:
        assert all(batch.e_id is not None for batch in loader)
