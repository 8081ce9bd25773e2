"""Layers around layers that hand on what earlier ones gave: residual connections and jumping knowledge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gnnsys.batch import Block

JUMPS = ("last", "cat", "max", "lstm")
"""How jumping knowledge joins what all layers gave; PyG's words."""


class ResidualLayer(nn.Module):
    """h' = layer(h) + h, activation and dropout of the layer included: He et al. 2016, for layers of equal widths."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.reads_neighbours = getattr(layer, "reads_neighbours", True)
        self.only_aggregates = getattr(layer, "only_aggregates", False)
        how = getattr(layer, "aggregates_input", None)
        self.aggregates_input = None if how == "gcn" else how  # own rows are read beside it

    def reset_parameters(self) -> None:
        _reset(self.layer)

    def forward(self, h: Tensor, block: Block) -> Tensor:
        out: Tensor = self.layer(h, block)
        return out + h[: block.num_dst]


class JumpLayer(nn.Module):
    """Layer l of a jumping-knowledge network: hands on its rows and what the join needs of those before it.

    All layers have the hidden width and an activation; the last one joins what all gave and maps it to the output.
    Layers hand on (x_l, x_(l-1) ... x_1); `max` hands on (x_l, greatest so far), `last` x_l alone. Xu et al.
    2018, as `JumpingKnowledge` and `BasicGNN` of PyG have them.

    Args:
        layer: gives `hidden_channels` columns.
        number: l, from 1, of `num_layers`.
        mode: one of `JUMPS`.
    """

    def __init__(
        self, layer: nn.Module, *, number: int, num_layers: int, mode: str, hidden_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        self.layer, self.mode, self.number = layer, mode, number
        last = number == num_layers
        joined = hidden_channels * (num_layers if mode == "cat" else 1)
        self.lin = nn.Linear(joined, out_channels) if last else None
        self.lstm = self.att = None
        if last and mode == "lstm":
            half = num_layers * hidden_channels // 2
            self.lstm = nn.LSTM(hidden_channels, half, bidirectional=True, batch_first=True)
            self.att = nn.Linear(2 * half, 1, bias=False)  # the softmax would cancel a bias
        self.reads_neighbours = getattr(layer, "reads_neighbours", True)
        # Of several tensors a streamed neighbourhood would be summed as one.
        alone = number == 1 or mode == "last"
        self.only_aggregates = alone and getattr(layer, "only_aggregates", False)
        self.aggregates_input = getattr(layer, "aggregates_input", None) if number == 1 else None

    def reset_parameters(self) -> None:
        _reset(self.layer)
        for module in (self.lin, self.lstm, self.att):
            if module is not None:
                module.reset_parameters()

    def forward(self, h: Any, block: Block) -> Any:
        rows, *before = h if isinstance(h, tuple) else (h,)
        out = self.layer(rows, block)
        kept = [tensor[: block.num_dst] for tensor in ([] if self.number == 1 else [rows, *before])]
        if self.mode == "last":
            kept = []
        elif self.mode == "max" and kept:
            kept = [torch.maximum(kept[0], kept[-1])]
        if self.lin is None:
            return (out, *kept) if kept else out
        return self.lin(self._joined(out, kept))

    def _joined(self, out: Tensor, kept: list[Tensor]) -> Tensor:
        """(D, joined) of the last rows and those kept, which have the newest first."""
        if self.mode == "last":
            return out
        if self.mode == "max":
            return torch.maximum(out, kept[0]) if kept else out
        in_order = [*reversed(kept), out]
        if self.lstm is None or self.att is None:
            return torch.cat(in_order, dim=1)
        stacked = torch.stack(in_order, dim=1)
        weights = self.att(self.lstm(stacked)[0]).softmax(dim=1)
        return (stacked * weights).sum(dim=1)


def _reset(layer: Any) -> None:
    layer.reset_parameters()
