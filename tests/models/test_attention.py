"""Attention on blocks: PyG's convolutions give the same, gradients are those of the obvious form and repeatable."""

from typing import Any

import pytest
import torch
from torch import nn

from gnnsys.errors import ConfigError
from gnnsys.models.attention import GatLayer, Gatv2Layer, edge_softmax, weighted_sum
from gnnsys.models.fold import fold
from gnnsys.models.layers import GinLayer
from gnnsys.models.registry import build

pyg = pytest.importorskip("torch_geometric.nn")
SEEDS = [4, 0, 1, 9]


def edge_index_of(tree: Any) -> torch.Tensor:
    return torch.tensor([(u, v) for v, sources in enumerate(tree.neighbours) for u in sources]).T


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("kind", [GatLayer, Gatv2Layer])
def test_a_layer_gives_what_the_convolution_of_pyg_gives(kind: Any, heads: int, last: bool, tree: Any) -> None:
    """Outputs and gradients, on full neighbourhoods with an isolated node, a self loop and parallel edges."""
    layer = kind(5, 8, heads=heads, last=last)
    nn.init.normal_(layer.bias)
    width = 8 if last else 8 // heads
    twin = (pyg.GATConv if kind is GatLayer else pyg.GATv2Conv)(5, width, heads=heads, concat=not last)
    with torch.no_grad():
        twin.bias.copy_(layer.bias)
        if kind is GatLayer:
            twin.lin.weight.copy_(layer.lin.weight)
            twin.att_src.copy_(layer.att_src[None])
            twin.att_dst.copy_(layer.att_dst[None])
        else:
            twin.lin_l.load_state_dict(layer.lin_src.state_dict())
            twin.lin_r.load_state_dict(layer.lin_dst.state_dict())
            twin.att.copy_(layer.att[None])
    batch = tree.batch(SEEDS, [-1])
    out = layer(batch.x, batch.blocks[0])
    expected = twin(tree.x, edge_index_of(tree))[SEEDS]
    expected = expected if last else nn.functional.elu(expected)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(layer.bias.grad, twin.bias.grad, atol=1e-5, rtol=1e-5)
    ours, theirs = (layer.att_src, twin.att_src) if kind is GatLayer else (layer.att, twin.att)
    torch.testing.assert_close(ours.grad, theirs.grad[0], atol=1e-5, rtol=1e-4)


def test_gin_gives_what_the_convolution_of_pyg_gives(tree: Any) -> None:
    layer = GinLayer(5, 6, last=True)
    nn.init.constant_(layer.eps, 0.3)
    twin = pyg.GINConv(nn.Sequential(layer.lin_in, nn.ReLU(), layer.lin_out), eps=0.3, train_eps=True)
    batch = tree.batch(SEEDS, [-1])
    expected = twin(tree.x, edge_index_of(tree))[SEEDS]
    torch.testing.assert_close(layer(batch.x, batch.blocks[0]), expected, atol=1e-5, rtol=0)


def test_edge_softmax_has_the_gradient_of_the_plain_form() -> None:
    scores = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    indptr = torch.tensor([0, 4, 4, 5, 7], dtype=torch.int32)
    plain = torch.cat([part.softmax(0) for part in scores.split([4, 0, 1, 2])])
    torch.testing.assert_close(edge_softmax(scores, indptr), plain)
    assert torch.autograd.gradcheck(edge_softmax, (scores, indptr))


def test_the_weighted_sum_has_the_gradient_of_the_plain_form(tree: Any) -> None:
    block = tree.batch(SEEDS, [-1]).blocks[0]
    rows = torch.randn(block.num_src, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(block.num_edges, 3, dtype=torch.float64, requires_grad=True)
    messages = rows[block.indices] * weights[:, :, None]
    plain = torch.zeros(block.num_dst, 3, 2, dtype=torch.float64).index_add(0, block.dst_index(), messages)
    out = weighted_sum(block, rows, weights)
    torch.testing.assert_close(out, plain)
    ours, theirs = (torch.autograd.grad(each.square().sum(), (rows, weights)) for each in (out, plain))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["gat", "gatv2"])
def test_gradients_are_equal_bit_for_bit_every_time(name: str, tree: Any) -> None:
    model = build(name, in_channels=5, hidden_channels=16, num_layers=2, out_channels=3)
    batch = tree.batch(SEEDS, [-1, -1])
    grads = []
    for _ in range(3):
        model.zero_grad()
        fold(model, batch).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))


def test_heads_that_do_not_divide_the_hidden_width_are_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError, match="3 heads do not divide 16") as refused:
        build("gat", in_channels=5, hidden_channels=16, num_layers=2, out_channels=3, heads=3)
    assert "--hidden 18" in str(refused.value.hint)


@pytest.mark.parametrize("heads", [0, -1, "4", True, 2.0])
def test_what_is_no_number_of_heads_is_refused(heads: Any) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-854"):
        build("gat", in_channels=5, hidden_channels=16, num_layers=1, out_channels=3, heads=heads)
