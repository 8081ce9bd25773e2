"""A Batch as PyG sees it: fields, trimming, and PyG models that train unchanged."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

import gnnsys as gs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import GCNConv, SAGEConv
    from torch_geometric.utils import trim_to_layer


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    folder = tmp_path_factory.mktemp("pyg")
    source = "synthetic:powerlaw:nodes=3000,edges=30000,feat=16,classes=4,train=0.2,seed=1"
    store = gs.ingest(source, folder / "store", memory="64MiB")
    return gs.pack(store, folder / "pack", fanouts=[5, 4, 3], batch_size=64, memory="64MiB")


@pytest.fixture(scope="module")
def batch(pack: gs.Pack) -> gs.Batch:
    with gs.Loader(pack) as loader:
        return next(iter(loader))


def test_the_fields_are_those_of_a_neighbor_loader(batch: gs.Batch) -> None:
    data = batch.to_pyg()
    assert torch.equal(data.x, batch.x)
    assert torch.equal(data.edge_index, batch.edge_index)
    assert torch.equal(data.n_id[: data.batch_size], batch.seeds)
    assert torch.equal(data.y, batch.y)
    assert sum(data.num_sampled_nodes) == data.num_nodes == len(batch.n_id)
    assert sum(data.num_sampled_edges) == data.edge_index.shape[1]
    assert (len(data.num_sampled_nodes), len(data.num_sampled_edges)) == (4, 3)


def test_edges_are_listed_hop_by_hop_from_the_ring_that_drew_them(batch: gs.Batch) -> None:
    data = batch.to_pyg()
    start, first = 0, 0
    for nodes, edges in zip(data.num_sampled_nodes, data.num_sampled_edges, strict=False):
        targets = data.edge_index[1, start : start + edges]
        assert bool(((targets >= first) & (targets < first + nodes)).all())
        start, first = start + edges, first + nodes


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_trimmed_layers_give_the_untrimmed_rows_of_the_seeds(batch: gs.Batch, num_layers: int) -> None:
    data = batch.to_pyg()
    torch.manual_seed(0)
    convs = [SAGEConv(16, 16) for _ in range(num_layers)]
    whole = trimmed = data.x
    edges = data.edge_index
    for layer, conv in enumerate(convs):
        whole = conv(whole, data.edge_index)
        trimmed, edges, _ = trim_to_layer(layer, data.num_sampled_nodes, data.num_sampled_edges, trimmed, edges)
        trimmed = conv(trimmed, edges)
    # the batch has three hops: a model of fewer layers reads only the inner ones
    assert torch.allclose(whole[: data.batch_size], trimmed[: data.batch_size], atol=1e-5)


class PygNet(nn.Module):
    """What a PyG user brings along."""

    def __init__(self, conv: type[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(16, 32), conv(32, 32), conv(32, 4)])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for conv in self.convs[:-1]:
            x = conv(x, edge_index).relu()
        return self.convs[-1](x, edge_index)


@pytest.mark.parametrize("conv", [SAGEConv, GCNConv])
def test_a_pyg_model_trains_unchanged(
    pack: gs.Pack, conv: type[nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("pyg-run") / "run"
    run = gs.train(PygNet(conv), pack, task=gs.NodeClassification(4), epochs=6, lr=0.01, memory="512MiB", out=out)
    assert run.result["losses"][-1] < 0.7 * run.result["losses"][0]
    assert run.metrics["test"]["acc"] > 0.5


def test_without_pyg_the_error_names_what_to_install() -> None:
    code = """
import sys; sys.modules["torch_geometric"] = sys.modules["torch_geometric.data"] = None
import torch, gnnsys as gs
one = torch.zeros(1, dtype=torch.int64)
batch = gs.Batch(seeds=one, n_id=one, num_nodes=(1,), blocks=(), degree=one)
try: batch.to_pyg()
except gs.GnnsysError as error: print(error)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.startswith("GS-DEP-001")
    assert 'pip install "gnnsys[pyg]"' in child.stdout


def test_pairs_become_edge_labels(pack: gs.Pack) -> None:
    seeds = gs.Seeds.links([[0, 1], [2, 3], [4, 5]], negatives=1, t=[7, 8, 9], order="fixed")
    store = gs.Store.open(pack.path.parent / "store")
    with gs.Loader(store, seeds=seeds, fanouts=[2], batch_size=3) as loader:
        data = next(iter(loader)).to_pyg()
    assert data.edge_label.tolist() == [1, 1, 1, 0, 0, 0]
    assert data.n_id[data.edge_label_index].T[:3].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data.edge_label_time.tolist() == [7, 8, 9, 7, 8, 9]
