"""Layer-wise inference: outputs over full neighbourhoods or drawn ones, one layer at a time, rows streamed from disk.

Layer l is computed once for every node that layer l + 1 reads, in chunks of ascending destinations. Its sources come
from the Store (first layer) or from the scratch file of the layer before, in ascending order, so that the disk is
read nearly front to back; its outputs go to a scratch file. A chunk is as large as the budget allows. A destination
whose neighbourhood alone is larger is aggregated piece by piece (`StreamedBlock`) when its layer reaches neighbours
through `aggregate` only.

What counts against the budget: ids of the nodes needed per layer, and per chunk what `_Cost` adds up. Scratch files
are written through maps, which are evictable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnnsys.batch import Block
from gnnsys.budget import Budget
from gnnsys.errors import ConfigError
from gnnsys.models.fold import float_rows, layers_of
from gnnsys.progress import Progress, silent
from gnnsys.samplers.batches import SeedBatch
from gnnsys.samplers.draws import Draw
from gnnsys.samplers.seeds import refuse_outside
from gnnsys.samplers.tree import TreeSampler, working_bytes
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.store import Graph, Store
from gnnsys.storage.tables import Table, empty_rows
from gnnsys.training.kernels import mark_sources
from gnnsys.training.memory import trim
from gnnsys.training.outputs import OutputFile, device_of, distinct, evaluating, scratch_folder
from gnnsys.training.streamed import StreamedBlock

NOT_ONE_TENSOR = "GS-CFG-611"
_SLACK_BYTES = 4 << 20
"""Small arrays, a buffer to verify blocks of rows, what the linear algebra library packs."""
_DIRECT_BYTES = 16 << 20
"""A direct table reads through 1 MiB per thread."""


@dataclass(frozen=True)
class Drawn:
    """Neighbours that are drawn: of a node in a layer the same ones, whatever else is computed."""

    draw: Draw
    fanouts: Sequence[int]
    """One per layer, that of the last layer first."""
    seed: int = 0


def layerwise(
    model: nn.Module,
    store: Store,
    *,
    nodes: np.ndarray,
    budget: Budget,
    scratch: Path,
    drawn: Drawn | None = None,
    rows: str = "mapped",
    progress: Progress = silent,
) -> np.ndarray:
    """Outputs of `model` for `nodes`, every layer over all in-neighbours, or over those `drawn`.

    Args:
        model: offers `layers`, the last of which gives one tensor; runs where its parameters are, in eval mode, and is
            put back as it was.
        nodes: (n,) integer node ids, any order, repeats allowed.
        budget: what is left of it may be taken.
        scratch: a folder for temporary files, 4 bytes per value of a hidden layer and of the output; they are
            removed from it before the call returns.
        drawn: the neighbours that a layer sees of a node; all when None.
        rows: table backend of the features: `mapped`, `direct` or `memory`.

    Returns:
        (n, out_channels) float32. When `nodes` ascends without repeats it is a read-only map and takes no memory.

    Raises:
        ConfigError: the model offers no layers, or a layer gives something else than 2-D tensors.
        MemoryBudgetError: one destination with its neighbours does not fit.
    """
    layers = layers_of(model)
    if not layers:
        raise ConfigError("GS-CFG-610", f"{type(model).__name__} offers no layers to infer one by one")
    nodes = np.asarray(nodes, dtype=np.int64)
    refuse_outside(nodes, store.num_nodes, "nodes")
    budget = budget.fork()
    with evaluating(model), scratch_folder(scratch) as folder, closing(_features(store, rows, budget)) as features:
        run = _Run(store.graph, budget, device_of(model), drawn)
        needed = _needed_nodes(run, layers, distinct(nodes))
        source = _Source(features, None, (features.columns,))
        for number, (layer, targets) in enumerate(zip(layers, needed, strict=True)):
            widths = _widths(layer, source, run)
            if number == len(layers) - 1 and len(widths) > 1:
                raise ConfigError(
                    NOT_ONE_TENSOR, f"the last layer, {type(layer).__name__}, gives {len(widths)} tensors"
                )
            out = OutputFile(folder / f"layer-{number}.bin", targets, sum(widths))
            for done in run.layer(number, layer, source, out):
                progress("infer", number + done, len(layers))
            source = _Source(out.table, targets, widths)
            (folder / f"layer-{number - 1}.bin").unlink(missing_ok=True)  # of 64 layers two are on disk
        return out.rows_for(nodes, budget)


def _features(store: Store, rows: str, budget: Budget) -> Table:
    """The Store's table `x`, with what it holds in memory reserved."""
    if rows == "memory":
        budget.reserve(store.num_nodes * store.row_bytes(), "feature table")
    if rows == "direct":
        budget.reserve(_DIRECT_BYTES, "direct reads")
    return store.table("x", rows)


def _needed_nodes(run: _Run, layers: Sequence[nn.Module], targets: np.ndarray) -> list[np.ndarray]:
    """Per layer the (n,) int64 ascending ids of the nodes whose output is needed."""
    needed = [targets]
    run.budget.reserve(targets.nbytes, "node ids")
    for layer in reversed(layers[1:]):
        if _reads_neighbours(layer):
            needed.append(_with_sources(run, needed[-1], sum(ids.nbytes for ids in needed)))
        else:
            needed.append(needed[-1])
    return needed[::-1]


def _with_sources(run: _Run, nodes: np.ndarray, held_bytes: int) -> np.ndarray:
    """Ascending ids of `nodes` and their in-neighbours."""
    num_nodes = run.graph.num_nodes
    with run.budget.holding(num_nodes, "node mask"):
        mask = np.zeros(num_nodes, dtype=np.bool_)
        mask[nodes] = True
        mark_sources(np.asarray(run.graph.indptr), np.asarray(run.graph.indices), nodes, mask)
        run.budget.reserve(held_bytes + 8 * int(np.count_nonzero(mask)), "node ids")
        return np.flatnonzero(mask)


def _reads_neighbours(layer: nn.Module) -> bool:
    return bool(getattr(layer, "reads_neighbours", True))


def _only_aggregates(layer: nn.Module) -> bool:
    return bool(getattr(layer, "only_aggregates", False))


def _widths(layer: nn.Module, source: _Source, run: _Run) -> tuple[int, ...]:
    """Columns of every tensor that the layer gives, found by asking for one isolated node."""
    zero = torch.zeros(2, dtype=torch.int32, device=run.device)
    block = Block(indptr=zero, indices=zero[:0], degree=zero[:1])
    out = layer(source.split(torch.zeros(1, source.table.columns, device=run.device)), block)
    tensors = out if isinstance(out, tuple) else (out,)
    if not all(isinstance(tensor, Tensor) and tensor.ndim == 2 for tensor in tensors):
        raise ConfigError(
            NOT_ONE_TENSOR,
            f"layer {type(layer).__name__} gives a {type(out).__name__}; layer-wise inference needs 2-D tensors",
            hint="infer() falls back to batches for such models.",
        )
    return tuple(int(tensor.shape[1]) for tensor in tensors)


@dataclass(frozen=True)
class _Source:
    """Rows that a layer reads. Row i belongs to node `ids[i]` (ascending), or to node i when `ids` is None; the tensors
    of a layer that gives several lie side by side."""

    table: Table
    ids: np.ndarray | None
    widths: tuple[int, ...]

    def split(self, rows: Tensor) -> Any:
        """Rows as the layer takes them."""
        return rows if len(self.widths) == 1 else rows.split(self.widths, dim=1)

    def read(self, nodes: np.ndarray) -> Tensor:
        """(n, F) float32 rows of `nodes` (n,) int64."""
        tensor, array = empty_rows(len(nodes), self.table.columns, self.table.dtype_name)
        self.table.read(nodes if self.ids is None else np.searchsorted(self.ids, nodes), out=array)
        out: Tensor = float_rows(tensor)
        return out


@dataclass(frozen=True)
class _Cost:
    """Upper bounds of the memory of a chunk: D destinations, U nodes read, E edges."""

    graph_nodes: int
    in_columns: int
    out_columns: int
    stored_row_bytes: int
    """Of the row as stored, when it must be converted, else 0."""
    edge_bytes: int
    """What the layer may make per edge (messages): as it says, else two rows."""

    @classmethod
    def of(cls, layer: nn.Module, graph: Graph, source: _Source, width: int) -> _Cost:
        table = source.table
        stored = 0 if table.dtype_name == "F32" else table.row_bytes
        edge_rows = _reads_neighbours(layer) and not _only_aggregates(layer)
        edge_bytes = int(getattr(layer, "edge_bytes", 8 * max(table.columns, width))) if edge_rows else 0
        return cls(graph.num_nodes, table.columns, width, stored, edge_bytes)

    def sampling(self, num_dst: int, num_edges: int) -> int:
        return working_bytes(min(num_dst + num_edges, self.graph_nodes), num_edges)

    def total(self, num_dst: int, num_nodes: int, num_edges: int) -> int:
        """Numbering (ids, ranks, local numbers, edge weights), rows read, then per destination the aggregate, and
        the output with two partial sums and its copy for the host."""
        per_edge = 44 + self.edge_bytes
        per_node = 64 + 4 * self.in_columns + self.stored_row_bytes
        per_dst = 32 + 4 * (self.in_columns + 4 * self.out_columns)
        return per_edge * num_edges + per_node * num_nodes + per_dst * num_dst + _SLACK_BYTES


class _Run:
    """What is the same for every layer of one inference: graph, budget, device."""

    def __init__(self, graph: Graph, budget: Budget, device: torch.device, drawn: Drawn | None) -> None:
        self.graph, self.budget, self.device, self._drawn = graph, budget, device, drawn

    def layer(self, number: int, layer: nn.Module, source: _Source, out: OutputFile) -> Iterator[float]:
        """Write the outputs of `layer` to `out`, chunk by chunk; yields the part done."""
        targets = out.targets
        cost = _Cost.of(layer, self.graph, source, out.table.columns)
        fanout = self._fanout(number) if _reads_neighbours(layer) else 0
        begin, count = 0, 1024
        while begin < len(targets):
            chunk = targets[begin : begin + count]
            # Arrays of ever other sizes leave gaps, and glibc keeps what is freed: without trimming, before rows are
            # read and after, growth reached 1.4 times a budget of 24 MiB, with or without one buffer for all rows.
            drawn = self._drawn_within_budget(number, fanout, cost, chunk)
            trim()
            if drawn is not None:
                h = self._compute(layer, source, drawn)
                count = self._next_count(cost, drawn)
            elif len(chunk) > 1:
                count = len(chunk) // 2
                continue
            else:
                h = self._stream(fanout, layer, source, cost, int(chunk[0]))
            out.write(begin, h)
            del drawn, h  # or they would be held while the next chunk is drawn
            trim()
            begin += len(chunk)
            yield begin / len(targets)

    def _fanout(self, number: int) -> int:
        return -1 if self._drawn is None else self._drawn.fanouts[-1 - number]

    def _drawn_within_budget(self, number: int, fanout: int, cost: _Cost, chunk: np.ndarray) -> PoolBatch | None:
        """The neighbourhood of `chunk`, or None when it is too large to draw or to compute."""
        num_edges = self._num_edges(chunk, fanout)
        if cost.sampling(len(chunk), num_edges) > self.budget.left:
            return None
        drawn = self._sampler(number, fanout).sample(SeedBatch(index=0, ids=chunk))
        fits = cost.total(len(chunk), len(drawn.ids), num_edges) <= self.budget.left
        return drawn if fits else None

    def _sampler(self, number: int, fanout: int) -> TreeSampler:
        if self._drawn is None:
            return TreeSampler(self.graph, [fanout], seed=0)
        return TreeSampler(self.graph, [fanout], seed=self._drawn.seed, pool_index=number, draw=self._drawn.draw)

    def _num_edges(self, nodes: np.ndarray, fanout: int) -> int:
        """So many at most."""
        degrees = self.graph.indptr[nodes + 1] - self.graph.indptr[nodes]
        return int((degrees if fanout < 0 else np.minimum(degrees, fanout)).sum())

    def _next_count(self, cost: _Cost, drawn: PoolBatch) -> int:
        """Destinations that would have filled nine tenths of the budget at this chunk's density; at most twice as
        many as now, because the next ones may be denser."""
        num_dst, num_edges = int(drawn.num_nodes[0]), len(drawn.indices)
        used = max(cost.total(num_dst, len(drawn.ids), num_edges), cost.sampling(num_dst, num_edges))
        return max(1, int(num_dst * min(2.0, 0.9 * self.budget.left / used)))

    def _compute(self, layer: nn.Module, source: _Source, drawn: PoolBatch) -> Tensor:
        ids, indices, degree = _ascending(drawn)
        block = Block(
            indptr=torch.from_numpy(drawn.indptr), indices=torch.from_numpy(indices), degree=torch.from_numpy(degree)
        )
        return _side_by_side(layer(source.split(source.read(ids).to(self.device)), block.to(self.device)))

    def _stream(self, fanout: int, layer: nn.Module, source: _Source, cost: _Cost, node: int) -> Tensor:
        """Output for one destination that has more neighbours than fit at once."""
        begin, end = int(self.graph.indptr[node]), int(self.graph.indptr[node + 1])
        room = self.budget.left - cost.total(1, 1, 0)
        piece_edges = room // (cost.total(0, 1, 1) - cost.total(0, 0, 0) + cost.sampling(0, 1) - cost.sampling(0, 0))
        if piece_edges < 1 or self._drawn is not None or not _only_aggregates(layer):
            count = self._num_edges(np.array([node]), fanout)
            needed = max(cost.total(1, count + 1, count), cost.sampling(1, count))
            raise self.budget.refusal("GS-MEM-003", f"node {node} with its {count} in-neighbours", needed)

        def piece(start: int) -> tuple[Block, Tensor]:
            return self._piece(source, node, self.graph.indices[start : min(start + piece_edges, end)])

        block = StreamedBlock(
            num_dst=1,
            num_edges=end - begin,
            pieces=lambda: (piece(start) for start in range(begin, end, piece_edges)),
        )
        return _side_by_side(layer(source.split(source.read(np.array([node])).to(self.device)), block))

    def _piece(self, source: _Source, node: int, sources: np.ndarray) -> tuple[Block, Tensor]:
        """The block of some in-edges of `node`, and its rows."""
        distinct, local = np.unique(sources, return_inverse=True)
        ids = np.concatenate([[node], distinct]).astype(np.int64)
        block = Block(
            indptr=torch.tensor([0, len(sources)], dtype=torch.int32),
            indices=torch.from_numpy((local + 1).astype(np.int32)),
            degree=torch.from_numpy((self.graph.indptr[ids + 1] - self.graph.indptr[ids]).astype(np.int32)),
        )
        return block.to(self.device), source.read(ids).to(self.device)


def _side_by_side(out: Any) -> Tensor:
    return torch.cat(out, dim=1) if isinstance(out, tuple) else out


def _ascending(drawn: PoolBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, sources and degrees of a one-hop batch with the nodes behind the destinations in ascending order."""
    num_dst = int(drawn.num_nodes[0])
    order = np.arange(len(drawn.ids))
    order[num_dst:] = num_dst + np.argsort(drawn.ids[num_dst:])
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return drawn.ids[order], rank[drawn.indices], drawn.degree[order]
