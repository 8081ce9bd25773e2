"""Fold the first layer into a pack: from a packed generation to the aggregates of its outermost blocks.

Every batch is read once, front to back, and summed in the order of its edges, so bytes depend on nothing but pool
and features. A unit is a group of runs of at least 64 MiB: made durable, then journalled with their hashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnsys.batch import Block
from gnnsys.budget import Budget
from gnnsys.errors import CorruptStoreError
from gnnsys.progress import Progress
from gnnsys.storage import kernels
from gnnsys.storage.aggregates import (
    FORMAT,
    HASH,
    VERSION,
    destinations,
    run_hash,
    runs_path,
    sum_dtype,
)
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import disk_errors, fsync_dir, make_data_durable, open_sized, read_into, write_all
from gnnsys.storage.generation import Generation
from gnnsys.storage.manifest import FileEntry, numpy_dtype
from gnnsys.storage.pages import run_layout
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import Stage
from gnnsys.storage.table_base import torch_dtype, torch_rows
from gnnsys.storage.threads import in_order
from gnnsys.storage.writer import write_array

_UNIT_BYTES = 64 << 20


def write_aggregates(
    folder: Path,
    pool: Pool,
    plain: Generation,
    *,
    how: str,
    budget: Budget,
    workers: int,
    shard_bytes: int,
    progress: Progress,
) -> None:
    """Make the aggregates of `pool` in `folder`; repeating the call continues.

    Args:
        plain: the rows of all its nodes, layout `packed`.
        how: `sum`, `mean` or `gcn`.
        budget: the cache of `plain` and the batches in the making are reserved in it while this works; fewer workers
            when they do not fit.
        shard_bytes: a new file begins where a run would go beyond this.

    Raises:
        MemoryBudgetError, DiskSpaceError, CorruptStoreError: as their names say.
    """
    inputs = {"pool": pool.digest, "x": plain.manifest.inputs["x"]}
    parameters = {"how": how, "shard_bytes": shard_bytes}
    with Stage(folder, FORMAT, VERSION, inputs=inputs, parameters=parameters) as stage:
        if stage.finished is None:
            _write(stage, pool, plain, how, budget, workers, shard_bytes, progress)


def folding_memory(
    blob_bytes: np.ndarray, nodes: np.ndarray, edges: np.ndarray, dst: np.ndarray, row_bytes: int, columns: int
) -> int:
    """Memory of the largest batch while it is folded, from (K,) sizes: blob and what is decoded from it, slots and run
    (once more when its rows become float32), weights, sums (once more when they are cast)."""
    widened = 0 if row_bytes == 4 * columns else 4 * columns
    each = blob_bytes + nodes * (28 + row_bytes + widened) + 20 * edges + dst * (8 * columns + 16)
    return int(each.max())


def cached_row_bytes(row_bytes: int, columns: int) -> int:
    """Memory of one cached row while folding: as it is stored, and as float32 when that is another type."""
    return row_bytes if row_bytes == 4 * columns else row_bytes + 4 * columns


def _write(
    stage: Stage,
    pool: Pool,
    plain: Generation,
    how: str,
    budget: Budget,
    workers: int,
    shard_bytes: int,
    progress: Progress,
) -> None:
    """Fold what the journal does not have, then commit."""
    blobs = np.array([pool.blob_bytes(k, labels=False) for k in range(pool.num_batches)])
    one = folding_memory(
        blobs, pool.num_nodes[:, -1], pool.num_edges.sum(axis=1), destinations(pool), plain.row_bytes, plain.columns
    )
    cache_bytes = plain.num_cached * cached_row_bytes(plain.row_bytes, plain.columns)
    with budget.holding(cache_bytes, "cached rows"):
        workers = max(min(workers, budget.left // one - 1), 1)
        with budget.holding((workers + 1) * one, "batches being folded"):
            cache = _floats(plain.load_cache(), plain.dtype)
            dtype = sum_dtype(plain.dtype, how)
            writer = _Writer(stage, destinations(pool), plain.columns, dtype, shard_bytes)
            todo = range(writer.next_batch, pool.num_batches)

            def fold(k: int) -> np.ndarray:
                run = plain.read_run(k)
                return _folded(pool.read(k, labels=False), cache, _floats(run, plain.dtype), plain.slots(k), how, plain)

            try:
                with in_order(fold, todo, workers, ahead=1) as runs:
                    for run in runs:
                        writer.append(run)
                        del run  # or it would be held beside the next one
                        progress("fold", writer.next_batch, pool.num_batches)
                writer.finish()
            finally:
                writer.close()


def _folded(
    batch: PoolBatch, cache: np.ndarray, run: np.ndarray, slots: np.ndarray, how: str, plain: Generation
) -> np.ndarray:
    """(D, A) uint8: the aggregates of one batch as they are stored."""
    block = Block(
        indptr=torch.from_numpy(batch.indptr),
        indices=torch.from_numpy(batch.indices),
        degree=torch.from_numpy(batch.degree),
    )
    weights, own = block.linear_weights(how, torch.float32)
    sums = np.empty((block.num_dst, plain.columns), dtype=np.float32)
    kernels.weighted_sums(
        cache,
        run,
        slots,
        batch.indptr,
        batch.indices,
        np.ones(block.num_edges, dtype=np.float32) if weights is None else weights.numpy(),
        np.empty(0, dtype=np.float32) if own is None else own.numpy(),
        sums,
    )
    stored = torch.from_numpy(sums).to(torch_dtype(sum_dtype(plain.dtype, how)))
    return np.asarray(stored.view(torch.uint8).numpy())


def _floats(rows: np.ndarray, dtype: str) -> np.ndarray:
    """(n, F) float32 of (n, B) bytes of that type, over the same memory when they are float32 already."""
    values = torch_rows(rows.view(numpy_dtype(dtype)), dtype)
    return np.asarray(values.to(torch.float32).numpy())


class _Writer:
    """Appends runs in order to their places in the shards.

    Attributes:
        next_batch: number of the batch that `append` expects.

    Raises:
        CorruptStoreError: the newest batch that the journal has is not there any more.
    """

    def __init__(self, stage: Stage, count: np.ndarray, columns: int, dtype: str, shard_bytes: int) -> None:
        self._stage, self._count, self._columns, self._dtype = stage, count, columns, dtype
        self._row_bytes = columns * numpy_dtype(dtype).itemsize
        self._shard, self._offset, self._sizes = run_layout(count, self._row_bytes, shard_bytes)
        self._hashes = [h for unit in stage.done.values() for h in unit["hashes"]]
        self.next_batch = self._first = len(self._hashes)
        self._in_unit, self._fds = 0, list[int]()
        try:
            for number, size in enumerate(self._sizes):
                self._fds.append(open_sized(self._path(number), size))
            fsync_dir(stage.folder)
            if self.next_batch:
                self._check(self.next_batch - 1)
        except BaseException:
            self.close()
            raise

    def append(self, run: np.ndarray) -> None:
        """Write the run of the next batch."""
        k = self.next_batch
        if run.size:
            number = int(self._shard[k])
            with disk_errors(self._path(number)):
                write_all(self._fds[number], run, int(self._offset[k]))
        self._hashes.append(run_hash(run, k))
        self._in_unit += run.nbytes
        self.next_batch += 1
        if self._in_unit >= _UNIT_BYTES or self.next_batch == len(self._count):
            self._end_unit()

    def finish(self) -> None:
        """Publish the aggregates; every batch has been appended."""
        hashes = write_array(self._stage.folder, HASH, np.array(self._hashes, dtype=np.uint64), "run_hash")
        self._stage.commit(counts=self._counts(), files=(hashes, *self._entries()))

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def _end_unit(self) -> None:
        for number in sorted(set(self._shard[self._first : self.next_batch].tolist()) & set(range(len(self._fds)))):
            with disk_errors(self._path(number)):
                make_data_durable(self._fds[number])
        unit = f"batches {self._first} to {self.next_batch - 1}"
        self._stage.record(unit, hashes=self._hashes[self._first :])
        self._first, self._in_unit = self.next_batch, 0

    def _counts(self) -> dict[str, Any]:
        return {"batches": len(self._count), "columns": self._columns, "dtype": self._dtype}

    def _entries(self) -> Iterator[FileEntry]:
        for number, size in enumerate(self._sizes):
            path = runs_path(number)
            yield FileEntry(path=path, size=size, dtype="U8", shape=(size,), role="aggregates", covered_by=HASH)

    def _check(self, k: int) -> None:
        """The newest durable run is the one that a crash would have hurt."""
        run = aligned_buffer(int(self._count[k]) * self._row_bytes)
        number = int(self._shard[k])
        if run.size:
            read_into(self._fds[number], run, int(self._offset[k]), self._path(number))
        if run_hash(run, k) != self._hashes[k]:
            raise CorruptStoreError(
                "GS-STORE-006",
                f"{self._path(number)}: batch {k} changed since it was written",
                hint="Delete the unfinished folder and repeat the command.",
            )

    def _path(self, number: int) -> Path:
        return self._stage.folder / runs_path(number)
