"""Chunks of a whole graph: vertex ranges that pass through the stages one after another and read each other's rows.

A chunk's nodes receive from neighbours in any chunk. Rows of chunks that came before in this epoch are fresh, rows of
those still to come are the ones kept from an earlier epoch (`history`). Backwards, chunks come in reverse, so a
gradient runs along an edge exactly when the row that it was read from was fresh: what a destination asks of its sources
is kept beside the rows, and a source adds up what is there when its turn comes.

Both directions are one product with some rows of the adjacency matrix, or of its transpose. Source: Chen et al. 2023
(GNNPipe).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gnnsys.errors import ConfigError
from gnnsys.pipeline.history import KeptRows
from gnnsys.pipeline.kernels import renumber, transpose


@dataclass(frozen=True)
class Edges:
    """Edges of the nodes of a chunk, as CSR: one list per node of it, of nodes of the whole graph."""

    indptr: Tensor
    """(D + 1,) int32."""
    indices: Tensor
    """(E,) int32; places in the whole graph."""

    def sum_rows(self, rows: Tensor, own: Tensor | None, other: Tensor | None) -> Tensor:
        """(D, F): for every node the sum over its list of rows (N, F), each times the factor `own` (D,) of the node and
        `other` (N,) of the row; None counts as ones."""
        weights = None if own is None else torch.repeat_interleave(own, torch.diff(self.indptr))
        if other is not None:
            weights = other[self.indices] if weights is None else weights * other[self.indices]
        return functional.embedding_bag(
            self.indices, rows, self.indptr, mode="sum", per_sample_weights=weights, include_last_offset=True
        )


@dataclass(frozen=True)
class Factors:
    """A linear aggregation as `to[v] * from_[u]` for an edge u -> v and `own[v]` for a node's own row; None counts as
    ones, as zeros for `own`."""

    to: Tensor | None
    from_: Tensor | None
    own: Tensor | None


class ChunkGraph:
    """A graph held whole, its nodes renumbered so that a chunk is a range of places.

    Args:
        indptr, indices: (N + 1,), (E,) integers; in-edges by destination, as in a Store.
        order: (N,) int64; node of every place, chunk by chunk.
        bounds: (K + 1,) int64; chunk c has the places `bounds[c] : bounds[c + 1]`.
        device: where its tensors are put.
    """

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        order: np.ndarray,
        bounds: np.ndarray,
        device: torch.device | str = "cpu",
    ) -> None:
        self.order, self.bounds = order, [int(bound) for bound in bounds]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        into = renumber(indptr, indices, order, place)
        self._into = self._split(*into, device)
        self._out_of = self._split(*transpose(*into), device)
        self._degree = torch.from_numpy(np.diff(into[0]).astype(np.int32)).to(device)
        self._known_factors: dict[tuple[str, torch.dtype], Factors] = {}

    @property
    def num_nodes(self) -> int:
        return len(self.order)

    @property
    def num_chunks(self) -> int:
        return len(self._into)

    def nodes(self, chunk: int) -> np.ndarray:
        """(D,) int64: the nodes of a chunk under the numbers that they had."""
        return self.order[self.bounds[chunk] : self.bounds[chunk + 1]]

    def degree(self, chunk: int) -> Tensor:
        """(D,) int32 in-degree."""
        return self._degree[self.bounds[chunk] : self.bounds[chunk + 1]]

    def num_edges(self, chunk: int) -> int:
        """Of the direction with more."""
        return max(len(self.into(chunk).indices), len(self.out_of(chunk).indices))

    def into(self, chunk: int) -> Edges:
        """In-edges of a chunk: for every node its sources."""
        return self._into[chunk]

    def out_of(self, chunk: int) -> Edges:
        """Out-edges of a chunk: for every node its destinations."""
        return self._out_of[chunk]

    def _split(self, indptr: np.ndarray, indices: np.ndarray, device: torch.device | str) -> list[Edges]:
        whole = torch.from_numpy(indices).to(device)
        edges = []
        for begin, end in zip(self.bounds, self.bounds[1:], strict=False):
            own = indptr[begin : end + 1]
            starts = torch.from_numpy((own - own[0]).astype(np.int32)).to(device)
            edges.append(Edges(starts, whole[own[0] : own[-1]]))
        return edges

    def factors(self, how: str, dtype: torch.dtype) -> Factors:
        """How a linear aggregation weighs rows.

        Raises:
            ConfigError: `how` is not linear.
        """
        if (how, dtype) not in self._known_factors:
            self._known_factors[how, dtype] = self._factors(how, dtype)
        return self._known_factors[how, dtype]

    def _factors(self, how: str, dtype: torch.dtype) -> Factors:
        if how == "sum":
            return Factors(None, None, None)
        if how == "mean":
            return Factors(self._degree.clamp(min=1).to(dtype).reciprocal(), None, None)
        if how == "gcn":
            scale = (self._degree.to(dtype) + 1).rsqrt()
            return Factors(scale, scale, scale.square())
        raise ConfigError(
            "GS-CFG-830",
            f"the aggregation {how!r} is not linear: chunks cannot send its gradient back",
            hint="Use sum, mean or gcn, or train on sampled batches.",
        )


_OF_EDGES = {"indices", "indptr", "dst_index", "e_id", "etype", "linear_weights"}


@dataclass
class ChunkBlock:
    """A chunk as one layer sees it: sources and destinations are the nodes of the chunk, rows of other chunks are in
    `kept`. A layer may use `num_dst` and the door `aggregate`, nothing else of it.

    Use a new one for every pass through the layer: it counts how often the layer aggregates.
    """

    graph: ChunkGraph
    chunk: int
    kept: KeptRows | None = None
    sums: list[Tensor] | None = None
    """Filled with what every aggregation gave; where it is filled already, they are given again and nothing is
    written: a layer can be run twice."""
    _calls: int = field(default=0, init=False)

    @property
    def num_dst(self) -> int:
        return self.graph.bounds[self.chunk + 1] - self.graph.bounds[self.chunk]

    @property
    def num_src(self) -> int:
        return self.num_dst

    @property
    def num_edges(self) -> int:
        return len(self.graph.into(self.chunk).indices)

    @property
    def degree(self) -> Tensor:
        return self.graph.degree(self.chunk)

    def to(self, _device: torch.device | str, *, non_blocking: bool = False) -> ChunkBlock:
        """Itself: the graph is where it was put."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name in _OF_EDGES:
            raise ConfigError(
                "GS-CFG-830",
                f"chunks have no {name!r}: a layer reaches the neighbours in other chunks through gnnsys.aggregate",
                hint="Attention and messages per edge need sampled batches.",
            )
        raise AttributeError(name)

    def aggregate(self, h: Tensor, how: str) -> Tensor:
        """(D, F) what the nodes of the chunk receive, as `gnnsys.aggregate` defines it on the whole graph, from the
        rows h (D, F) of the chunk and what is kept of others.

        Raises:
            ConfigError: `how` is not linear.
        """
        if h.dtype in (torch.float16, torch.bfloat16):
            return self.aggregate(h.float(), how).to(h.dtype)
        call, self._calls = self._calls, self._calls + 1
        out: Tensor = _Exchange.apply(h, self, call, how)
        return out


class _Exchange(torch.autograd.Function):
    """Forward: put the chunk's rows among those kept, and add up what its nodes receive. Backward: put what they ask
    for among that of others, and add up what is asked of them."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, block: ChunkBlock, call: int, how: str) -> Tensor:
        graph, chunk, kept = block.graph, block.chunk, block.kept
        assert kept is not None
        ctx.place = graph, chunk, kept, call
        ctx.factors = factors = graph.factors(how, h.dtype)
        if block.sums is not None and call < len(block.sums):
            return block.sums[call].clone()
        span = slice(graph.bounds[chunk], graph.bounds[chunk + 1])
        rows = kept.write(call, span, h, learns=ctx.needs_input_grad[0])
        to = None if factors.to is None else factors.to[span]
        out = graph.into(chunk).sum_rows(rows, to, factors.from_)
        if factors.own is not None:
            out.addcmul_(h, factors.own[span].unsqueeze(1))
        if block.sums is not None:
            block.sums.append(out.clone())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        graph, chunk, kept, call = ctx.place
        factors = ctx.factors
        span = slice(graph.bounds[chunk], graph.bounds[chunk + 1])
        asked = kept.write_gradient(call, span, grad)
        from_ = None if factors.from_ is None else factors.from_[span]
        out = graph.out_of(chunk).sum_rows(asked, from_, factors.to)
        if factors.own is not None:
            out.addcmul_(grad, factors.own[span].unsqueeze(1))
        kept.compensate(call, span)
        return out, None, None, None
