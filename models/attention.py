"""Layers that weigh every edge by attention: GAT and GATv2 on the CSR of a block.

Scores are softmaxed over the edges of a destination, rows are summed by them in one weighted product per layer: of
GAT nothing as wide as a row is made per edge, GATv2 needs the rows of both ends to score an edge. Every sum goes
through `embedding` and `embedding_bag`, whose gradients are repeatable on a CPU; those of indexing and `index_add` are
not.

As in PyG, a self loop of the data is left out and every destination gets one of its own. Both map rows before they
weigh them, so no pre-aggregated pack can serve them, and chunks of a whole graph, which have no edges to score, refuse
them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gnnsys.batch import Block
from gnnsys.errors import ConfigError

HEADS = 8
"""Of Velickovic et al. 2018."""
NEGATIVE_SLOPE = 0.2


class _Attention(nn.Module):
    """What both share: h'_v = sum over u -> v and v itself of alpha_uv W h_u + b, alpha_uv = softmax_u of a score.

    Heads are put side by side in hidden layers, which end in an ELU, and averaged in the last one. Dropout acts on the
    rows that a layer reads and on alpha. Glorot weights.

    Args:
        in_channels: F of the rows (S, F) that it reads.
        out_channels: of what it gives (D, F').
        heads: H; divides the width of a hidden layer.
        last: average the heads, no activation.

    Raises:
        ConfigError: heads do not divide `out_channels`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dropout: float = 0.0, last: bool = False, heads: int = HEADS
    ) -> None:
        super().__init__()
        if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
            raise ConfigError("GS-CFG-854", f"heads is {heads!r}; it must be a whole number of at least 1")
        if not last and out_channels % heads:
            raise ConfigError(
                "GS-CFG-851",
                f"{heads} heads do not divide {out_channels} hidden channels",
                hint=f"Use --hidden {heads * (out_channels // heads + 1)}, or other --heads.",
            )
        self.heads, self.width = heads, out_channels if last else out_channels // heads
        self.dropout, self.last = dropout, last
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    def forward(self, h: Tensor, block: Block) -> Tensor:
        edges = _with_self_loops(block)
        rows, scores = self._rows_and_scores(self._dropped(h), edges)
        alpha = self._dropped(edge_softmax(scores, edges.indptr))
        out = weighted_sum(edges, rows.view(-1, self.heads, self.width), alpha)
        out = out.mean(dim=1) if self.last else out.flatten(1)
        return out + self.bias if self.last else functional.elu(out + self.bias, inplace=True)

    def _rows_and_scores(self, h: Tensor, edges: Block) -> tuple[Tensor, Tensor]:
        """(S, H * C) rows to sum and (E, H) scores, both as exact as the parameters."""
        raise NotImplementedError

    def _dropped(self, h: Tensor) -> Tensor:
        return functional.dropout(h, self.dropout, self.training)


class GatLayer(_Attention):
    """score_uv = leaky_relu(a_src . W h_u + a_dst . W h_v), as in Velickovic et al. 2018, eq. 3."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, **options)
        self.lin = nn.Linear(in_channels, self.heads * self.width, bias=False)
        self.att_src = nn.Parameter(torch.empty(self.heads, self.width))
        self.att_dst = nn.Parameter(torch.empty(self.heads, self.width))
        self.reset_parameters()

    @property
    def edge_bytes(self) -> int:
        """Of an edge: scores, weights and their places, and the mapped row of its source."""
        return 40 * self.heads + 4 * self.heads * self.width

    def _rows_and_scores(self, h: Tensor, edges: Block) -> tuple[Tensor, Tensor]:
        rows = self.lin(h).to(self.bias.dtype)
        by_head = rows.view(-1, self.heads, self.width)
        from_ = functional.embedding(edges.indices, (by_head * self.att_src).sum(-1))
        to = functional.embedding(edges.dst_index(), (by_head[: edges.num_dst] * self.att_dst).sum(-1))
        return rows, functional.leaky_relu(from_ + to, NEGATIVE_SLOPE)


class Gatv2Layer(_Attention):
    """score_uv = a . leaky_relu(W_src h_u + b_src + W_dst h_v + b_dst), summing W_src h_u + b_src: Brody et al. 2022,
    eq. 7."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, **options)
        self.lin_src = nn.Linear(in_channels, self.heads * self.width)
        self.lin_dst = nn.Linear(in_channels, self.heads * self.width)
        self.att = nn.Parameter(torch.empty(self.heads, self.width))
        self.reset_parameters()

    @property
    def edge_bytes(self) -> int:
        """As of `GatLayer`, and the rows of both ends with two products of them."""
        return 40 * self.heads + 20 * self.heads * self.width

    def _rows_and_scores(self, h: Tensor, edges: Block) -> tuple[Tensor, Tensor]:
        rows = self.lin_src(h).to(self.bias.dtype)
        to = self.lin_dst(h[: edges.num_dst]).to(self.bias.dtype)
        both = functional.embedding(edges.indices, rows) + functional.embedding(edges.dst_index(), to)
        both = functional.leaky_relu(both, NEGATIVE_SLOPE, inplace=True).view(-1, self.heads, self.width)
        return rows, (both * self.att).sum(-1)


def edge_softmax(scores: Tensor, indptr: Tensor) -> Tensor:
    """(E, H): `scores` (E, H) exponentiated and divided by their sum over the edges of the same destination.

    Args:
        indptr: (D + 1,) int32; edges of destination v are `indptr[v] : indptr[v + 1]`.
    """
    out: Tensor = _EdgeSoftmax.apply(scores, indptr)
    return out


def weighted_sum(block: Block, rows: Tensor, weights: Tensor) -> Tensor:
    """(D, H, C): for every head the sum over the edges of a destination of `rows` (S, H, C) times `weights` (E, H).

    One bag per destination and head: the edges of a destination are listed once for every head.
    """
    num_src, heads, width = rows.shape
    if heads == 1:
        bags, places, per_place = block.indptr, block.indices, weights.flatten()
    else:
        counts = torch.diff(block.indptr)
        bags = functional.pad(torch.repeat_interleave(counts, heads).cumsum(0, dtype=torch.int32), (1, 0))
        head = torch.arange(heads, device=rows.device, dtype=torch.int32).repeat(block.num_dst)
        head_of = torch.repeat_interleave(head, counts.repeat_interleave(heads), output_size=weights.numel())
        # Place k of bag (v, head) is edge indptr[v] + (k - start of the bag).
        shift = block.indptr[:-1].repeat_interleave(heads) - bags[:-1]
        edge = torch.arange(weights.numel(), device=rows.device, dtype=torch.int32)
        edge += torch.repeat_interleave(shift, torch.diff(bags), output_size=weights.numel())
        places = block.indices[edge] * heads + head_of
        per_place = functional.embedding(edge * heads + head_of, weights.reshape(-1, 1)).flatten()
    out = functional.embedding_bag(
        places,
        rows.reshape(num_src * heads, width),
        bags,
        mode="sum",
        per_sample_weights=per_place,
        include_last_offset=True,
    )
    return out.view(-1, heads, width)


class _EdgeSoftmax(torch.autograd.Function):
    """Every sum in the order of the edges, so that bits depend on nothing else."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, indptr: Tensor) -> Tensor:
        ctx.indptr = indptr
        out = (scores - _spread(_bags(scores, indptr, "max"), indptr, len(scores))).exp_()
        out /= _spread(_bags(out, indptr, "sum"), indptr, len(out))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (alpha,) = ctx.saved_tensors
        asked = alpha * grad
        return asked.sub_(alpha * _spread(_bags(asked, ctx.indptr, "sum"), ctx.indptr, len(alpha))), None


def _bags(values: Tensor, indptr: Tensor, mode: str) -> Tensor:
    """(D, H): sum or maximum of `values` (E, H) per destination."""
    every = torch.arange(len(values), device=values.device, dtype=indptr.dtype)
    return functional.embedding_bag(every, values, indptr, mode=mode, include_last_offset=True)


def _spread(values: Tensor, indptr: Tensor, num_edges: int) -> Tensor:
    """(E, H): for every edge the row of `values` (D, H) of its destination."""
    return torch.repeat_interleave(values, torch.diff(indptr), dim=0, output_size=num_edges)


def _with_self_loops(block: Block) -> Block:
    """The block with exactly one edge from every destination to itself, the first of its edges."""
    dst = block.dst_index()
    others = block.indices != dst
    dst, src = dst[others], block.indices[others]
    begin = functional.pad(torch.bincount(dst, minlength=block.num_dst).cumsum(0), (1, 0))
    own = torch.arange(block.num_dst + 1, device=dst.device)
    indices = torch.empty(len(src) + block.num_dst, dtype=src.dtype, device=src.device)
    indices[torch.arange(len(src), device=dst.device) + dst + 1] = src
    indices[(begin + own)[:-1]] = own[:-1].to(src.dtype)
    return Block(indptr=(begin + own).to(block.indptr.dtype), indices=indices, degree=block.degree)
