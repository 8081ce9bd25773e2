"""Plan a pool exactly, or a Store from a sample of its batches: price every layout and choose one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.budget import DEFAULT_MEMORY, Budget
from gnnsys.errors import ConfigError, MemoryBudgetError
from gnnsys.planning import cost
from gnnsys.planning.access import Access, Cached, access_counts, counting_memory, hottest_rows, packed_counts
from gnnsys.planning.calibrate import Speeds, speeds_of
from gnnsys.planning.choice import Plan, Request, choose
from gnnsys.planning.cost import Candidate
from gnnsys.planning.estimated import sample_batches
from gnnsys.planning.workload import Sizes, Workload
from gnnsys.progress import Progress, silent
from gnnsys.samplers.seeds import Seeds
from gnnsys.storage.hint import resolve_store
from gnnsys.storage.packing import packing_memory
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store
from gnnsys.storage.threads import num_workers
from gnnsys.units import format_size

__all__ = ["Plan", "estimate", "plan", "planned"]


def plan(
    pool: Pool | str | Path,
    store: Store | str | Path | None = None,
    *,
    memory: int | str = DEFAULT_MEMORY,
    device_memory: int | str = 0,
    disk: int | str | None = None,
    epochs: int = 10,
    layout: str = "auto",
    aggregate: str | None = None,
    workers: int | None = None,
    speeds: Speeds | None = None,
    progress: Progress = silent,
) -> Plan:
    """Price every layout of `pool` exactly, in two passes over its ids per way to pack, and choose one.

    Args:
        pool: the batches, or where they are.
        store: the Store they were sampled from, or where it is; the pool's hint when None.
        memory: `--memory` of packing and of training.
        device_memory: 0; a cache on the device is not there yet.
        disk: bytes the pack may take; not limited when None.
        epochs: how many you plan to train; `auto` takes the layout that ends them first.
        layout: `packed`, `pre-aggregated`, `direct` or `auto`.
        aggregate: what the first layer of the model does with its rows, before anything else and with fixed weights:
            `mean` (SAGE), `sum` (GIN), `gcn` (SGC, and GCN without dropout). Only then is `pre-aggregated` offered.
        speeds: of the disk; remembered or measured when None.

    Raises:
        MemoryBudgetError, DiskSpaceError: the layout asked for (with `auto`: every layout) does not fit; both state
            the minimum of each layout.
        ConfigError: an option is out of range.
        InputDataError: the Store is not there, is another one, or has no features.
    """
    if not isinstance(pool, Pool | str | Path):
        raise ConfigError(
            "GS-CFG-309",
            f"{pool.path}: no Pool, whose batches could be planned for",
            hint="Of a Store: gs.estimate(store, fanouts=..), or sample it first: gs.sample(store, ..). A Pack has its "
            "plan: pack.plan.",
        )
    pool = pool if isinstance(pool, Pool) else Pool.open(pool)
    found = resolve_store(pool.path, store)
    request = Request.of(memory, device_memory, disk, epochs, layout, aggregate)
    return planned(pool, found, request, workers=workers, speeds=speeds, progress=progress)[0]


def planned(
    pool: Pool,
    store: Store,
    request: Request,
    *,
    workers: int | None = None,
    speeds: Speeds | None = None,
    progress: Progress = silent,
) -> tuple[Plan, Access, Cached]:
    """`plan`, and the counts and the cache that it was made from (`packed` only uses them)."""
    workers = num_workers(workers)
    num_nodes, row_bytes, largest = store.num_nodes, store.row_bytes(), int(pool.num_nodes[:, -1].max())
    counting = counting_memory(num_nodes, largest)
    if counting > request.memory:
        _refuse_counting(request, counting)
    while workers > 1 and counting_memory(num_nodes, largest, workers) > request.memory:
        workers -= 1
    making = max(packing_memory(num_nodes, pool.num_batches, largest, row_bytes), counting)
    budget, sizes = Budget(request.memory), Sizes.of_pool(pool)
    work, inner = sizes.workload(store), _inner(sizes, store, request)

    def look(part: Workload, hops: int | None) -> tuple[Access, Cached, np.ndarray]:
        access = access_counts(pool, num_nodes, row_bytes, budget, workers, progress, hops)
        cached = hottest_rows(access, cost.cache_rows(part, request.memory, making))
        return access, cached, packed_counts(pool, access, cached, budget, workers, progress, hops)

    own = (0, np.zeros(pool.num_batches, dtype=np.int64))
    if inner is not None and inner.row_bytes:
        cached, cold = look(inner, pool.hops - 1)[1:]  # the counts go, or they would be held twice
        own = cached.rows, cold
    access, cached, cold = look(work, None)
    speeds = speeds or speeds_of(pool.path)
    made = choose(
        _candidates(work, inner, access.pages, (cached.rows, cold), own, making, counting, speeds),
        work,
        inner,
        request,
        identity={"pool_id": pool.id, "store_id": store.id, "order": pool.order},
        requested_rows=access.num_requested,
        sampled_batches=pool.num_batches,
        speeds=speeds,
    )
    return made, access, cached


def estimate(
    store: Store | str | Path,
    *,
    seeds: str | Seeds | Any = "train",
    fanouts: list[int],
    batch_size: int = 1024,
    seed: int = 0,
    weights: np.ndarray | None = None,
    memory: int | str = DEFAULT_MEMORY,
    device_memory: int | str = 0,
    disk: int | str | None = None,
    epochs: int = 10,
    layout: str = "auto",
    aggregate: str | None = None,
    speeds: Speeds | None = None,
) -> Plan:
    """The plan that a pool of these options would get, from 32 of its batches: sizes are scaled up, marked estimated.

    What the cache will answer is judged on batches that did not choose it, which errs on the careful side. The
    arguments and errors are those of `sample`, drawing without replacement, and `plan`. With at most 32 batches
    nothing is estimated.

    Example: print(gs.estimate("stores/cora", fanouts=[10, 5], memory="64MiB"))
    """
    if not isinstance(store, Store | str | Path):
        raise ConfigError(
            "GS-CFG-310", f"{store.path}: no Store to be sampled", hint="Of a Pool, exactly: gs.plan(pool, ..)."
        )
    store = store if isinstance(store, Store) else Store.open(store)
    request = Request.of(memory, device_memory, disk, epochs, layout, aggregate)
    sampled = sample_batches(
        store,
        seeds=seeds,
        fanouts=fanouts,
        batch_size=batch_size,
        seed=seed,
        weights=weights,
        memory=request.memory,
    )
    sizes = sampled.whole()
    work, inner = sizes.workload(store), _inner(sizes, store, request)
    largest = int(work.nodes.max())
    counting = counting_memory(work.num_nodes, largest)
    making = max(packing_memory(work.num_nodes, len(work.nodes), largest, work.row_bytes), counting)
    speeds = speeds or speeds_of(store.path)
    plain = sampled.cold(cost.cache_rows(work, request.memory, making))
    own = (0, np.zeros(len(work.nodes), dtype=np.int64))
    if inner is not None and inner.row_bytes:
        own = sampled.inner().cold(cost.cache_rows(inner, request.memory, making))
    pages = np.resize(sampled.pages, len(work.nodes))
    return choose(
        _candidates(work, inner, pages, plain, own, making, counting, speeds),
        work,
        inner,
        request,
        identity={"pool_id": "", "store_id": store.id, "order": sampled.order},
        requested_rows=sampled.requested_rows,
        sampled_batches=sampled.num_sampled,
        speeds=speeds,
    )


def _inner(sizes: Sizes, store: Store, request: Request) -> Workload | None:
    """What an epoch asks of a pre-aggregated pack; None when the model was not said to have such a first layer."""
    if request.requested == "pre-aggregated" and not sizes.hops:
        raise ConfigError("GS-CFG-308", "batches without hops have no first layer to fold", hint="Give fanouts.")
    return sizes.folded(store, request.aggregate) if request.aggregate and sizes.hops else None


def _candidates(
    work: Workload,
    inner: Workload | None,
    pages: np.ndarray,
    plain: tuple[int, np.ndarray],
    own: tuple[int, np.ndarray],
    making: int,
    counting: int,
    speeds: Speeds | None,
) -> tuple[Candidate, ...]:
    """Every layout priced; `plain` and `own` are rows in the cache and cold rows (K,), of all nodes and of `inner`."""
    packed = cost.packed(work, plain[1], plain[0], making, speeds)
    folded = () if inner is None else (cost.preaggregated(work, inner, packed, own[1], own[0], making, speeds),)
    return (packed, *folded, cost.direct(work, pages, counting, speeds))


def _refuse_counting(request: Request, counting: int) -> None:
    raise MemoryBudgetError(
        "GS-MEM-303",
        f"counting requests needs {format_size(counting)} for any layout, --memory is {format_size(request.memory)}",
        hint=f"Give at least --memory {format_size(counting)}.",
    )
