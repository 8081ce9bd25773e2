"""The layers that our networks are made of, each with its activation and dropout.

A layer maps h (S, F) to (D, F'): one row per destination of its block, and destinations are the first D sources. A
hidden layer ends in an activation; `last=True` leaves the plain linear output. All linear maps come after the
aggregation, so that it may be done ahead of time (pre-aggregated packs) and works on D rows, not on S.

A step of GraphSAGE is 55 % dense products at the processor's peak (6,430 destinations, 128 -> 256, 2 cores, AVX-512,
float32), so little is left. Tried there, and not kept: one product of [h, mean] in place of two (7.0 and 7.2 ms,
forward and backward), `addmm` into the first product (7.5 ms), Adam with `fused=True` (17.7 against 15.7 ms a step).

Attributes tell others what they may do for a layer; all are optional in layers of others:

    reads_neighbours = False     the output of a node depends on its own row alone (layer-wise inference)
    only_aggregates = True       neighbours are reached through `aggregate` alone: no row is made per edge, and
                                 nothing but `num_dst` is asked of the block (layer-wise inference)
    edge_bytes = 96              what the layer makes per edge, where it does make something; two rows when it does not
                                 say (layer-wise inference)
    aggregates_input = "mean"    the layer calls `aggregate(block, h, "mean")` on h as it was given, and reads its own
                                 rows beside it (not for "gcn", which counts them in): a pre-aggregated pack can serve
                                 it as the first layer; "sum", "mean" or "gcn"; None or absent when none may
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnsys.batch import Block
from gnnsys.models.aggregate import How, aggregate

SLAB_COLUMNS = 512
"""Wide rows without gradient are dropped out and aggregated this many columns at a time."""


class SageLayer(nn.Module):
    """h'_v = W_self h_v + W_neigh mean over u -> v of h_u + b, then ReLU and dropout when hidden.

    Hamilton et al. 2017 (GraphSAGE), mean aggregator, without the final normalisation. Dropout comes after the
    activation: rows as read are not dropped.
    """

    only_aggregates = True
    aggregates_input = "mean"

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__()
        self.lin_self = nn.Linear(in_channels, out_channels, bias=False)
        self.lin_neigh = nn.Linear(in_channels, out_channels)
        self.dropout, self.last = dropout, last

    def reset_parameters(self) -> None:
        self.lin_self.reset_parameters()
        self.lin_neigh.reset_parameters()

    def forward(self, h: Tensor, block: Block) -> Tensor:
        out = self.lin_neigh(aggregate(block, h, "mean"))
        out += self.lin_self(h[: block.num_dst])
        return out if self.last else _activated(out, self.dropout, self.training)


class GcnLayer(nn.Module):
    """h' = A_hat dropout(h) W + b, then ReLU when hidden; A_hat as `aggregate(..., "gcn")` has it.

    Kipf and Welling 2017, with their dropout on the input of every layer, their Glorot weights and zero bias.
    """

    only_aggregates = True

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)
        self.dropout, self.last = dropout, last
        self.aggregates_input = None if dropout else "gcn"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    def forward(self, h: Tensor, block: Block) -> Tensor:
        out = self.lin(_aggregate_dropped(block, h, "gcn", self.dropout if self.training else 0.0))
        return out if self.last else functional.relu(out, inplace=True)


class GinLayer(nn.Module):
    """h'_v = W_2 relu(W_1 ((1 + eps) h_v + sum over u -> v of h_u) + b_1) + b_2, then ReLU and dropout when hidden.

    Xu et al. 2019 (GIN), eq. 4.1, with a learned eps that starts at 0 and an MLP of two layers without batch norm.
    """

    only_aggregates = True
    aggregates_input = "sum"

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__()
        self.lin_in, self.lin_out = nn.Linear(in_channels, out_channels), nn.Linear(out_channels, out_channels)
        self.eps = nn.Parameter(torch.zeros(()))
        self.dropout, self.last = dropout, last

    def reset_parameters(self) -> None:
        self.lin_in.reset_parameters()
        self.lin_out.reset_parameters()
        nn.init.zeros_(self.eps)

    def forward(self, h: Tensor, block: Block) -> Tensor:
        out = aggregate(block, h, "sum") + (1 + self.eps) * h[: block.num_dst]
        out = self.lin_out(functional.relu(self.lin_in(out), inplace=True))
        return out if self.last else _activated(out, self.dropout, self.training)


class SgcLayer(nn.Module):
    """h' = A_hat h, with A_hat as `aggregate(..., "gcn")` has it; the last layer adds dropout(.) W + b.

    Wu et al. 2019 (SGC): no activation anywhere. Widths stay as they are until the last layer.
    """

    only_aggregates = True
    aggregates_input = "gcn"

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels) if last else None
        self.dropout = dropout

    def reset_parameters(self) -> None:
        if self.lin is not None:
            self.lin.reset_parameters()

    def forward(self, h: Tensor, block: Block) -> Tensor:
        out = aggregate(block, h, "gcn")
        return out if self.lin is None else self.lin(functional.dropout(out, self.dropout, self.training))


class DenseLayer(nn.Module):
    """h'_v = W h_v + b, then ReLU and dropout when hidden. Reads no neighbours: only the destination rows."""

    reads_neighbours = False

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)
        self.dropout, self.last = dropout, last

    def reset_parameters(self) -> None:
        self.lin.reset_parameters()

    def forward(self, h: Tensor, block: Block) -> Tensor:
        out = self.lin(h[: block.num_dst])
        return out if self.last else _activated(out, self.dropout, self.training)


def _activated(h: Tensor, dropout: float, training: bool) -> Tensor:
    return functional.dropout(functional.relu(h, inplace=True), dropout, training)


def _aggregate_dropped(block: Block, h: Tensor, how: How, dropout: float) -> Tensor:
    """`aggregate` of h after dropout. Dropout makes two copies of its input; input rows may be tens of kilobytes
    wide and many, so they go slab by slab, which costs nothing because no backward needs the copies."""
    if not dropout:
        return aggregate(block, h, how)
    if h.requires_grad:
        return aggregate(block, functional.dropout(h, dropout), how)
    slabs = h.split(SLAB_COLUMNS, dim=1)
    return torch.cat([aggregate(block, functional.dropout(slab, dropout), how) for slab in slabs], dim=1)
