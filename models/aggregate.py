"""Message passing: the one door through which our layers see a graph.

What a block is decides how it is done. A sampled CSR block is one weighted sum of rows per destination; other kinds
of block register themselves where they are defined, with `aggregate.register`, and no layer changes.

Why `embedding_bag` (it reads rows in place, and adds the rows of one destination in edge order, so bits depend on
nothing but the edges). 2 threads, AVX-512, float32, milliseconds forward / forward + backward:

    120 k destinations, 400 k sources, 650 k edges        128 columns      256 columns
    embedding_bag, weighted sum                             30 / 180         64 / 306
    the same, backward through a transposed CSR             30 / 115         64 / 221
    sparse CSR product (MKL)                               100 / 199         99 / 368
    torch.sparse.mm, reduce="mean"                          43 / 138         95 / 267
    rows gathered, then index_add                          357 / 663        390 / 2037   (backward not repeatable)
    rows gathered, then segment_reduce                     409 / 947        842 / 2398   (backward not repeatable)
    15 k destinations, 120 k sources, 165 k edges         (the largest block that has a backward: rows need no gradient)
    embedding_bag, weighted sum                              2 / 35           6 / 59
    the same, backward through a transposed CSR              3 / 25           7 / 46
    sparse CSR product (MKL)                                 4 / 50          10 / 96

A backward of our own (sort the edges by source, run the forward on the transpose) saves 13 ms of a step of half a
second: not kept. The maximum takes 125 / 268 in the last column; `torch.sparse.mm` does it faster, but sparse CSR
tensors warn on first use and its `reduce` is for the CPU only. Repeats of the smaller block varied up to fourfold on
a busy machine; the figures are from its quietest pass.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gnnsys.batch import Block, FoldedBlock
from gnnsys.errors import ConfigError

How = Literal["sum", "mean", "max", "gcn"]


@singledispatch
def aggregate(block: object, h: Tensor, how: How) -> Tensor:
    """What every destination of `block` receives from its sources.

    S sources, D destinations (the first D sources), F columns; s_v counts the edges of v in the block and d is the
    in-degree in the whole graph.

        sum    sum over edges u -> v of h_u
        mean   the same divided by s_v; 0 without edges
        max    greatest value per column; 0 without edges
        gcn    h_v / (d_v + 1) + sum over u -> v of (d_v / s_v) h_u / sqrt((d_u + 1) (d_v + 1))

    Parallel edges count as often as they occur. `gcn` is an unbiased estimate from uniformly sampled edges of Kipf and
    Welling 2017, eq. 2, and equal to it when the block has every edge. A self loop in the data is one more edge.

    Args:
        block: a `Block`, or any type registered with `aggregate.register`.
        h: (S, F) floating point, on the device of the block; short floats are summed in float32.
        how: one of the above.

    Returns:
        (D, F) in the dtype of `h`; equal inputs give equal bits on the CPU, forward and backward.
    """
    raise TypeError(f"{type(block).__name__} is not a block: register how it aggregates with aggregate.register")


@aggregate.register
def _aggregate_csr(block: Block, h: Tensor, how: How) -> Tensor:
    if h.dtype in (torch.float16, torch.bfloat16):  # sums are made in float32, also under autocast
        return _aggregate_csr(block, h.float(), how).to(h.dtype)
    if how == "max":
        return functional.embedding_bag(block.indices, h, block.indptr, mode="max", include_last_offset=True)
    weight, own = block.linear_weights(how, h.dtype)
    out = functional.embedding_bag(
        block.indices, h, block.indptr, mode="sum", per_sample_weights=weight, include_last_offset=True
    )
    return out if own is None else out.addcmul_(h[: block.num_dst], own.unsqueeze(1))


@aggregate.register
def _aggregate_folded(block: FoldedBlock, h: Tensor, how: How) -> Tensor:
    """The stored aggregate, of the rows that the pack was made from and of nothing else."""
    if how != block.how:
        raise ConfigError(
            "GS-CFG-607",
            f"the pack was pre-aggregated with {block.how!r}, the first layer asks for {how!r}",
            hint="Pack again for this model, or load this pack with rows='direct'.",
        )
    if block.rows is not None and h is not block.rows:
        raise ConfigError(
            "GS-CFG-607",
            "the first layer changes its rows before it aggregates them (dropout, a linear map): a pre-aggregated pack "
            "cannot know the result",
            hint="Aggregate first, or load this pack with rows='direct'.",
        )
    return block.sums.to(h.dtype, copy=True)  # the caller's own, as from every block
