"""Write one generation: place every batch, scan the features once, publish.

    1 cache     ids of the cached nodes, hottest first
    2 place     slots and packed ids of every batch      (storage/placing.py, one pass over the pool)
    3 rows      runs of all batches and the cache        (storage/scatter.py, one pass over the features)
    4 commit    cache in its final order, index columns, manifest

A pre-aggregated generation is first packed plainly in scratch and folded batch by batch (storage/folding.py); the
steps above are then those of the rows that its first layer reads beside the aggregates.

Every step continues where a kill left it. What decides the bytes is the pool, the features, the layout, the number
of cached rows and the shard size; never memory, workers or where a range of the scan ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.errors import CorruptStoreError, InputDataError
from gnnsys.progress import Progress, silent
from gnnsys.storage.additions import Part
from gnnsys.storage.aggregates import FORMAT as AGGREGATES_FORMAT
from gnnsys.storage.aggregates import KEEP_OWN
from gnnsys.storage.aggregates import VERSION as AGGREGATES_VERSION
from gnnsys.storage.checksums import chunk_sum
from gnnsys.storage.files import atomic_write, disk_errors, map_array, move_folder, open_sized, remove_tree, write_all
from gnnsys.storage.folding import write_aggregates
from gnnsys.storage.generation import (
    AGGREGATES,
    CACHE_NODES,
    CACHE_ROWS,
    FORMAT,
    PARTS,
    ROW_COUNT,
    ROW_OFFSET,
    ROW_SHARD,
    ROW_SUM,
    SLOT_HASH,
    SLOT_OFFSET,
    SLOTS,
    VERSION,
    Generation,
    rows_path,
)
from gnnsys.storage.kernels import gather
from gnnsys.storage.manifest import FileEntry, read_manifest
from gnnsys.storage.pages import run_layout
from gnnsys.storage.placing import IDS, Placement, place_all, placing_memory
from gnnsys.storage.pool import Pool
from gnnsys.storage.scatter import Targets, scatter, scatter_memory
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import Store
from gnnsys.storage.table_direct import DirectTable
from gnnsys.storage.threads import num_workers
from gnnsys.storage.writer import SequentialWriter, read_array, write_array

SHARD_BYTES = 16 << 30
_PIECE_BYTES = 4 << 20
CACHED_NODE_BYTES = 48
"""Bytes per cached node while packing: their ids, ranked, sorted and put in their order."""
_PER_BATCH = 160
"""Bytes per batch of index columns, cuts and sums held while packing."""


@dataclass(frozen=True, kw_only=True)
class Folding:
    """How the first layer is folded into a generation.

    Attributes:
        how: `sum`, `mean` or `gcn`.
        cache_rows: of the plain generation that is folded, when it is begun; they decide no byte of the result.
        hottest: gives the ids of so many cached nodes of that one, hottest first.
    """

    how: str
    cache_rows: int
    hottest: Callable[[int], np.ndarray]


def write_generation(
    folder: Path,
    pool: Pool,
    store: Store,
    *,
    layout: str,
    cache_rows: int,
    hottest: Callable[[], np.ndarray],
    memory: int,
    folding: Folding | None = None,
    workers: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    begun: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> Generation:
    """Make the generation in `folder`; repeating the call continues.

    Args:
        pool: its batches; a Pack keeps them in `folder/pool`.
        store: holds the features, table `x`.
        layout: `packed`, `pre-aggregated` or `direct`.
        cache_rows: C, how many rows the cache holds; 0 for `direct`.
        hottest: gives the ids of the C cached nodes, hottest first; called only when they are not on disk yet.
        memory: bytes that this may grow by; decides nothing that is written.
        folding: given exactly when `pre-aggregated`.
        workers: threads; as many as cores when None.
        shard_bytes: a new shard begins where a run would go beyond this.
        begun: called once the folder is known to be for these inputs and options, before any work.
        progress: told after every unit that was recorded.

    Raises:
        ConfigError: the folder was begun with other inputs or options; says which.
        StoreBusyError, DiskSpaceError, MemoryBudgetError, CorruptStoreError: as their names say.
    """
    threads, x = num_workers(workers), _features(store)
    inputs = {"store": store.id, "pool": pool.digest, "x": x.entry.digest}
    parameters = {"layout": layout, "cache_rows": cache_rows, "shard_bytes": shard_bytes}
    if folding is not None:
        parameters["aggregate"] = folding.how
    allow = {"pool", AGGREGATES}
    with Stage(folder, FORMAT, VERSION, inputs=inputs, parameters=parameters, allow=allow, parts=PARTS) as stage:
        if stage.finished is None:
            begun()
            work = _Packing(stage, pool, store, x, memory, threads, shard_bytes, progress)
            if folding is None:
                remove_tree(folder / AGGREGATES)  # of an attempt that was refused
            folded = {} if folding is None else {"aggregates": work.fold(folding)}
            files: tuple[FileEntry, ...] = ()
            counts: dict[str, Any] = {"cached": 0}
            if layout == "packed" or (folding and KEEP_OWN[folding.how]):
                files, counts = work.packed(hottest, cache_rows, hops=pool.hops - (folding is not None))
            stage.commit(counts={**work.counts(), **folded, **counts}, files=files)
    return Generation.open(folder, pool=pool)


def packing_memory(num_nodes: int, num_batches: int, largest_batch: int, row_bytes: int) -> int:
    """Least memory that `write_generation` packs in, with one worker: the larger of its two passes. A cache takes
    CACHED_NODE_BYTES per row more."""
    return _PER_BATCH * num_batches + max(placing_memory(num_nodes, largest_batch), scatter_memory(row_bytes))


class _Packing:
    """The steps of one generation; every argument is what `write_generation` got."""

    def __init__(
        self,
        stage: Stage,
        pool: Pool,
        store: Store,
        x: Part,
        memory: int,
        workers: int,
        shard_bytes: int,
        progress: Progress,
    ) -> None:
        self._stage, self._pool, self._store = stage, pool, store
        self._part, self._x = x, x.entry
        self._budget, self._workers, self._progress = Budget(memory), workers, progress
        self._row_bytes, self._shard_bytes = store.row_bytes(), shard_bytes

    def counts(self) -> dict[str, Any]:
        """What the manifest says of any layout."""
        return {
            "batches": self._pool.num_batches,
            "nodes": int(self._pool.num_nodes[:, -1].sum()),
            "row_bytes": self._row_bytes,
            "columns": self._x.shape[1],
            "dtype": self._x.dtype,
        }

    def fold(self, folding: Folding) -> str:
        """Make the aggregates, in scratch until they are complete; returns their digest. The plain generation that they
        come from is gone then."""
        made, folder = self._stage.work / AGGREGATES, self._stage.folder / AGGREGATES
        if "aggregates" not in self._stage.done:
            self._fold_into(made, folding)
            move_folder(made, folder)  # in the place of those of another attempt, refused after it had come so far
            self._stage.record("aggregates")
        remove_tree(self._stage.work / "plain")
        return read_manifest(folder, AGGREGATES_FORMAT, AGGREGATES_VERSION).digest

    def _fold_into(self, folder: Path, folding: Folding) -> None:
        rows = self._plain_cache_rows(folding)
        plain = write_generation(
            self._stage.work / "plain",
            self._pool,
            self._store,
            layout="packed",
            cache_rows=rows,
            hottest=lambda: folding.hottest(rows),
            memory=self._budget.total,
            workers=self._workers,
            shard_bytes=self._shard_bytes,
            progress=self._progress,
        )
        try:
            write_aggregates(
                folder,
                self._pool,
                plain,
                how=folding.how,
                budget=self._budget,
                workers=self._workers,
                shard_bytes=self._shard_bytes,
                progress=self._progress,
            )
        finally:
            plain.close()

    def _plain_cache_rows(self, folding: Folding) -> int:
        """As many as when it was begun: another --memory goes on with that."""
        noted = self._stage.work / "plain-cache-rows"
        if not noted.exists():
            atomic_write(noted, str(folding.cache_rows).encode())
        return int(noted.read_bytes())

    def packed(
        self, hottest: Callable[[], np.ndarray], cache_rows: int, hops: int
    ) -> tuple[tuple[FileEntry, ...], dict[str, Any]]:
        """Rows of the nodes within `hops` hops: all steps but the manifest; files and counts for it."""
        self._budget.reserve(_PER_BATCH * self._pool.num_batches, "index of packing")
        self._budget.reserve(CACHED_NODE_BYTES * cache_rows, "cached nodes")
        nodes_entry, nodes = self._cache_nodes(hottest)
        placed = place_all(
            self._stage, self._pool, hops, nodes, self._store.num_nodes, self._budget, self._workers, self._progress
        )
        shard, offset, sizes = run_layout(placed.count, self._row_bytes, self._shard_bytes)
        sums = self._rows(nodes, placed, shard, offset, sizes)
        columns = (
            (SLOT_OFFSET, placed.slot_offset, "slot_offset"),
            (SLOT_HASH, placed.slot_hash, "slot_hash"),
            (ROW_SHARD, shard, "row_shard"),
            (ROW_OFFSET, offset, "row_offset"),
            (ROW_COUNT, placed.count, "row_count"),
            (ROW_SUM, sums[:-1], "row_sum"),
        )
        files = [
            nodes_entry,
            *self._cache_rows(nodes, int(sums[-1])),
            _covered(SLOTS, int(placed.slot_offset[-1]), "U32", "slots", SLOT_HASH),
            *(_covered(rows_path(i), size, "U8", "rows", ROW_SUM) for i, size in enumerate(sizes)),
            *(write_array(self._stage.folder, path, column, role) for path, column, role in columns),
        ]
        counts = {
            "cached": len(nodes),
            "packed_rows": int(placed.count.sum()),
            "slots_bytes": int(placed.slot_offset[-1]),
            "rows_bytes": sum(sizes),
        }
        return tuple(files), counts

    def _cache_nodes(self, hottest: Callable[[], np.ndarray]) -> tuple[FileEntry, np.ndarray]:
        """The cached nodes, from disk when an earlier run got that far."""
        done = self._stage.done.get("cache")
        if done is not None:
            entry = FileEntry(**{**done["entry"], "shape": tuple(done["entry"]["shape"])})
            return entry, read_array(self._stage.folder, entry)
        nodes = hottest().astype(self._pool.id_dtype)
        entry = write_array(self._stage.folder, CACHE_NODES, nodes, "cache_nodes")
        self._stage.record("cache", entry=vars(entry))
        self._progress("cache", 1, 1)
        return entry, nodes

    def _rows(
        self, nodes: np.ndarray, placed: Placement, shard: np.ndarray, offset: np.ndarray, sizes: list[int]
    ) -> np.ndarray:
        """Scan and scatter. The cache is one more target, kept in id order until it is complete."""
        count = np.append(placed.count, len(nodes))
        start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        targets = Targets(
            ids=self._all_ids(nodes, int(start[-2])),
            start=start,
            file=np.append(shard.astype(np.int64), len(sizes)),
            offset=np.append(offset, 0),
            paths=[*(self._stage.folder / rows_path(i) for i in range(len(sizes))), self._scratch],
            sizes=[*sizes, len(nodes) * self._row_bytes],
        )
        table = DirectTable(self._part.folder, self._x, self._part.artefact_id)
        try:
            return scatter(self._stage, table, targets, self._budget, self._workers, self._progress)
        finally:
            table.close()

    def _all_ids(self, nodes: np.ndarray, num_packed: int) -> np.ndarray:
        """Packed ids of all batches, then the cached ones, ascending: mapped from scratch."""
        path, width = self._stage.work / IDS, self._pool.id_dtype.itemsize
        fd = open_sized(path, (num_packed + len(nodes)) * width)
        try:
            with disk_errors(path):
                write_all(fd, np.sort(nodes), num_packed * width)
        finally:
            os.close(fd)
        return np.asarray(map_array(path, self._pool.id_dtype, (num_packed + len(nodes),)))

    @property
    def _scratch(self) -> Path:
        return self._stage.work / "cache.bin"

    def _cache_rows(self, nodes: np.ndarray, expected: int) -> tuple[FileEntry, FileEntry]:
        """Put the cached rows, which lie in id order, into theirs: hottest first."""
        writer = SequentialWriter(
            self._stage.folder, CACHE_ROWS, self._stage.id, num_bytes=len(nodes) * self._row_bytes
        )
        rows = np.asarray(map_array(self._scratch, "|u1", (len(nodes), self._row_bytes)))
        rank = np.empty(len(nodes), dtype=np.int64)
        rank[np.argsort(nodes, kind="stable")] = np.arange(len(nodes))
        found, step = 0, max(_PIECE_BYTES // self._row_bytes, 1)
        try:
            for at in range(0, len(nodes), step):
                where = rank[at : at + step]
                piece = np.empty((len(where), self._row_bytes), dtype=np.uint8)
                gather(rows, where, piece)
                found += chunk_sum(piece, slots=where)
                writer.append(piece)
            if found % (1 << 64) != expected:
                raise CorruptStoreError(
                    "GS-STORE-006",
                    f"{self._scratch}: changed since it was written",
                    hint="Delete the unfinished folder and repeat the command.",
                )
            shape = (len(nodes), self._x.shape[1])
            entry, sums = writer.finish(np.dtype(np.uint8), (len(nodes), self._row_bytes), "cache_rows")
        finally:
            writer.close()
        return replace(entry, dtype=self._x.dtype, shape=shape), sums


def _features(store: Store) -> Part:
    part = store.table_part("x") if "x" in store.table_names else None
    if part is None or part.entry.shape[1] == 0:
        raise InputDataError(
            "GS-IN-303",
            f"{store.path}: has no features to pack",
            hint="Ingest it with features, or train with gnnsys train STORE.",
        )
    return part


def _covered(path: str, num_bytes: int, dtype: str, role: str, by: str) -> FileEntry:
    """Entry of a file whose parts are hashed in another."""
    values = num_bytes // (4 if dtype == "U32" else 1)
    return FileEntry(path=path, size=num_bytes, dtype=dtype, shape=(values,), role=role, covered_by=by)
