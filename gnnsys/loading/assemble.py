"""Turn a sampled batch and its rows into a Batch: one CSR, blocks as prefix views, every array 64-byte aligned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnnsys.batch import Batch, Block
from gnnsys.storage.blob import PoolBatch

ALIGNMENT = 64
"""A cache line, and the widest vector register."""


def assemble(
    drawn: PoolBatch, x: Tensor | dict[str, Tensor] | None, edge_ids: np.ndarray | None, *, pool_index: int
) -> Batch:
    """The Batch of `drawn`; its tensors share no memory with it unless aligned already."""
    n_id, degree = _tensor(drawn.ids), _tensor(drawn.degree)
    e_id = None if edge_ids is None else _tensor(edge_ids)
    return Batch(
        seeds=n_id[: int(drawn.num_nodes[0])],
        n_id=n_id,
        num_nodes=tuple(drawn.num_nodes.tolist()),
        blocks=_blocks(drawn, degree, e_id),
        degree=degree,
        x=x,
        y=None if drawn.labels is None else _tensor(drawn.labels),
        pool_index=pool_index,
        index=drawn.index,
        pairs=None if drawn.pairs is None else _tensor(drawn.pairs),
        pair_label=None if drawn.pair_label is None else _tensor(drawn.pair_label),
        t=None if drawn.t is None else _tensor(drawn.t),
    )


def _blocks(drawn: PoolBatch, degree: Tensor, e_id: Tensor | None) -> tuple[Block, ...]:
    """One block per hop, outermost first: destinations are the nodes within h - 1 hops, sources those within h."""
    indptr, indices = _tensor(drawn.indptr), _tensor(drawn.indices)
    sizes = drawn.num_nodes.tolist()
    edges = [int(drawn.indptr[size]) for size in sizes[:-1]]
    return tuple(
        Block(
            indptr=indptr[: sizes[h - 1] + 1],
            indices=indices[: edges[h - 1]],
            degree=degree[: sizes[h]],
            e_id=None if e_id is None else e_id[: edges[h - 1]],
        )
        for h in range(drawn.hops, 0, -1)
    )


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor of the array: over the same memory when that is aligned and writable, else over a copy."""
    if array.ctypes.data % ALIGNMENT == 0 and array.flags.writeable and array.flags.c_contiguous:
        return torch.from_numpy(array)
    tensor = torch.empty(array.shape, dtype=torch.from_numpy(array[:0]).dtype)
    tensor.numpy()[...] = array
    return tensor


def batch_bytes(seeds: int, nodes: int, edges: int, row_bytes: int, edge_bytes: int, label_bytes: int) -> int:
    """Upper bound of the memory of a Batch of that size: rows, ids, degrees, one CSR, labels of the seeds."""
    return nodes * (row_bytes + 8 + 4 + 4) + (edge_bytes + 4) * edges + label_bytes * seeds + 4096
