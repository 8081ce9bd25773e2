"""What a layout costs: exact bytes from the sizes of a pool, seconds from the measured speeds of a disk.

    need      = T r                            bytes of rows that an epoch delivers, T requests of r bytes
    cold      = m r                            those that the static cache does not hold
    packed    = sum_k roundup(p_k r, A)        runs, p_k cold rows of batch k, A = 4096
    direct    = sum_k pages_k A                distinct pages under the rows of batch k
    pre-aggr. = sum_k roundup(D_k a, A) + roundup(p_k r, A)
                                               D_k aggregates of a bytes; p_k of the nodes within L - 1 hops
    amplification  = bytes of rows read / bytes of rows needed from disk  (packed / cold, direct / need)
    blow-up        = m / N                     rows stored again, per row of the table

    T_epoch = max(T_io, need / copy)           reading overlaps assembling
    T_io    = (rows + slots + pool) / read     or, direct,   pages / random + pool / read
    T_prep  = N r / read + written / write     packed; every layout needs the pool
              + max(packed / read, E r / copy) + sums / write, and the own rows packed: pre-aggregated
    break-even epochs = T_prep / (T_epoch(direct) - T_epoch(packed))

Source: DiskGNN's cost model as specified in out-of-core.md 5.1. What a training step takes is not in it: it is the
same for every layout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gnnsys.planning.calibrate import Speeds
from gnnsys.planning.workload import Workload
from gnnsys.storage.files import PAGE
from gnnsys.storage.folding import folding_memory
from gnnsys.storage.packing import CACHED_NODE_BYTES
from gnnsys.storage.pages import piece_bytes

BATCHES_AHEAD = 3
"""Batches in memory at once that the loader likes: two prefetched, one in use."""
LOADER_WORKERS = 2
MODEL_WIDTH = 128
DIRECT_BYTES = 16 << 20
"""Stages of the direct table: 16 threads, 1 MiB each."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One layout and its price. Bytes are per epoch where they are read, in all where they are stored.

    Attributes:
        rows_bytes, slots_bytes, pool_bytes: requested from disk by one epoch, whole pages; aggregates count as rows.
        bytes: their sum.
        requests: nodes whose rows an epoch delivers; cold_rows: those that the cache does not answer.
        read_amplification: bytes of rows read over bytes of rows needed from disk; 1 is perfect.
        blow_up: bytes of rows stored again per byte of the table.
        disk_bytes: what the pack takes when it is finished; peak_disk_bytes: while it is made.
        written_bytes: written to make it, the pool left out.
        memory_bytes: least `--memory` that makes it and loads it with one batch in flight.
        prepare_s, epoch_s: predicted; None without measured speeds.
        fits: it fits memory and disk; why_not says what is missing.
    """

    layout: str
    cache_rows: int
    rows_bytes: int
    slots_bytes: int
    pool_bytes: int
    requests: int
    cold_rows: int
    read_amplification: float
    blow_up: float
    disk_bytes: int
    peak_disk_bytes: int
    written_bytes: int
    memory_bytes: int
    prepare_s: float | None = None
    epoch_s: float | None = None
    fits: bool = True
    why_not: str = ""

    @property
    def bytes(self) -> int:
        """Planned to be read per epoch: rows, slots and pool."""
        return self.rows_bytes + self.slots_bytes + self.pool_bytes

    def total_s(self, epochs: int) -> float | None:
        """Preparation and that many epochs."""
        if self.prepare_s is None or self.epoch_s is None:
            return None
        return self.prepare_s + epochs * self.epoch_s


def pages_bytes(num_bytes: np.ndarray) -> int:
    """Sum of sizes rounded up to pages."""
    return int((-(-num_bytes // PAGE) * PAGE).sum())


def packed(work: Workload, cold: np.ndarray, cache_rows: int, packing_bytes: int, speeds: Speeds | None) -> Candidate:
    """Price of `packed` when batch k finds `cold[k]` rows outside the cache.

    Args:
        cold: (K,) int64.
        packing_bytes: least memory that packing works in.
    """
    rows, slots, pool = pages_bytes(cold * work.row_bytes), pages_bytes(4 * work.nodes), int(work.pool_bytes.sum())
    num_cold, cache = int(cold.sum()), cache_rows * work.row_bytes
    written = rows + slots + 2 * cache
    prepare = epoch = None
    if speeds:
        prepare = work.table_bytes / speeds.read + written / speeds.write
        epoch = max((rows + slots + pool) / speeds.read, work.need_bytes / speeds.copy)
    return Candidate(
        layout="packed",
        cache_rows=cache_rows,
        rows_bytes=rows,
        slots_bytes=slots,
        pool_bytes=pool,
        requests=work.requests,
        cold_rows=num_cold,
        read_amplification=ratio(rows, num_cold * work.row_bytes),
        blow_up=num_cold / work.num_nodes,
        disk_bytes=pool + slots + rows + cache,
        peak_disk_bytes=pool + slots + rows + 2 * cache + (num_cold + cache_rows) * work.id_bytes,
        written_bytes=written,
        memory_bytes=max(packing_bytes, loader_bytes(work, "packed", 1) + step_bytes(work)),
        prepare_s=prepare,
        epoch_s=epoch,
    )


def preaggregated(
    work: Workload,
    inner: Workload,
    plain: Candidate,
    cold: np.ndarray,
    cache_rows: int,
    packing_bytes: int,
    speeds: Speeds | None,
) -> Candidate:
    """Price of `pre-aggregated`: aggregates of the outermost blocks, and rows of the nodes before them.

    Args:
        work: of all hops; inner: of all but the folded one.
        plain: the `packed` candidate, which is made on the way.
        cold: (K,) int64 rows of `inner` outside its own cache of `cache_rows`.
        packing_bytes: least memory that packing works in, plainly or not.
    """
    sums, own = pages_bytes(inner.nodes * inner.sum_bytes), pages_bytes(cold * inner.row_bytes)
    slots = pages_bytes(4 * inner.nodes) if inner.row_bytes else 0
    pool, blobs = int(inner.pool_bytes.sum()), int(work.pool_bytes.sum())
    num_cold, cache = int(cold.sum()), cache_rows * inner.row_bytes
    packed_own = own + slots + 2 * cache
    stored = blobs + sums + slots + own + cache
    folding = folding_memory(work.pool_bytes, work.nodes, work.edges, inner.nodes, work.row_bytes, work.columns)
    prepare = epoch = None
    if speeds and plain.prepare_s is not None:
        fold = max(plain.rows_bytes / speeds.read, int(work.edges.sum()) * work.row_bytes / speeds.copy)
        scan = inner.table_bytes / speeds.read
        prepare = plain.prepare_s + fold + scan + (sums + packed_own) / speeds.write
        epoch = max((sums + own + slots + pool) / speeds.read, inner.need_bytes / speeds.copy)
    return Candidate(
        layout="pre-aggregated",
        cache_rows=cache_rows,
        rows_bytes=sums + own,
        slots_bytes=slots,
        pool_bytes=pool,
        requests=inner.requests,
        cold_rows=num_cold,
        read_amplification=ratio(sums + own, inner.requests * inner.sum_bytes + num_cold * inner.row_bytes),
        blow_up=(inner.requests * inner.sum_bytes + num_cold * inner.row_bytes) / work.table_bytes,
        disk_bytes=stored,
        peak_disk_bytes=max(
            plain.peak_disk_bytes,
            plain.disk_bytes + sums,
            stored + cache + (num_cold + cache_rows) * inner.id_bytes,
        ),
        written_bytes=plain.written_bytes + sums + packed_own,
        memory_bytes=max(packing_bytes, 2 * folding, loader_bytes(inner, "pre-aggregated", 1) + step_bytes(inner)),
        prepare_s=prepare,
        epoch_s=epoch,
    )


def direct(work: Workload, pages_under: np.ndarray, counting_bytes: int, speeds: Speeds | None) -> Candidate:
    """Price of `direct`: rows stay in the Store and are read page by page, (K,) of them under the batches."""
    pages, pool = int(pages_under.sum()), int(work.pool_bytes.sum())
    prepare = epoch = None
    if speeds:
        prepare = 0.0
        epoch = max(pages / speeds.random + pool / speeds.read, work.need_bytes / speeds.copy)
    return Candidate(
        layout="direct",
        cache_rows=0,
        rows_bytes=pages * PAGE,
        slots_bytes=0,
        pool_bytes=pool,
        requests=work.requests,
        cold_rows=work.requests,
        read_amplification=ratio(pages * PAGE, work.need_bytes),
        blow_up=0.0,
        disk_bytes=pool,
        peak_disk_bytes=pool,
        written_bytes=0,
        memory_bytes=max(counting_bytes, loader_bytes(work, "direct", 1) + step_bytes(work)),
        prepare_s=prepare,
        epoch_s=epoch,
    )


def ratio(a: float, b: float) -> float:
    """a / b; 1 when both are 0, as when everything is cached."""
    return a / b if b else 1.0


def loader_bytes(work: Workload, layout: str, batches: int) -> int:
    """Memory of a loader with that many batches in flight, upper bound over all batches.

    Per batch: rows, ids, degrees, one CSR, labels. Per worker: the blob and what is decoded from it, and slots, places
    and a piece of the run, or the lists of pages.
    """
    row_bytes = work.row_bytes + work.sum_bytes
    held = work.nodes * (row_bytes + 16) + 4 * work.edges + 8 * work.seeds + PAGE
    decoded = work.pool_bytes + 24 * work.nodes + 8 * work.edges
    run = work.nodes * work.row_bytes + PAGE
    rows = 48 * work.nodes if layout == "direct" else 8 * work.nodes + PAGE + np.minimum(run, _piece(work.row_bytes))
    workers = max(min(LOADER_WORKERS, batches - 1), 1)
    fixed = DIRECT_BYTES if layout == "direct" else 0
    return int((batches * held + workers * (decoded + rows)).max()) + fixed


def _piece(row_bytes: int) -> int:
    return piece_bytes(row_bytes) if row_bytes else 0


def step_bytes(work: Workload) -> int:
    """Fixed reserve for one training step: what the outermost layer keeps for the way back.

    4 bytes x destinations of the outermost block x (F aggregated columns + 6 activations of width 128), and what a
    model of that width takes whatever the batch. The trainer measures the real step before it starts; this only sizes
    the cache, equally on every machine.
    """
    return 4 * int(work.inner_nodes.max()) * (work.columns + 6 * MODEL_WIDTH) + model_bytes(work)


def model_bytes(work: Workload) -> int:
    """Weights of a first layer of width 128, own and neighbours, with what training them takes: 4 bytes x 2 x F x 128 x
    8 (gradient, two moments, two copies while a checkpoint is written, ..), and 8 MiB for the rest."""
    return 64 * work.columns * MODEL_WIDTH + (8 << 20)


def cache_share(work: Workload, memory: int) -> tuple[int, int]:
    """Bytes for the static cache of a pack, and batches in flight: as many as fit, at most three.

    The cache gets what loader and step leave, at most half the memory.
    """
    for batches in range(BATCHES_AHEAD, 0, -1):
        left = memory - loader_bytes(work, "packed", batches) - step_bytes(work)
        if left >= 0:
            return min(left, memory // 2), batches
    return 0, 1


def cache_rows(work: Workload, memory: int, making_bytes: int) -> int:
    """C, rows of the static cache: what `cache_share` holds, at most so many that packing, which works in
    `making_bytes` without a cache, can hold their ids too. That is the smaller one where rows are narrow."""
    if not work.row_bytes:
        return 0
    share, _ = cache_share(work, memory)
    return min(share // work.row_bytes, max(memory - making_bytes, 0) // CACHED_NODE_BYTES)


def break_even(packed: Candidate, direct: Candidate) -> int | None:
    """Epochs after which preparing has paid; None when it never does, or without speeds."""
    if packed.prepare_s is None or packed.epoch_s is None or direct.epoch_s is None:
        return None
    saved = direct.epoch_s - packed.epoch_s
    return math.ceil(packed.prepare_s / saved) if saved > 0 else None
