"""Our layers give what PyG's convolutions give with the same weights."""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from gnnsys.batch import Block
from gnnsys.models.deep import ALPHA, LAMBDA, GcniiLayer
from gnnsys.models.layers import GcnLayer, SageLayer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import GCN2Conv, GCNConv, SAGEConv

WIDTH = 6


def symmetric_block() -> tuple[Block, Tensor]:
    """A whole graph whose edges all have their reverse, without self loops, as one block; and its edge_index."""
    rng = np.random.default_rng(0)
    pairs = {(int(u), int(v)) for u, v in rng.integers(0, 30, (80, 2)) if u != v}
    edges = sorted({*pairs, *((v, u) for u, v in pairs)}, key=lambda edge: (edge[1], edge[0]))
    edge_index = torch.tensor(edges).T
    degree = torch.bincount(edge_index[1], minlength=30).to(torch.int32)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int32), degree.cumsum(0).to(torch.int32)])
    return Block(indptr=indptr, indices=edge_index[0].to(torch.int32), degree=degree), edge_index


def test_our_sage_layer_is_pygs_with_the_same_weights() -> None:
    torch.manual_seed(0)
    block, edge_index = symmetric_block()
    h = torch.randn(30, WIDTH)
    ours, theirs = SageLayer(WIDTH, 4, last=True), SAGEConv(WIDTH, 4)
    theirs.lin_l.load_state_dict(ours.lin_neigh.state_dict())
    theirs.lin_r.load_state_dict(ours.lin_self.state_dict())
    torch.testing.assert_close(ours(h, block), theirs(h, edge_index), atol=1e-6, rtol=1e-5)


def test_our_gcn_layer_is_pygs_with_the_same_weights() -> None:
    torch.manual_seed(0)
    block, edge_index = symmetric_block()
    h = torch.randn(30, WIDTH)
    ours, theirs = GcnLayer(WIDTH, 4, last=True), GCNConv(WIDTH, 4)
    nn.init.normal_(ours.lin.bias)
    theirs.lin.weight.data.copy_(ours.lin.weight)
    theirs.bias.data.copy_(ours.lin.bias)
    torch.testing.assert_close(ours(h, block), theirs(h, edge_index), atol=1e-6, rtol=1e-5)


def test_our_gcnii_layer_is_pygs_with_the_same_weights() -> None:
    torch.manual_seed(0)
    block, edge_index = symmetric_block()
    h, initial = torch.randn(2, 30, WIDTH)
    ours = GcniiLayer(WIDTH, WIDTH, WIDTH, number=3, dropout=0.0, last=False)
    theirs = GCN2Conv(WIDTH, ALPHA, LAMBDA, layer=3)
    theirs.weight1.data.copy_(ours.weight)
    found, carried = ours((h, initial), block)
    torch.testing.assert_close(found, theirs(h, initial, edge_index).relu(), atol=1e-6, rtol=1e-5)
    assert torch.equal(carried, initial)
