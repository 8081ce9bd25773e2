"""Outputs of any model for any nodes: layer by layer when it offers layers, else batch by batch, and which it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from gnnsys.budget import Budget
from gnnsys.errors import ConfigError
from gnnsys.loading.loader import Loader
from gnnsys.models.fold import fold, layers_of
from gnnsys.progress import Progress, silent
from gnnsys.samplers.draws import copied_bytes, make_draw
from gnnsys.samplers.seeds import Seeds, refuse_outside
from gnnsys.samplers.tree import working_bytes
from gnnsys.storage.store import Graph, Store
from gnnsys.training.layerwise import NOT_ONE_TENSOR, Drawn, layerwise
from gnnsys.training.outputs import OutputFile, device_of, distinct, evaluating, scratch_folder

How = Literal["layer-wise", "full-neighbour", "sampled"]


class Inferred(NamedTuple):
    """Outputs, and how they were made."""

    outputs: np.ndarray
    """(n, out_channels) float32."""
    how: How


def infer(
    model: nn.Module,
    store: Store,
    *,
    nodes: np.ndarray,
    fanouts: Sequence[int],
    budget: Budget,
    scratch: Path,
    batch_size: int = 1024,
    seed: int = 0,
    weights: np.ndarray | None = None,
    rows: str = "mapped",
    progress: Progress = silent,
) -> Inferred:
    """Outputs of `model` for `nodes`.

    Args:
        model: in any style of `fold`; put into eval mode and back.
        nodes: (n,) integer node ids, any order, repeats allowed.
        fanouts: of training; their number is the depth of full neighbourhoods, their values are the last resort.
        budget: what is left of it may be taken.
        scratch: a folder for temporary files, removed before the call returns.
        batch_size: at most so many nodes at once when layers are not computed one by one.
        seed: of the last resort.
        weights: (E,) what edges were drawn by in training; they are drawn so here too, as many as `fanouts` say.
        rows: table backend of the features: `mapped`, `direct` or `memory`.

    Returns:
        `how` is `sampled` where there are weights, else `layer-wise` when the model offers layers that take and give
        tensors; else `full-neighbour` when the whole neighbourhood of a batch fits, if need be of a single node; else
        `sampled`. Layer-wise and full-neighbour are exact and differ by rounding. What is drawn by weight for a model
        with layers is a function of seed, layer and node; without, it depends on which nodes are in one batch. Outputs
        are a read-only map when `nodes` ascends without repeats.

    Raises:
        ConfigError: the model fits no call style, or its output is not one 2-D tensor.
        MemoryBudgetError: not even one node fits.
    """
    nodes = np.asarray(nodes, dtype=np.int64)
    refuse_outside(nodes, store.num_nodes, "nodes")
    budget = budget.fork()
    budget.reserve(copied_bytes(weights), "edge weights")
    layers = layers_of(model)
    if layers and (weights is None or len(layers) == len(fanouts)):
        drawn = None if weights is None else Drawn(make_draw(weights, False, store.num_edges)[0], fanouts, seed)
        try:
            outputs = layerwise(
                model, store, nodes=nodes, budget=budget, scratch=scratch, drawn=drawn, rows=rows, progress=progress
            )
            return Inferred(outputs, "layer-wise" if drawn is None else "sampled")
        except ConfigError as error:
            if error.code != NOT_ONE_TENSOR:
                raise
    targets = distinct(nodes)
    budget.reserve(2 * targets.nbytes, "node ids")
    if rows == "memory":
        budget.reserve(store.num_nodes * store.row_bytes(), "feature table")
    plan = _plan(store, targets, list(fanouts), batch_size, budget, exact=weights is None)
    with evaluating(model), scratch_folder(scratch) as folder:
        batches = _outputs(model, store, targets, plan, seed, weights, rows)
        out = _written(folder / "outputs.bin", targets, batches, progress)
        return Inferred(out.rows_for(nodes, budget), plan.how)


@dataclass(frozen=True)
class _Plan:
    how: How
    fanouts: list[int]
    batch_size: int


def _plan(
    store: Store, targets: np.ndarray, fanouts: list[int], batch_size: int, budget: Budget, *, exact: bool
) -> _Plan:
    """Where it is to be `exact`, full neighbourhoods in the largest batches that fit; else the fanouts in the largest
    that surely fit."""
    cost = _BatchCost(store.row_bytes(), store.table_columns())
    sizes = list(_halves(min(batch_size, max(len(targets), 1))))
    for size in sizes if exact else []:
        if _whole_neighbourhoods_fit(store.graph, targets, len(fanouts), size, cost, budget.left):
            return _Plan("full-neighbour", [-1] * len(fanouts), size)
    for size in sizes:
        needed = cost.total(*_largest(store, fanouts, size))
        if needed <= budget.left:
            return _Plan("sampled", fanouts, size)
    raise budget.refusal("GS-MEM-004", "inference for one node", needed, ", or smaller fanouts")


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2


@dataclass(frozen=True)
class _BatchCost:
    """Upper bounds of the memory of a batch under a model that may make two rows per edge and three per node."""

    row_bytes: int
    columns: int

    @property
    def per_edge(self) -> int:
        return 64 + 8 * self.columns

    def total(self, num_nodes: int, num_edges: int) -> int:
        """One batch in use, the next one in the making, sampling, and the model."""
        rows = num_nodes * (2 * self.row_bytes + 12 * self.columns + 64)
        return rows + num_edges * self.per_edge + working_bytes(num_nodes, num_edges)


def _whole_neighbourhoods_fit(
    graph: Graph, targets: np.ndarray, hops: int, batch_size: int, cost: _BatchCost, room: int
) -> bool:
    for start in range(0, len(targets), batch_size):
        found = _neighbourhood(graph, targets[start : start + batch_size], hops, room // cost.per_edge)
        if found is None or cost.total(*found) > room:
            return False
    return True


def _neighbourhood(graph: Graph, seeds: np.ndarray, hops: int, max_edges: int) -> tuple[int, int] | None:
    """Nodes and edges within `hops` of `seeds` (ascending), or None once there are more than `max_edges`."""
    seen = ring = seeds
    num_edges = 0
    for _ in range(hops):
        begin = graph.indptr[ring]
        counts = graph.indptr[ring + 1] - begin
        num_ring = int(counts.sum())
        num_edges += num_ring
        if num_edges > max_edges:
            return None
        first = np.repeat(begin - (np.cumsum(counts) - counts), counts)
        ring = np.setdiff1d(graph.indices[first + np.arange(num_ring)], seen).astype(np.int64)
        seen = np.union1d(seen, ring)
    return len(seen), num_edges


def _largest(store: Store, fanouts: list[int], batch_size: int) -> tuple[int, int]:
    """Nodes and edges of a batch in which every fanout is taken in full and no node twice, but no more than exist."""
    ring = nodes = batch_size
    edges = 0
    for fanout in fanouts:
        ring *= store.max_degree if fanout < 0 else min(fanout, store.max_degree)
        edges += ring
        nodes += ring
    return min(nodes, store.num_nodes), min(edges, store.num_edges)


def _outputs(
    model: nn.Module,
    store: Store,
    targets: np.ndarray,
    plan: _Plan,
    seed: int,
    weights: np.ndarray | None,
    rows: str,
) -> Iterator[Tensor]:
    """Rows for the targets, batch after batch."""
    seeds = Seeds.nodes(targets, order="fixed", name="nodes to infer")
    loader = Loader(
        store,
        rows=rows,
        seeds=seeds,
        fanouts=plan.fanouts,
        batch_size=plan.batch_size,
        with_y=False,
        weights=weights,
        seed=seed,
        prefetch=1,
        workers=1,
        resample=False,
        device=device_of(model),
    )
    with loader:
        for batch in loader:
            out = fold(model, batch)
            if not isinstance(out, Tensor) or out.ndim != 2:
                raise ConfigError("GS-CFG-612", f"the model gives a {type(out).__name__}, expected one 2-D tensor")
            yield out[: batch.batch_size]


def _written(path: Path, targets: np.ndarray, batches: Iterator[Tensor], progress: Progress) -> OutputFile:
    done = 0
    for rows in batches:
        if done == 0:
            out = OutputFile(path, targets, rows.shape[1])
        out.write(done, rows)
        done += len(rows)
        progress("infer", done, len(targets))
    return out
