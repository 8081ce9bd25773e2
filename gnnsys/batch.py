"""Block and Batch: everything one training step needs, as plain tensors.

Nodes of a batch are numbered seeds first, then ring by ring, so all sampled edges form one CSR by destination and
the block of every layer is a prefix view of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dgl import DGLGraph
    from torch_geometric.data import Data

_T = TypeVar("_T")


def _map_tensors(value: _T, move: Callable[[Tensor], Tensor]) -> _T:
    """`value` with `move` applied to every tensor in its fields, lists, tuples and dicts."""
    out: Any = value
    if isinstance(value, Tensor):
        out = move(value)
    elif isinstance(value, Block | Batch):
        out = replace(value, **{f.name: _map_tensors(getattr(value, f.name), move) for f in fields(value)})
    elif isinstance(value, tuple):
        out = tuple(_map_tensors(v, move) for v in value)
    elif isinstance(value, dict):
        out = {k: _map_tensors(v, move) for k, v in value.items()}
    return out


@dataclass(frozen=True, kw_only=True)
class Block:
    """Sampled in-edges as CSR by destination; the destinations are the first `num_dst` sources.

    Shapes: S sources, D destinations, E edges.
    """

    indptr: Tensor
    """(D + 1,) int32; edges of destination v are `indptr[v] : indptr[v + 1]`."""
    indices: Tensor
    """(E,) int32; position of the source of every edge, in [0, S)."""
    degree: Tensor
    """(S,) int32; in-degree of every source in the whole graph."""
    e_id: Tensor | None = None
    """(E,) int64; position of every edge in the Store's topology."""
    etype: Tensor | None = None
    """(E,) int32; type of every edge when the graph has several."""

    @property
    def num_src(self) -> int:
        return len(self.degree)

    @property
    def num_dst(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    def dst_index(self) -> Tensor:
        """(E,) int64: the destination of every edge."""
        counts = torch.diff(self.indptr).to(torch.int64)
        return torch.repeat_interleave(torch.arange(self.num_dst, device=counts.device), counts)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Block:
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One mini-batch: seeds, the nodes around them, their rows and labels.

    Shapes: B seeds, N nodes, L hops, F feature columns, P pairs. `x` and `y` are None when the loader was told not
    to read them.
    """

    seeds: Tensor
    """(B,) int64 unique global node ids."""
    n_id: Tensor
    """(N,) int64 global ids; the first B are the seeds, then ring by ring."""
    num_nodes: tuple[int, ...]
    """L + 1 cumulative counts: `num_nodes[h]` nodes lie within h hops of the seeds."""
    blocks: tuple[Block, ...]
    """One block per hop, outermost first: `blocks[0]` reads `x`, `blocks[-1]` ends at the seeds."""
    degree: Tensor
    """(N,) int32 in-degree of every node in the whole graph, edges hidden from the sampler not counted."""
    x: Tensor | dict[str, Tensor] | None = None
    """(N, F) rows as stored, or one tensor per table name."""
    y: Tensor | None = None
    """(B,) int64 labels of the seeds, -1 where unlabelled."""
    pool_index: int = 0
    index: int = 0
    """Number of this batch in its pool."""
    pairs: Tensor | None = None
    """(P, 2) int64 positions in `seeds`: source and destination of every pair to score."""
    pair_label: Tensor | None = None
    """(P,) float32: 1 for an edge of the graph, 0 for a negative."""
    overlap: Block | None = None
    """Common neighbours, with pairs as destinations."""
    e_id: Tensor | None = None
    t: Tensor | None = None
    """Event times of the pairs, int64."""
    etype: Tensor | None = None
    io: Mapping[str, float] = field(default_factory=dict)
    """What it cost to make this batch: `bytes_read` and seconds per stage."""

    @cached_property
    def edge_index(self) -> Tensor:
        """(2, E) int64, source above destination: what PyG convolutions take."""
        if not self.blocks:
            return torch.empty((2, 0), dtype=torch.int64, device=self.seeds.device)
        outermost = self.blocks[0]
        return torch.stack([outermost.indices.to(torch.int64), outermost.dst_index()])

    @property
    def batch_size(self) -> int:
        return len(self.seeds)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return _map_tensors(self, lambda t: t.pin_memory())

    def to_pyg(self) -> Data:
        """The same batch as `torch_geometric.data.Data`."""
        from gnnsys.interop.pyg import batch_to_pyg

        return batch_to_pyg(self)

    def to_dgl(self) -> list[DGLGraph]:
        """One `dgl` block per hop, outermost first."""
        from gnnsys.interop.dgl import batch_to_dgl

        return batch_to_dgl(self)
