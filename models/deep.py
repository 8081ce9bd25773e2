"""Layers for deep networks: what they add to stays recognisable after dozens of them.

Both change their rows before they aggregate them, so no pre-aggregated pack can serve them. The first layer also maps
the input to the hidden width, the last one maps to the output: a stack of L layers aggregates L times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnsys.batch import Block
from gnnsys.models.aggregate import aggregate

Rows = Tensor | tuple[Tensor, Tensor]

ALPHA, LAMBDA = 0.1, 0.5
"""Share of the initial rows in every layer, and strength of the maps, as Chen et al. 2020 have them for deep stacks."""


class GcniiLayer(nn.Module):
    """Layer l of GCNII: a = (1 - alpha) A_hat dropout(h) + alpha h0, h' = relu((1 - theta) a + theta a W).

    theta = log(lambda / l + 1), h0 are the rows after the input map and a ReLU: layers hand on (h, h0). Chen et al.
    2020, eq. 5; A_hat as `aggregate(..., "gcn")` has it. Glorot weights. Rows as read are not dropped.

    Args:
        in_channels: of the rows of the first layer, else the hidden width.
        out_channels: of the last layer, else the hidden width.
        number: l, from 1.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, *, number: int, dropout: float, last: bool
    ) -> None:
        super().__init__()
        self.lin_in = nn.Linear(in_channels, hidden_channels) if number == 1 else None
        self.weight = nn.Parameter(torch.empty(hidden_channels, hidden_channels))
        self.lin_out = nn.Linear(hidden_channels, out_channels) if last else None
        self.theta, self.dropout = math.log(LAMBDA / number + 1), dropout
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        for lin in (self.lin_in, self.lin_out):
            if lin is not None:
                lin.reset_parameters()

    def forward(self, h: Rows, block: Block) -> Rows:
        if self.lin_in is not None:
            assert isinstance(h, Tensor)
            first = functional.relu(self.lin_in(h))
            h = (first, first)
        rows, initial = h
        initial = initial[: block.num_dst]
        a = (1 - ALPHA) * aggregate(block, self._dropped(rows), "gcn") + ALPHA * initial
        out = functional.relu(torch.addmm(a, a, self.weight, beta=1 - self.theta, alpha=self.theta))
        return (out, initial) if self.lin_out is None else self.lin_out(self._dropped(out))

    def _dropped(self, h: Tensor) -> Tensor:
        return functional.dropout(h, self.dropout, self.training)


class ResGcnLayer(nn.Module):
    """A residual layer of DeepGCN, normalised before: h' = h + A_hat dropout(relu(norm(h))) W + b.

    Li et al. 2019 and 2020 ("res+"), with layer norm: batch norm would differ from chunk to chunk. The last layer ends
    in norm, ReLU, dropout and the output map.

    Args:
        in_channels: of the rows of the first layer, else the hidden width.
        out_channels: of the last layer, else the hidden width.
        number: from 1.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, *, number: int, dropout: float, last: bool
    ) -> None:
        super().__init__()
        self.lin_in = nn.Linear(in_channels, hidden_channels) if number == 1 else None
        self.norm = nn.LayerNorm(hidden_channels)
        self.lin = nn.Linear(hidden_channels, hidden_channels)
        self.norm_out = nn.LayerNorm(hidden_channels) if last else None
        self.lin_out = nn.Linear(hidden_channels, out_channels) if last else None
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in (self.lin_in, self.norm, self.lin, self.norm_out, self.lin_out):
            if module is not None:
                module.reset_parameters()

    def forward(self, h: Tensor, block: Block) -> Tensor:
        if self.lin_in is not None:
            h = self.lin_in(h)
        out = h[: block.num_dst] + self.lin(aggregate(block, self._activated(h, self.norm), "gcn"))
        if self.norm_out is None or self.lin_out is None:
            return out
        mapped: Tensor = self.lin_out(self._activated(out, self.norm_out))
        return mapped

    def _activated(self, h: Tensor, norm: nn.LayerNorm) -> Tensor:
        return functional.dropout(functional.relu(norm(h)), self.dropout, self.training)
