"""The networks by name: the checks that every model must pass, and dense references over whole graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.models.fold import fold
from gnnsys.models.gat import Gat, Gatv2
from gnnsys.models.gcn import Gcn
from gnnsys.models.gcnii import Gcnii
from gnnsys.models.gin import Gin
from gnnsys.models.layers import SLAB_COLUMNS, GcnLayer, SageLayer
from gnnsys.models.mlp import Mlp
from gnnsys.models.registry import NAMES, build
from gnnsys.models.resgcn import ResGcn
from gnnsys.models.sage import Sage
from gnnsys.models.sgc import Sgc
from gnnsys.models.stack import Stack

SEEDS = [4, 0, 1, 9]
SIZES: dict[str, Any] = {"in_channels": 5, "hidden_channels": 16, "out_channels": 3}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_every_model_keeps_the_invariants(
    name: str, num_layers: int, tree: Any, check_model: Callable[[nn.Module, Batch, int], None]
) -> None:
    batch = tree.batch(SEEDS, [2] * num_layers, np.random.default_rng(0))
    check_model(build(name, num_layers=num_layers, **SIZES), batch, 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_all_neighbours_give_the_dense_answer(name: str, num_layers: int, tree: Any) -> None:
    model = build(name, num_layers=num_layers, **SIZES).eval()
    out = fold(model, tree.batch(SEEDS, [-1] * num_layers))
    # float32 products of width 16 against float64
    torch.testing.assert_close(out.double(), dense_answer(model, tree)[SEEDS], atol=1e-5, rtol=0)


def dense_answer(model: nn.Module, tree: Any) -> Tensor:
    """(N, C) float64: the textbook formula on the adjacency matrix of the whole graph."""
    assert isinstance(model, Stack)
    a, h = tree.dense(), tree.x.double()
    degree = a.sum(1)
    scale = (degree + 1).rsqrt()
    normalised = scale[:, None] * (a + torch.eye(len(a))) * scale
    mean = a / degree.clamp(min=1)[:, None]
    initial = h
    for number, layer in enumerate(model.layers, 1):
        weights = {key: value.double() for key, value in layer.state_dict().items()}
        if number == 1 and isinstance(model, Gcnii | ResGcn):
            h = _linear(h, weights, "lin_in")
            initial = h = h.relu() if isinstance(model, Gcnii) else h
        if isinstance(model, Sage):
            h = h @ weights["lin_self.weight"].T + _linear(mean @ h, weights, "lin_neigh")
        elif isinstance(model, Gcn):
            h = _linear(normalised @ h, weights, "lin")
        elif isinstance(model, Gin):
            h = _linear(a @ h + (1 + weights["eps"]) * h, weights, "lin_in").relu()
            h = _linear(h, weights, "lin_out")
        elif isinstance(model, Gat | Gatv2):
            h = _attended(a, h, weights, last=number == len(model.layers))
        elif isinstance(model, Sgc):
            h = normalised @ h
            h = _linear(h, weights, "lin") if "lin.weight" in weights else h
        elif isinstance(model, Gcnii):
            mixed, theta = 0.9 * normalised @ h + 0.1 * initial, np.log(0.5 / number + 1)
            h = ((1 - theta) * mixed + theta * mixed @ weights["weight"]).relu()
        elif isinstance(model, ResGcn):
            h = h + _linear(normalised @ _normed(h, weights, "norm").relu(), weights, "lin")
        else:
            assert isinstance(model, Mlp)
            h = _linear(h, weights, "lin")
        last = number == len(model.layers)
        if last and isinstance(model, ResGcn):
            h = _normed(h, weights, "norm_out").relu()
        if last and isinstance(model, Gcnii | ResGcn):
            h = _linear(h, weights, "lin_out")
        h = h.relu() if not last and not isinstance(model, Sgc | ResGcn | Gat | Gatv2) else h
    return h


def _attended(a: Tensor, h: Tensor, weights: dict[str, Tensor], last: bool) -> Tensor:
    """GAT and GATv2 with every pair of nodes scored; parallel edges count twice, self loops once."""
    counts = a - a.diag().diag() + torch.eye(len(a))
    heads, width = weights["att" if "att" in weights else "att_src"].shape
    if "att" in weights:
        rows, to = (_linear(h, weights, name).view(-1, heads, width) for name in ("lin_src", "lin_dst"))
        scores = (functional.leaky_relu(rows[None] + to[:, None], 0.2) * weights["att"]).sum(-1)
    else:
        rows = (h @ weights["lin.weight"].T).view(-1, heads, width)
        to, from_ = (rows * weights["att_dst"]).sum(-1), (rows * weights["att_src"]).sum(-1)
        scores = functional.leaky_relu(to[:, None] + from_[None], 0.2)
    alpha = counts[:, :, None] * scores.exp()
    alpha = alpha / alpha.sum(1, keepdim=True)
    out = torch.einsum("vuh,uhc->vhc", alpha, rows)
    return out.mean(1) + weights["bias"] if last else functional.elu(out.flatten(1) + weights["bias"])


def _linear(h: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normed(h: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Every row with mean 0 and variance 1, then scaled and shifted column by column."""
    centred = h - h.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def test_an_mlp_sees_no_neighbours(tree: Any) -> None:
    model = build("mlp", num_layers=2, **SIZES).eval()
    with_edges = fold(model, tree.batch(SEEDS, [-1, -1]))
    torch.testing.assert_close(with_edges, fold(model, tree.batch(SEEDS, [0, 0])), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_and_hidden_layers_only(name: str, tree: Any) -> None:
    batch = tree.batch(SEEDS, [-1, -1])
    model = build(name, num_layers=2, dropout=0.5, **SIZES)
    assert torch.equal(fold(model.eval(), batch), fold(model, batch))
    model.train()
    assert not torch.equal(fold(model, batch, key=(0,)), fold(model, batch, key=(1,)))


def test_sage_does_not_drop_what_it_reads(tree: Any) -> None:
    layer = SageLayer(5, 3, dropout=0.9, last=True)
    block = tree.batch(SEEDS, [-1]).blocks[0]
    h = torch.ones(block.num_src, 5)
    assert torch.equal(layer.train()(h, block), layer.eval()(h, block))


def test_gcn_drops_wide_input_rows_in_slabs_with_the_right_rate(tree: Any) -> None:
    columns = 3 * SLAB_COLUMNS + 7
    batch = tree.batch(SEEDS, [-1])
    block = batch.blocks[0]
    layer = GcnLayer(columns, columns, dropout=0.25, last=True).train()
    nn.init.eye_(layer.lin.weight)
    out = layer(torch.ones(block.num_src, columns), block)[1]  # seed 0 is isolated: its own row, dropped out
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 0.75]))
    kept = float((out > 0).double().mean())
    assert abs(kept - 0.75) < 0.05  # 1543 draws: standard deviation 0.011


@pytest.mark.parametrize(
    "change", [{"in_channels": 0}, {"hidden_channels": -1}, {"num_layers": 0}, {"out_channels": 0}, {"dropout": 1.0}]
)
def test_impossible_sizes_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        Sage(**{"num_layers": 2, **SIZES, **change})
