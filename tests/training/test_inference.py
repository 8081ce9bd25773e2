"""Inference: layer-wise equals one pass over the whole graph, for every budget, type of rows and kind of model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gnnsys.batch import Batch, Block
from gnnsys.budget import Budget, GrowthMeter
from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.models.aggregate import aggregate
from gnnsys.models.fold import fold
from gnnsys.models.registry import NAMES, build
from gnnsys.storage.store import Store
from gnnsys.storage.tables import torch_rows
from gnnsys.training.inference import infer
from gnnsys.training.layerwise import layerwise
from gnnsys.training.memory import trim
from gnnsys.training.streamed import StreamedBlock
from tests.graphs import ingest_arrays

N, WIDTH, CLASSES = 400, 12, 3
AMPLE = 64 << 20
TIGHT = (4 << 20) + 60_000  # the constant part of every chunk, and room for some dozen nodes
HUB = 7


def make_store(folder: Path, dtype: Any = np.float32, num_edges: int = 2400, hub_edges: int = 0) -> Store:
    """A random graph with isolated nodes, parallel edges, and `hub_edges` more edges into HUB."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, N, (2, num_edges))
    dst[dst >= N - 20] = 0  # the last 20 nodes have no in-edges
    src = np.append(src, rng.integers(0, N, hub_edges))
    dst = np.append(dst, np.full(hub_edges, HUB))
    x = rng.integers(0, 255, (N, WIDTH)).astype(dtype) if dtype == np.uint8 else rng.standard_normal((N, WIDTH))
    return ingest_arrays(folder, src, dst, N, x=x.astype(dtype), y=rng.integers(0, CLASSES, N))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "plain")


@pytest.fixture(scope="module")
def hub_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "hub", hub_edges=60_000)


def whole_graph_batch(store: Store, num_layers: int) -> Batch:
    """Every node a seed, every edge in every block."""
    graph, table = store.graph, store.table("x", "memory")
    degree = torch.from_numpy(np.diff(graph.indptr).astype(np.int32))
    indptr, indices = torch.from_numpy(graph.indptr.astype(np.int32)), torch.from_numpy(np.array(graph.indices))
    every = torch.arange(store.num_nodes)
    return Batch(
        seeds=every,
        n_id=every,
        num_nodes=(store.num_nodes,) * (num_layers + 1),
        blocks=(Block(indptr=indptr, indices=indices, degree=degree),) * num_layers,
        degree=degree,
        x=torch_rows(table.read(np.arange(store.num_nodes)), table.dtype_name),
    )


def full_pass(model: nn.Module, store: Store, num_layers: int) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        out: Tensor = fold(model, whole_graph_batch(store, num_layers))
    return out.numpy()


def named(name: str, num_layers: int = 2) -> nn.Module:
    return build(name, in_channels=WIDTH, hidden_channels=8, num_layers=num_layers, out_channels=CLASSES, dropout=0.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_layer_by_layer_equals_one_pass_over_the_graph(
    name: str, num_layers: int, store: Store, tmp_path: Path
) -> None:
    model = named(name, num_layers)
    nodes = np.array([3, 50, 51, 399, 0])
    out = layerwise(model, store, nodes=nodes, budget=Budget(AMPLE), scratch=tmp_path)
    assert out.dtype == np.float32
    # float32 sums of a few hundred terms, in other groups
    np.testing.assert_allclose(out, full_pass(model, store, num_layers)[nodes], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows", ["mapped", "direct", "memory"])
def test_every_backend_gives_the_same_bits(rows: str, store: Store, tmp_path: Path) -> None:
    model, nodes = named("sage"), np.arange(N)
    first = layerwise(model, store, nodes=nodes, budget=Budget(AMPLE), scratch=tmp_path)
    out = layerwise(model, store, nodes=nodes, budget=Budget(AMPLE), scratch=tmp_path, rows=rows)
    assert np.array_equal(out, first)


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.float64])
def test_rows_of_other_types_are_converted_as_in_training(dtype: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", dtype)
    model = named("gcn")
    out = layerwise(model, store, nodes=np.arange(N), budget=Budget(AMPLE), scratch=tmp_path)
    np.testing.assert_allclose(out, full_pass(model, store, 2), rtol=1e-5, atol=1e-5 * np.abs(out).max())


@settings(max_examples=20, deadline=None)
@given(nodes=st.lists(st.integers(0, N - 1), max_size=30), name=st.sampled_from(sorted(NAMES)))
def test_any_nodes_in_any_order_with_repeats(nodes: list[int], name: str, store_and_scratch: Any) -> None:
    store, scratch = store_and_scratch
    model = named(name)
    out = layerwise(model, store, nodes=np.array(nodes, dtype=np.int64), budget=Budget(AMPLE), scratch=scratch)
    np.testing.assert_allclose(out, full_pass(model, store, 2)[nodes].reshape(-1, CLASSES), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def store_and_scratch(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return store, tmp_path_factory.mktemp("scratch")


@pytest.mark.parametrize("name", NAMES)
def test_many_small_chunks_give_what_one_chunk_gives(name: str, store: Store, tmp_path: Path) -> None:
    model, nodes = named(name), np.arange(N)
    whole, tight = [], []
    room = TIGHT + (100_000 if name in ("gat", "gatv2") else 0)  # what attention makes per edge
    one = layerwise(
        model, store, nodes=nodes, budget=Budget(AMPLE), scratch=tmp_path, progress=lambda *p: whole.append(p)
    )
    many = layerwise(
        model, store, nodes=nodes, budget=Budget(room), scratch=tmp_path, progress=lambda *p: tight.append(p)
    )
    assert whole == [("infer", 1.0, 2), ("infer", 2.0, 2)]
    assert len(tight) > (10 if name != "mlp" else 2)
    assert tight == sorted(tight)
    np.testing.assert_allclose(many, one, atol=1e-5, rtol=0)  # products of other sizes round differently


@pytest.mark.parametrize("name", ["sage", "gcn"])
def test_a_node_with_more_neighbours_than_fit_is_streamed(name: str, hub_store: Store, tmp_path: Path) -> None:
    model, nodes = named(name), np.array([0, HUB, 9])
    out = layerwise(model, hub_store, nodes=nodes, budget=Budget(TIGHT), scratch=tmp_path)
    # one pass adds 60,000 float32 values in a row: its error is up to a few thousand units in the last place
    np.testing.assert_allclose(out, full_pass(model, hub_store, 2)[nodes], atol=1e-5, rtol=1e-3)


class OwnLayer(nn.Module):
    """A layer that makes one row per edge, as attention does."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, h: Tensor, block: Block) -> Tensor:
        messages = self.lin(h)[block.indices]
        return messages.new_zeros(block.num_dst, messages.shape[1]).index_add(0, block.dst_index(), messages)


class OwnNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([OwnLayer(WIDTH, 8), OwnLayer(8, CLASSES)])

    def forward(self, x: Tensor, blocks: list[Block]) -> Tensor:
        for layer, block in zip(self.layers, blocks, strict=True):
            x = layer(x, block)
        return x


def test_layers_of_others_are_inferred_too(store: Store, tmp_path: Path) -> None:
    model = OwnNet()
    out = layerwise(model, store, nodes=np.arange(N), budget=Budget(TIGHT + 60_000), scratch=tmp_path)
    np.testing.assert_allclose(out, full_pass(model, store, 2), atol=1e-4, rtol=1e-4)  # sums, not means


def test_what_cannot_be_streamed_and_does_not_fit_is_refused_with_the_numbers(hub_store: Store, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match=rf"GS-MEM-003: node {HUB} with its 60\d\d\d in-neighbours"):
        layerwise(OwnNet(), hub_store, nodes=np.array([HUB]), budget=Budget(TIGHT), scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sage", "gcn", "own"])
def test_memory_stays_within_the_budget(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    num_nodes, width, budget = 30_000, 64, 16 << 20
    src, dst = rng.integers(0, num_nodes, (2, 300_000))
    store = ingest_arrays(
        tmp_path / "store", src, dst, num_nodes, x=rng.standard_normal((num_nodes, width)).astype(np.float32)
    )
    sizes = {"in_channels": width, "hidden_channels": 64, "num_layers": 2, "out_channels": 8}
    model = OwnNet() if name == "own" else build(name, **sizes)
    if name == "own":
        model.layers = nn.ModuleList([OwnLayer(width, 64), OwnLayer(64, 8)])
    layerwise(model, store, nodes=np.arange(10), budget=Budget(budget), scratch=tmp_path)  # kernels compiled
    trim()  # what the heap kept before is not headroom
    with GrowthMeter(0.001) as meter:
        layerwise(model, store, nodes=np.arange(num_nodes), budget=Budget(budget), scratch=tmp_path)
        assert meter.peak_growth <= budget


def test_the_model_is_left_as_it_was_and_scratch_is_removed(store: Store, tmp_path: Path) -> None:
    model = named("sage").train()
    model.layers[0].eval()  # type: ignore[index, union-attr]
    layerwise(model, store, nodes=np.arange(5), budget=Budget(AMPLE), scratch=tmp_path)
    assert model.training
    assert not model.layers[0].training  # type: ignore[index, union-attr]
    assert list(tmp_path.iterdir()) == []


def test_nodes_outside_the_graph_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="node 400 at position 1"):
        layerwise(named("sage"), store, nodes=np.array([1, N]), budget=Budget(AMPLE), scratch=tmp_path)


def test_a_model_without_layers_is_refused_layer_by_layer(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="offers no layers"):
        layerwise(EdgeIndexNet(), store, nodes=np.arange(3), budget=Budget(AMPLE), scratch=tmp_path)


class EdgeIndexNet(nn.Module):
    """Two rounds of sums over in-neighbours, in PyG's style."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for _ in range(2):
            x = x.new_zeros(x.shape).index_add(0, edge_index[1], x[edge_index[0]])
        return x


class Pair(nn.Module):
    def forward(self, h: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        return aggregate(block, h, "sum"), h[: block.num_dst]


class PairEnd(nn.Module):
    def forward(self, h: tuple[Tensor, Tensor], block: Block) -> Tensor:
        return aggregate(block, h[0], "sum") + h[1][: block.num_dst]


class PairNet(nn.Module):
    """Passes a tuple from layer to layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Pair(), PairEnd()])

    def forward(self, x: Tensor, blocks: list[Block]) -> Tensor:
        out: Tensor = self.layers[1](self.layers[0](x, blocks[0]), blocks[1])
        return out


class Named(nn.Module):
    def forward(self, h: Tensor, block: Block) -> dict[str, Tensor]:
        return {"sums": aggregate(block, h, "sum"), "own": h[: block.num_dst]}


class NamedEnd(nn.Module):
    def forward(self, h: dict[str, Tensor], block: Block) -> Tensor:
        return aggregate(block, h["sums"], "sum") + h["own"][: block.num_dst]


class NamedNet(PairNet):
    """Passes what layer-wise inference has no file for."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Named(), NamedEnd()])


@dataclass(frozen=True)
class Case:
    model: nn.Module
    budget: int
    how: str


@pytest.mark.parametrize(
    "case",
    [
        Case(named("gcn"), AMPLE, "layer-wise"),
        Case(EdgeIndexNet(), AMPLE, "full-neighbour"),
        Case(PairNet(), AMPLE, "layer-wise"),
        Case(NamedNet(), AMPLE, "full-neighbour"),
    ],
)
def test_infer_is_exact_and_says_how(case: Case, store: Store, tmp_path: Path) -> None:
    nodes = np.array([17, 4, 4, 390])
    out, how = infer(case.model, store, nodes=nodes, fanouts=[3, 2], budget=Budget(case.budget), scratch=tmp_path)
    assert how == case.how
    expected = full_pass(case.model, store, 2)[nodes]
    np.testing.assert_allclose(out, expected, atol=1e-4, rtol=1e-5)  # sums over dozens of neighbours
    assert list(tmp_path.iterdir()) == []


def test_batches_shrink_until_neighbourhoods_fit(store: Store, tmp_path: Path) -> None:
    seen: list[float] = []
    out, how = infer(
        EdgeIndexNet(),
        store,
        nodes=np.arange(N),
        fanouts=[3, 2],
        budget=Budget(1_400_000),  # sampling has a constant part of 1 MiB
        scratch=tmp_path,
        progress=lambda _stage, done, _total: seen.append(done),
    )
    assert how == "full-neighbour"
    assert len(seen) > 5
    np.testing.assert_allclose(out, full_pass(EdgeIndexNet(), store, 2), atol=1e-4, rtol=1e-5)


def test_where_no_neighbourhood_fits_it_is_sampled_and_said(hub_store: Store, tmp_path: Path) -> None:
    nodes = np.array([HUB, 9])
    out, how = infer(EdgeIndexNet(), hub_store, nodes=nodes, fanouts=[3, 2], budget=Budget(2 << 20), scratch=tmp_path)
    assert how == "sampled"
    assert out.shape == (2, WIDTH)


def test_where_not_even_one_node_fits_the_need_is_told(hub_store: Store, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-004.*one node needs 1\.\d MiB"):
        infer(EdgeIndexNet(), hub_store, nodes=np.array([9]), fanouts=[3, 2], budget=Budget(1 << 20), scratch=tmp_path)


def test_a_streamed_block_aggregates_like_the_whole_one() -> None:
    rng = np.random.default_rng(0)
    h = torch.from_numpy(rng.standard_normal((9, 4)))
    degree = torch.from_numpy(rng.integers(1, 9, 9).astype(np.int32))
    degree[0] = 8
    edges = torch.from_numpy(rng.integers(0, 9, 8).astype(np.int32))

    def part(begin: int, end: int) -> Block:
        indptr = torch.tensor([0, end - begin], dtype=torch.int32)
        return Block(indptr=indptr, indices=edges[begin:end], degree=degree)

    cuts = [(0, 3), (3, 4), (4, 8)]
    block = StreamedBlock(num_dst=1, num_edges=8, pieces=lambda: ((part(a, b), h) for a, b in cuts))
    for how in ("sum", "mean", "max", "gcn"):
        torch.testing.assert_close(aggregate(block, h[:1], how), aggregate(part(0, 8), h, how))
