"""Chunks of a whole graph: exact where the method is, equal to its slow twin where it is not, the same for any cut."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gnnsys.errors import ConfigError, GnnsysError
from gnnsys.models.aggregate import aggregate
from gnnsys.models.registry import NAMES, build
from gnnsys.pipeline.chunks import ChunkBlock, ChunkGraph
from gnnsys.pipeline.history import KeptRows
from gnnsys.pipeline.partition import partition, relabel
from gnnsys.training.drift import Drift, look_at
from tests.pipeline.whole_graph import CLASSES, COLUMNS, Stages, Twin, Whole, dense, orders_of, random_whole, whole

LAYERS = 4
RELATIVE = 1e-12
CHUNKED = set(NAMES) - {"gat", "gatv2"}
"""Chunks have no edges to score."""


@pytest.fixture(autouse=True)
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnsys.models.fold.float_rows", lambda x: x)


def network(name: str, *, dropout: float = 0.0, layers: int = LAYERS) -> nn.Module:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 5, "num_layers": layers, "out_channels": CLASSES}
    return build(name, **sizes, dropout=dropout, seed=1).double()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """To twelve digits of the largest value."""
    scale = max(float(t.abs().max()) for t in expected.values())
    return found.keys() == expected.keys() and all(
        float((found[key] - expected[key]).abs().max()) <= RELATIVE * scale for key in expected
    )


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def exact_gradients(model: nn.Module, data: Whole) -> tuple[dict[str, Tensor], float]:
    """Of the loss over the whole graph, by dense matrices."""
    twin: Any = copy.deepcopy(model)
    block = _Dense(data)
    h = data.x[torch.from_numpy(data.order_of_nodes)]
    for layer in twin.layers:
        h = layer(h, block)
    y = data.y[torch.from_numpy(data.order_of_nodes)]
    loss = cross_entropy(h, y, ignore_index=-1, reduction="sum")
    loss.backward()
    return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}, float(loss.detach())


class _Dense(ChunkBlock):
    """All nodes at once, through a dense matrix."""

    def __init__(self, data: Whole) -> None:
        super().__init__(ChunkGraph(data.indptr, data.indices, data.order_of_nodes, np.array([0, data.num_nodes])), 0)
        self._data = data

    def aggregate(self, h: Tensor, how: str) -> Tensor:
        return dense(self._data, how) @ h


@pytest.mark.parametrize("name", sorted(CHUNKED - {"mlp"}))
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_one_chunk_is_the_whole_graph(name: str, stages: int) -> None:
    model, data = network(name), random_whole(24, 70, 1, LAYERS)
    found = Stages(model, data, stages)
    for epoch in range(3):
        loss, count = found.epoch(epoch)
        expected, exact = exact_gradients(model, data)
        assert loss == pytest.approx(exact, rel=RELATIVE)
        assert count == int((data.y >= 0).sum())
        assert same(found.gradients(), expected)
        found.model.zero_grad()


@pytest.mark.parametrize("name", ["gcn", "sage", "gin"])
def test_chunks_without_edges_between_them_are_exact(name: str) -> None:
    parts = [random_whole(n, 3 * n, 1, LAYERS, seed=n) for n in (9, 5, 7)]
    starts = np.cumsum([0, *(part.num_nodes for part in parts)])
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.indptr) for part in parts]))])
    indices = np.concatenate([part.indices + start for part, start in zip(parts, starts, strict=False)])
    order = np.concatenate([start + part.order_of_nodes for part, start in zip(parts, starts, strict=False)])
    data = whole(indptr, indices.astype(np.int32), order, starts, LAYERS)
    model = network(name)
    expected, _ = exact_gradients(model, data)
    for stages in (1, 3):
        found = Stages(model, data, stages, history="zero", refresh=2)
        for epoch in range(3):
            found.epoch(epoch)
            assert same(found.gradients(), expected)
            found.model.zero_grad()


@pytest.mark.parametrize("name", sorted(CHUNKED - {"mlp"}))
@pytest.mark.parametrize("refresh", [1, 2])
@pytest.mark.parametrize("history", ["zero", "exact"])
def test_every_epoch_is_that_of_the_twin(name: str, refresh: int, history: str) -> None:
    model, data = network(name, dropout=0.4), random_whole(20, 60, 4, LAYERS)
    found = Stages(model, data, 1, refresh=refresh, history=history)
    rows = {int(key.split("-")[0]): tensor.clone() for key, tensor in found.rows().items()}
    assert history == "exact" or not any(tensor.any() for tensor in rows.values())
    twin = Twin(model, data, found.config, rows)
    for epoch in range(5):
        loss, _ = found.epoch(epoch)
        assert loss == pytest.approx(twin.epoch(epoch), rel=RELATIVE)
        assert same(found.gradients(), twin.gradients())
        for each in (found, twin):
            for p in each.model.parameters():  # the next epoch has other weights
                assert p.grad is not None
                p.data -= 0.01 * p.grad
            each.model.zero_grad()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sorted(CHUNKED))
def test_stages_and_recomputing_change_no_bit(name: str) -> None:
    model, data = network(name, dropout=0.4), random_whole(24, 70, 6, LAYERS)
    one = Stages(model, data, 1, refresh=3)
    others = [Stages(model, data, s, refresh=3, recompute=r) for s in (1, 2, 3, 4) for r in (False, True)]
    for epoch in range(4):
        expected = one.epoch(epoch)
        for other in others:
            assert other.epoch(epoch) == expected
            assert equal(other.gradients(), one.gradients())
            assert equal(other.rows(), one.rows())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["gcn", "sage", "gcnii", "resgcn"])
def test_sixty_four_layers_are_cut_like_four(name: str) -> None:
    model, data = network(name, dropout=0.2, layers=64), random_whole(24, 70, 3, 64)
    one, other = Stages(model, data, 1), Stages(model, data, 4, recompute=True)
    assert one.epoch(0) == other.epoch(0)
    assert equal(other.gradients(), one.gradients())
    expected = Twin(
        model, data, one.config, {int(k.split("-")[0]): rows for k, rows in Stages(model, data).rows().items()}
    )
    expected.epoch(0)
    assert same(one.gradients(), expected.gradients())


def test_exact_history_is_the_exact_forward_pass() -> None:
    model, data = network("sage"), random_whole(24, 70, 6, LAYERS)
    _, exact = exact_gradients(model, data)
    for stages in (1, 2):
        loss, _ = Stages(model, data, stages, history="exact").epoch(0)
        assert loss == pytest.approx(exact, rel=RELATIVE)
    loss, _ = Stages(model, data, history="zero").epoch(0)
    assert loss != pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("stages", [1, 2])
def test_frozen_weights_become_exact_layer_by_layer(stages: int) -> None:
    model, data = network("gcn"), random_whole(30, 120, 5, LAYERS)
    exact = Stages(model, data, history="exact").rows()
    found = Stages(model, data, stages, history="zero", refresh=1)
    for epoch in range(LAYERS):
        found.epoch(epoch)
        rows = found.rows()
        assert (rows[f"{epoch}-0"] - exact[f"{epoch}-0"]).abs().max() < 1e-12
        later = list(range(epoch + 2, LAYERS))
        assert all((rows[f"{n}-0"] - exact[f"{n}-0"]).abs().max() > 1e-6 for n in later)


def test_compensated_gradients_are_right_on_average_over_all_orders() -> None:
    model, data = network("gcn", layers=1), random_whole(16, 60, 4, 1)
    hidden = _AfterLinear(model)
    expected, _ = exact_gradients(hidden, data)
    orders = orders_of(range(4))
    data.orders = orders
    means = {}
    for compensation in (2.0, 1.0):
        found = Stages(hidden, data, history="exact", refresh=1000, compensation=compensation)
        for epoch in range(len(orders)):
            found.epoch(epoch)
        means[compensation] = {name: grad / len(orders) for name, grad in found.gradients().items()}
    assert same(means[2.0], expected)
    assert not same(means[1.0], expected)


class _AfterLinear(nn.Module):
    """One layer that aggregates what it computed: its gradient passes an edge."""

    def __init__(self, like: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_AfterLinearLayer(like.layers[0].lin)])

    def forward(self, x: Tensor, blocks: Any) -> Tensor:
        raise NotImplementedError


class _AfterLinearLayer(nn.Module):
    only_aggregates = True

    def __init__(self, lin: nn.Module) -> None:
        super().__init__()
        self.lin = copy.deepcopy(lin)

    def forward(self, h: Tensor, block: Any) -> Tensor:
        return aggregate(block, self.lin(h), "gcn")


@pytest.mark.parametrize("refresh", [1, 2, 5])
def test_no_row_that_is_read_is_older_than_the_refresh(refresh: int) -> None:
    """Rows hold the epoch that wrote them."""
    data = random_whole(30, 200, 6, 1)
    kept = KeptRows(30, refresh, 2.0)
    seen = set()
    kept.write(0, slice(0, 30), torch.zeros(30, 1), learns=False)
    kept.keep()
    for epoch in range(23):
        kept.begin()
        for chunk in data.order(epoch):
            rows = torch.full((len(data.graph.nodes(chunk)), 1), float(epoch))
            span = slice(data.graph.bounds[chunk], data.graph.bounds[chunk + 1])
            written = kept.write(0, span, rows, learns=False)
            ages = epoch - written[data.graph.into(chunk).indices]
            seen |= set(ages.flatten().int().tolist())
        kept.end(epoch)
    assert max(seen) == refresh
    assert min(seen) == 0


def test_the_loss_of_an_epoch_is_the_sum_over_its_chunks() -> None:
    model, data = network("sage"), random_whole(24, 70, 4, LAYERS)
    together, count = Stages(model, data, history="exact").epoch(0)
    apart = [_only(data, chunk) for chunk in range(4)]
    parts = [Stages(model, each, history="exact").epoch(0) for each in apart]
    assert together == pytest.approx(sum(loss for loss, _ in parts), rel=RELATIVE)
    assert count == sum(n for _, n in parts)


def _only(data: Whole, chunk: int) -> Whole:
    """The same with the labels of one chunk."""
    other = copy.copy(data)
    other.y = torch.full_like(data.y, -1)
    nodes = torch.from_numpy(data.graph.nodes(chunk))
    other.y[nodes] = data.y[nodes]
    return other


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("name", ["gcn", "gcnii"])
def test_bytes_and_messages_are_those_of_the_formula(name: str, stages: int) -> None:
    data, hidden = random_whole(24, 70, 6, LAYERS), 5
    found = Stages(network(name), data, stages, history="zero")
    for epoch in range(2):
        found.epoch(epoch)
    shared = hidden if name == "gcnii" else 0  # its first rows travel along
    behind = [work._ranks.wires()[1].traffic for work in found.works[:-1]]
    before = [work._ranks.wires()[0].traffic for work in found.works[1:]]
    traffic = [*behind, *before]
    assert sum(t.num_bytes for t in traffic) == 2 * 2 * (stages - 1) * data.num_nodes * (hidden + shared) * 8
    assert sum(t.num_messages for t in traffic) == 2 * 2 * (stages - 1) * data.num_chunks


def test_training_on_communities_ends_near_the_exact_loss() -> None:
    community = np.repeat(np.arange(3), 40)
    links = np.triu(
        np.random.default_rng(5).random((120, 120)) < np.where(community[:, None] == community, 0.15, 0.01), 1
    )
    links |= links.T
    indices = np.nonzero(links)[1].astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(links.sum(1))])
    losses = {}
    for chunks in (1, 6):
        data = whole(indptr, indices, *relabel(partition(indptr, indices, chunks), chunks), 6)
        data.y = torch.from_numpy(community)
        stages = Stages(network("resgcn", layers=6), data, 2, refresh=5)
        optimizer = torch.optim.Adam(stages.model.parameters(), lr=0.003)
        for epoch in range(60):
            optimizer.zero_grad()
            stages.epoch(epoch)
            optimizer.step()
        losses[chunks] = exact_gradients(stages.model.eval(), data)[1] / 120
    assert losses[1] < 0.9  # from 1.1
    assert losses[6] == pytest.approx(losses[1], rel=0.05)


def test_a_look_compares_with_the_exact_loss_under_the_same_weights() -> None:
    model, data = network("gcn"), random_whole(40, 200, 8, LAYERS)
    for p in model.parameters():
        p.data *= 3
    _, exact = exact_gradients(model, data)
    for history in ("exact", "zero"):
        stages = Stages(model, data, history=history, refresh=50)
        loss, count = stages.epoch(0)
        drift = stages.works[0].look(loss, count, step=0)
        assert (drift.loss, drift.exact) == pytest.approx((loss / count, exact / count), rel=RELATIVE)
        assert (abs(drift.loss - drift.exact) < 1e-12) == (history == "exact")


def test_training_ends_when_the_losses_are_far_apart_twice_in_a_row() -> None:
    calm, far, noted = Drift(1, 1.0, 1.05), Drift(2, 1.0, 3.0), Drift(3, 1.0, 1.2)
    look_at([calm, far, calm, far, calm], speak=False)
    with pytest.raises(GnnsysError, match=r"diverged: in epoch 3 the loss of the chunks is 1\.0000"):
        look_at([calm, far, far], speak=False)
    for exact in (float("inf"), float("nan")):
        with pytest.raises(GnnsysError, match="GS-PIPE-003"):
            look_at([calm, Drift(2, 1.0, exact), Drift(3, 1.0, exact)], speak=False)
    with pytest.warns(RuntimeWarning, match=r"in epoch 4 .* up to date it is 1\.2000"):
        look_at([calm, noted], speak=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look_at([noted, calm, noted], speak=True)
        look_at([Drift(4, 0.01, 0.03)], speak=True)  # thrice of nothing
        look_at([Drift(5, 2.0, 1.0), Drift(6, 2.0, 1.0)], speak=True)  # the weights are better than they look


def test_a_maximum_is_refused() -> None:
    data = random_whole(10, 20, 2, 1)
    block = ChunkBlock(data.graph, 0, KeptRows(10, 1, 2.0))
    with pytest.raises(ConfigError, match="'max' is not linear"):
        block.aggregate(torch.zeros(block.num_dst, 2), "max")
