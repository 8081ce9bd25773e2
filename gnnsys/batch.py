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

from gnnsys.errors import ConfigError

if TYPE_CHECKING:
    from dgl import DGLGraph
    from torch_geometric.data import Data

_T = TypeVar("_T")


def _map_tensors(value: _T, move: Callable[[Tensor], Tensor]) -> _T:
    """`value` with `move` applied to every tensor in its fields, lists, tuples and dicts."""
    out: Any = value
    if isinstance(value, Tensor):
        out = move(value)
    elif isinstance(value, Block | FoldedBlock | Batch):
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

    def __repr__(self) -> str:
        return f"Block({self.num_src} -> {self.num_dst} nodes, {self.num_edges} edges, device={self.indices.device})"

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

    def linear_weights(self, how: str, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """What rows count in a linear aggregation: of every edge (E,), None for 1, and of every destination's own row
        (D,), None for 0. The formulas are those of `gnnsys.aggregate`.

        Raises:
            ValueError: `how` is not one of `sum`, `mean`, `gcn`.
        """
        if how == "sum":
            return None, None
        counts = torch.diff(self.indptr)
        if how == "mean":
            return self._per_edge(counts.clamp(min=1).to(dtype).reciprocal(), counts), None
        if how == "gcn":
            scale = (self.degree.to(dtype) + 1).rsqrt()
            own = scale[: self.num_dst]
            seen = self.degree[: self.num_dst].to(dtype) / counts.clamp(min=1)
            return self._per_edge(own * seen, counts) * scale[self.indices], own.square()
        raise ValueError(f"how is {how!r}, expected sum, mean or gcn")

    def _per_edge(self, value: Tensor, counts: Tensor) -> Tensor:
        """(E,): the value (D,) of the destination of every edge."""
        return torch.repeat_interleave(value, counts, output_size=self.num_edges)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Block:
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, kw_only=True)
class FoldedBlock:
    """The outermost block of a pre-aggregated pack: what every destination receives, computed when it was packed.

    Shapes: D destinations, F columns. Its sources were left behind: `num_src` is D too.
    """

    sums: Tensor
    """(D, F) the aggregate of every destination: float32, or bfloat16 (a mean also float16) where the table is."""
    how: str
    """`sum`, `mean` or `gcn`, as in `gnnsys.aggregate`."""
    degree: Tensor
    """(D,) int32; in-degree of every destination in the whole graph."""
    num_edges: int
    """Edges that were folded into it."""
    rows: Tensor | None = None
    """The rows that a layer is given beside it, when known: of others it cannot tell the aggregate."""

    @property
    def num_src(self) -> int:
        return self.num_dst

    @property
    def num_dst(self) -> int:
        return len(self.degree)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FoldedBlock:
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One mini-batch: seeds, the nodes around them, their rows and labels.

    Shapes: B seeds, N nodes, L hops, F feature columns, P pairs. `x` and `y` are None when the loader was told not
    to read them. From a pre-aggregated pack, `blocks[0]` is a FoldedBlock and N counts the nodes within L - 1 hops.
    """

    seeds: Tensor
    """(B,) int64 unique global node ids."""
    n_id: Tensor
    """(N,) int64 global ids; the first B are the seeds, then ring by ring."""
    num_nodes: tuple[int, ...]
    """Cumulative counts: `num_nodes[h]` nodes lie within h hops of the seeds; the last one is N."""
    blocks: tuple[Block | FoldedBlock, ...]
    """One block per hop, outermost first: `blocks[0]` reads `x`, `blocks[-1]` ends at the seeds."""
    degree: Tensor
    """(N,) int32 in-degree of every node in the whole graph, edges hidden from the sampler not counted."""
    x: Tensor | dict[str, Tensor] | None = None
    """(N, F) rows as stored, or one tensor per table name; (N, 0) from a pre-aggregated pack that leaves them out."""
    y: Tensor | None = None
    """(B,) int64 classes of the seeds, -1 where unlabelled, or (B, T) float32 labels, NaN where unlabelled."""
    pool_index: int = 0
    index: int = 0
    """Number of this batch in its pool."""
    pairs: Tensor | None = None
    """(P, 2) int64 positions in `seeds`: source and destination of every pair to score."""
    pair_label: Tensor | None = None
    """(P,) float32: 1 for an edge of the graph, 0 for a negative."""
    overlap: Block | None = None
    """Common neighbours, with pairs as destinations."""
    t: Tensor | None = None
    """Event times of the pairs, int64."""
    etype: Tensor | None = None
    io: Mapping[str, float] = field(default_factory=dict)
    """What it cost to make this batch: `bytes_read` and seconds per stage."""

    def __repr__(self) -> str:
        """Sizes alone: a batch is millions of numbers."""
        tables = self.x if isinstance(self.x, dict) else {"x": self.x} if self.x is not None else {}
        rows = "".join(f", {name}={tuple(t.shape)} {str(t.dtype)[6:]}" for name, t in tables.items())
        edges = [block.num_edges for block in self.blocks]
        sizes = f"seeds={len(self.seeds)}, nodes={len(self.n_id)}, edges={edges}{rows}"
        return f"Batch({self.index}: {sizes}, device={self.n_id.device})"

    @property
    def sampled_blocks(self) -> tuple[Block, ...]:
        """`blocks` with every edge in them.

        Raises:
            ConfigError: the batch is of a pre-aggregated pack, whose outermost edges were folded into its rows.
        """
        found = tuple(block for block in self.blocks if isinstance(block, Block))
        if len(found) < len(self.blocks):
            raise ConfigError(
                "GS-CFG-606",
                "the outermost edges of a pre-aggregated pack were folded into its rows: they cannot be listed",
                hint="Use a model with layers that declare aggregates_input, or load the pack with rows='direct'.",
            )
        return found

    @cached_property
    def edge_index(self) -> Tensor:
        """(2, E) int64, source above destination: what PyG convolutions take.

        Raises:
            ConfigError: see `sampled_blocks`.
        """
        blocks = self.sampled_blocks
        if not blocks:
            return torch.empty((2, 0), dtype=torch.int64, device=self.seeds.device)
        return torch.stack([blocks[0].indices.to(torch.int64), blocks[0].dst_index()])

    @property
    def e_id(self) -> Tensor | None:
        """(E,) int64: position of every edge of `edge_index` in the Store's topology, from a Loader with `edge_ids`."""
        return self.blocks[0].e_id if self.blocks and isinstance(self.blocks[0], Block) else None

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
