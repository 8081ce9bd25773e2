"""Sample a Pool: every batch of one pass over the seeds, made by threads and written in order."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gnnsys.budget import DEFAULT_MEMORY, Budget
from gnnsys.progress import Progress, silent
from gnnsys.samplers.batches import SeedBatches, seed_batches
from gnnsys.samplers.draws import Draw, copied_bytes, make_draw
from gnnsys.samplers.seeds import Order, Seeds, SplitStore, as_seeds
from gnnsys.samplers.tree import (
    Topology,
    TreeSampler,
    checked_fanouts,
    largest_batch,
    stamp_bytes,
    working_bytes,
)
from gnnsys.storage.blob import Coding, EncodedBatch, encode, num_sections
from gnnsys.storage.files import require_free
from gnnsys.storage.hint import write_hint
from gnnsys.storage.labels import columns_of
from gnnsys.storage.pool import FORMAT, PARTS, VERSION, Pool
from gnnsys.storage.pool_writer import PoolWriter
from gnnsys.storage.scratch import ArrayMemory
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import split_path
from gnnsys.storage.threads import num_workers
from gnnsys.units import parse_size

ORDER_BYTES = 48
"""Per seed: ids, draws and places while they are put in order."""


class SampledStore(SplitStore, Protocol):
    """What sampling needs of a Store."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def num_edges(self) -> int: ...
    @property
    def max_degree(self) -> int: ...
    @property
    def graph(self) -> Topology: ...
    def labels(self) -> np.ndarray | None: ...
    def is_added(self, path: str) -> bool: ...


def sample(
    store: SampledStore,
    out: str | Path,
    *,
    seeds: str | Seeds | Sequence[int] | np.ndarray = "train",
    fanouts: Sequence[int],
    batch_size: int = 1024,
    seed: int = 0,
    pool_index: int = 0,
    order: Order | None = None,
    weights: np.ndarray | None = None,
    replace: bool = False,
    memory: int | str = DEFAULT_MEMORY,
    workers: int | None = None,
    progress: Progress = silent,
) -> Pool:
    """Sample all batches of one pass over `seeds` into folder `out`; repeating the call continues.

    Args:
        store: the graph, its splits and labels.
        seeds: name of a split, node ids, or Seeds.
        fanouts: neighbours per node and hop, seed side first; -1 takes all, 0 none, [] gives the seeds alone.
        batch_size: seeds, or pairs before negatives, per batch; the last batch may be short.
        seed, pool_index: two pools with the same numbers are equal.
        order: `shuffle` or `fixed`; as the seeds say when None.
        weights: (E,) at least 0, in the order of `store.graph.indices`: edges are drawn in proportion to them, and
            those of weight 0 never; uniformly when None.
        replace: draw with replacement: a node with any in-edges gets as many as the fanout says. -1 still takes all.
        memory: bytes, or a size like `2GiB`; as many batches are in flight as fit, at most `workers` + 1.
        workers: threads, one per core when None. The bytes written do not depend on it.
        progress: called with ("sample", batches done, batches in all) after every batch.

    Raises:
        InputDataError: seeds are empty, repeated, or not nodes of the graph; weights do not fit it. Nothing is written.
        ConfigError: an option is out of range, or `out` holds a pool made with others.
        MemoryBudgetError: not even one batch fits into `memory`.
        DiskSpaceError: the pool does not fit on the disk.
    """
    found = as_seeds(store, seeds)
    found = dataclasses.replace(found, order=order or found.order)
    budget = Budget(parse_size(memory))
    budget.reserve(ORDER_BYTES * len(found), "the order of the seeds")
    batches = seed_batches(found, batch_size, seed, pool_index)
    threads = num_workers(workers)
    budget.reserve(copied_bytes(weights), "edge weights")
    draw, weights_digest = make_draw(weights, replace, store.num_edges)
    parameters: dict[str, Any] = {
        "seeds": seeds if isinstance(seeds, str) and not store.is_added(split_path(seeds)) else found.digest,
        "fanouts": checked_fanouts(fanouts),
        "batch_size": batch_size,
        "seed": seed,
        "pool_index": pool_index,
        "order": found.order,
        "pairs": found.options,
        "weights": weights_digest,
        "replace": replace,
    }
    inputs = {"store": store.id}
    with Stage(Path(out), FORMAT, VERSION, inputs=inputs, parameters=parameters, parts=PARTS) as stage:
        if stage.finished is None:
            write_hint(stage.folder, store.path, store.id)
            most = found.per_batch(batch_size)
            _fill(stage, store, most, batches, draw, budget, threads, progress)
    return Pool.open(out)


def _fill(
    stage: Stage,
    store: SampledStore,
    seeds: int,
    batches: SeedBatches,
    draw: Draw,
    budget: Budget,
    workers: int,
    progress: Progress,
) -> None:
    """Append every batch, of at most `seeds` seeds, that the journal does not have, then commit."""
    sampler = _sampler(store, draw, stage.parameters, len(batches), budget, workers)
    coding = Coding.of(sampler.fanouts, store.num_nodes, store.max_degree, columns_of(store.labels()))
    if coding.label_columns:
        # Gathered, and in the blob; that of one class is within `working_bytes`.
        budget.reserve((workers + 1) * 2 * coding.label_bytes * seeds, "labels of the seeds")
    memory = ArrayMemory(kept=workers + 1)

    def blob(size: int) -> np.ndarray:
        return memory.take((size,), np.dtype(np.uint8))

    def make(k: int) -> EncodedBatch:
        return sampler.lend(batches[k], lambda batch: encode(batch, coding, blob))

    edges, replace = store.num_edges, bool(stage.parameters["replace"])
    largest = largest_batch(seeds, sampler.fanouts, store.num_nodes, edges, store.max_degree, replace)
    writer = PoolWriter(stage, num_batches=len(batches), coding=coding)
    try:
        todo = range(writer.next_batch, len(batches))
        progress("sample", writer.next_batch, len(batches))
        for encoded in _in_order(make, todo, workers, budget, largest):
            if writer.next_batch == todo.start:
                require_free(stage.folder, len(encoded.data) * len(todo), "the pool")
            writer.append(encoded)
            del encoded
            progress("sample", writer.next_batch, len(batches))
        writer.finish()
    finally:
        writer.close()


def _sampler(
    store: SampledStore, draw: Draw, parameters: Mapping[str, Any], num_batches: int, budget: Budget, workers: int
) -> TreeSampler:
    """The sampler, once the index of the pool and, where they are small enough, tables of stamps have their share."""
    hops = len(parameters["fanouts"])
    # Index and its columns, in rows and again one by one.
    budget.reserve(16 * num_batches * (3 * num_sections(hops) + 2 * hops + 3), "the index of the pool")
    tables = workers * stamp_bytes(store.num_nodes)
    stamped = tables <= budget.left // 4
    if stamped:
        budget.reserve(tables, "tables of stamps")
    return TreeSampler(
        store.graph,
        parameters["fanouts"],
        seed=parameters["seed"],
        pool_index=parameters["pool_index"],
        labels=store.labels(),
        budget=budget,
        draw=draw,
        stamped=stamped,
    )


def _in_order(
    make: Callable[[int], EncodedBatch], todo: range, workers: int, budget: Budget, largest: tuple[int, int]
) -> Iterator[EncodedBatch]:
    """`make` of every number, in order, by threads; as many ahead as the budget allows for the largest seen.

    The first one is made alone, to tell how large batches are, unless several of the `largest` possible (nodes, edges)
    would fit.
    """
    waiting = iter(todo)
    flying: deque[Future[EncodedBatch]] = deque()
    ahead = min(max(budget.left // working_bytes(*largest), 1), workers + 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="gnnsys-sample") as pool:
        try:
            while True:
                free = max(ahead - len(flying), 0)
                flying.extend(pool.submit(make, number) for number in islice(waiting, free))
                if not flying:
                    return
                encoded = flying.popleft().result()
                ahead = min(_fitting(encoded, budget), workers + 1)
                yield encoded
                del encoded  # or it would be held beside the ones in flight
        finally:
            for future in flying:
                future.cancel()


def _fitting(encoded: EncodedBatch, budget: Budget) -> int:
    """How many batches like the largest so far, and a quarter more, fit side by side."""
    needed = working_bytes(int(encoded.num_nodes[-1]), int(encoded.num_edges.sum())) * 5 // 4
    budget.reserve(max(needed, budget.shares.get("a batch", 0)), "a batch")
    return 1 + budget.left // budget.shares["a batch"]
