"""Place the rows of every batch: which slot each input node reads, and which rows the batch's run must hold.

One pass over the pool, parallel over batches, written in batch order:

    slots/slots.bin     per batch the slot of every input node, starting on a page
    .work/ids.bin       per batch the ids of its packed rows, ascending, one batch after another
    .work/count.bin     (K,) int64 packed rows             .work/hash.bin    (K,) uint64 hash of the slots

A unit is a group of batches of at least 16 MiB. What it wrote is durable before its journal line is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gnnsys.budget import Budget
from gnnsys.errors import CorruptStoreError
from gnnsys.progress import Progress
from gnnsys.storage.files import (
    PAGE,
    disk_errors,
    make_data_durable,
    make_folder,
    open_read,
    open_sized,
    raw_bytes,
    read_into,
    write_all,
)
from gnnsys.storage.generation import SLOTS
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import Stage
from gnnsys.storage.threads import in_order

UNIT_BYTES = 16 << 20
IDS, COUNT, HASH = "ids.bin", "count.bin", "hash.bin"
_UNIT = "place"
_PER_NODE = 40
"""Bytes per node while a batch is placed: ids, slots, order, and what is waiting to be written."""
_REREAD_BYTES = 4 << 20


@dataclass(frozen=True)
class Placement:
    """What was placed: batch k packs `ids[start[k] : start[k + 1]]`.

    Attributes:
        slot_offset: (K + 1,) int64 byte offsets in slots.bin.
        slot_hash: (K,) uint64.
        count: (K,) int64 packed rows.
    """

    slot_offset: np.ndarray
    slot_hash: np.ndarray
    count: np.ndarray


def place(ids: np.ndarray, slot_of: np.ndarray, num_cached: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots of one batch and the rows its run holds.

    Args:
        ids: (n,) node ids.
        slot_of: (N,) int32: cache slot of every node, -1 when not cached.
        num_cached: C.

    Returns:
        slots (n,) uint32: cache slot, or C + position in the run; packed (p,) ids not cached, ascending.
    """
    slots = slot_of[ids].astype(np.int64)
    missing = np.flatnonzero(slots < 0)
    missing = missing[np.argsort(ids[missing], kind="stable")]
    slots[missing] = np.arange(num_cached, num_cached + len(missing))
    return slots.astype("<u4"), ids[missing]


def place_all(
    stage: Stage,
    pool: Pool,
    hops: int,
    cache_nodes: np.ndarray,
    num_nodes: int,
    budget: Budget,
    workers: int,
    progress: Progress,
) -> Placement:
    """Place the nodes within `hops` hops of every batch of `pool`, continuing where the journal of `stage` ends.

    Memory: 4 bytes per node of the graph, and 40 per node of `workers + 2` batches; fewer workers when that does not
    fit.

    Raises:
        MemoryBudgetError: that does not fit.
        CorruptStoreError: what the journal says is durable is not there any more.
    """
    per_batch = pool.num_nodes[:, hops]
    slot_offset = np.concatenate([[0], np.cumsum(-(-4 * per_batch // PAGE) * PAGE)]).astype(np.int64)
    with _Writer(stage, pool, slot_offset) as writer, ExitStack() as held:
        if writer.next_batch < pool.num_batches:
            held.enter_context(budget.holding(4 * num_nodes, "slot table"))
            per_worker = _PER_NODE * int(per_batch.max())
            workers = max(min(workers, budget.left // per_worker - 2), 1)
            held.enter_context(budget.holding((workers + 2) * per_worker, "batches being placed"))
            slot_of = np.full(num_nodes, -1, dtype=np.int32)
            slot_of[cache_nodes] = np.arange(len(cache_nodes), dtype=np.int32)
            todo = range(writer.next_batch, pool.num_batches)
            with in_order(lambda k: place(pool.ids(k, hops), slot_of, len(cache_nodes)), todo, workers) as placed:
                for slots, packed in placed:
                    if writer.append(slots, packed):
                        progress("place", writer.next_batch, pool.num_batches)
        return Placement(slot_offset, writer.hashes, writer.counts)


def placing_memory(num_nodes: int, largest_batch: int) -> int:
    """Least memory that `place_all` works in."""
    return 4 * num_nodes + 3 * _PER_NODE * largest_batch


class _Writer:
    """Appends placed batches in order; a unit ends when it has UNIT_BYTES."""

    def __init__(self, stage: Stage, pool: Pool, slot_offset: np.ndarray) -> None:
        self._stage, self._pool, self._slot_offset = stage, pool, slot_offset
        done = [payload for name, payload in stage.done.items() if name.startswith(_UNIT)]
        self.next_batch = int(done[-1]["batches"]) if done else 0
        self._units, self._since = len(done), 0
        self._num_ids = int(done[-1]["ids"]) if done else 0
        self._hash = xxhash.xxh3_128()
        self._fds: dict[str, int] = {}
        slots_path = stage.folder / SLOTS
        make_folder(slots_path.parent)
        try:
            self._fds[SLOTS] = open_sized(slots_path, int(slot_offset[-1]))
            for name in (COUNT, HASH):
                self._fds[name] = open_sized(stage.work / name, 8 * pool.num_batches)
            kept = self._num_ids * pool.id_dtype.itemsize
            self._fds[IDS] = open_sized(stage.work / IDS, kept)
            self.counts = self._column(COUNT, "<i8")
            self.hashes = self._column(HASH, "<u8")
            if done and self._columns_hash() != done[-1]["columns"]:
                raise _changed(f"{stage.work / COUNT} or {HASH}")
            _reread(stage.work / IDS, done, pool.id_dtype.itemsize)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def append(self, slots: np.ndarray, packed: np.ndarray) -> bool:
        """Write the next batch; True when it ended a unit."""
        k, ids = self.next_batch, packed.astype(self._pool.id_dtype)
        with disk_errors(self._stage.folder):
            write_all(self._fds[SLOTS], slots, int(self._slot_offset[k]))
            write_all(self._fds[IDS], ids, self._num_ids * ids.itemsize)
        self.counts[k] = len(ids)
        self.hashes[k] = xxhash.xxh3_64_intdigest(raw_bytes(slots), seed=k)
        self._hash.update(raw_bytes(ids))
        self._since += slots.nbytes + ids.nbytes
        self._num_ids += len(ids)
        self.next_batch += 1
        if self._since < UNIT_BYTES and self.next_batch < self._pool.num_batches:
            return False
        self._end_unit()
        return True

    def _end_unit(self) -> None:
        with disk_errors(self._stage.folder):
            write_all(self._fds[COUNT], self.counts, 0)
            write_all(self._fds[HASH], self.hashes, 0)
            for fd in self._fds.values():
                make_data_durable(fd)
        number = f"{_UNIT}-{self._units:06d}"
        self._stage.record(
            number,
            batches=self.next_batch,
            ids=self._num_ids,
            hash=self._hash.hexdigest(),
            columns=self._columns_hash(),
        )
        self._units, self._since, self._hash = self._units + 1, 0, xxhash.xxh3_128()

    def _columns_hash(self) -> str:
        """Of the counts and hashes of all batches placed so far."""
        state = xxhash.xxh3_64()
        for column in (self.counts, self.hashes):
            state.update(raw_bytes(column[: self.next_batch]))
        return state.hexdigest()

    def _column(self, name: str, dtype: str) -> np.ndarray:
        column = np.empty(self._pool.num_batches, dtype=dtype)
        read_into(self._fds[name], column, 0, self._stage.work / name)
        return column

    def _close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}


def _reread(path: Path, units: list[dict[str, Any]], itemsize: int) -> None:
    """Hash again what earlier runs left: a wrong id here would become a wrong row with a right checksum."""
    fd, start = open_read(path), 0
    try:
        for unit in units:
            stop, state = int(unit["ids"]) * itemsize, xxhash.xxh3_128()
            for part in _parts(fd, start, stop, path):
                state.update(part)
            if state.hexdigest() != unit["hash"]:
                raise _changed(f"{path}: bytes {start} .. {stop}")
            start = stop
    finally:
        os.close(fd)


def _changed(what: str) -> CorruptStoreError:
    hint = "Delete the unfinished folder and repeat the command."
    return CorruptStoreError("GS-STORE-006", f"{what} changed since they were written", hint=hint)


def _parts(fd: int, start: int, stop: int, path: Path) -> Iterator[memoryview]:
    buffer = np.empty(min(stop - start, _REREAD_BYTES), dtype=np.uint8)
    while start < stop:
        part = buffer[: stop - start]
        read_into(fd, part, start, path)
        yield part.data
        start += len(part)
