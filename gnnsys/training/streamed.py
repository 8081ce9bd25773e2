"""Streamed block: the neighbourhood of a destination that is too large to hold, aggregated piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnsys.batch import Block
from gnnsys.models.aggregate import How, aggregate


@dataclass(frozen=True, kw_only=True)
class StreamedBlock:
    """A block whose source rows come one piece after another. A layer sees its destinations' rows alone as `h`, and
    may use nothing but `aggregate` and `num_dst`."""

    num_dst: int
    num_edges: int
    pieces: Callable[[], Iterator[tuple[Block, Tensor]]]
    """Anew at every call: blocks with the same destinations, and the rows of their sources."""


@aggregate.register
def _aggregate_streamed(block: StreamedBlock, _h: Tensor, how: How) -> Tensor:
    """A mean over all edges is the mean of the pieces' means, weighted by their edges. So is `gcn`: a piece takes
    its edges for a sample of the degree d and scales them up by d over their number."""
    out: Tensor | None = None
    for piece, rows in block.pieces():
        part = aggregate(piece, rows, how)
        if how in ("mean", "gcn"):
            part.mul_(piece.num_edges / block.num_edges)
        del piece, rows  # or they would be held while the next piece is read
        out = part if out is None else _joined(out, part, how)
    assert out is not None
    return out


def _joined(out: Tensor, part: Tensor, how: How) -> Tensor:
    return torch.maximum(out, part) if how == "max" else out.add_(part)
