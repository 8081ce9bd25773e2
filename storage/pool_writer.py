"""Append sampled batches to a Pool in units that survive a kill.

A unit is a group of batches of at least 64 MiB: its blobs are made durable in the shards, then its rows of the
index in a scratch file, then its journal line. What lies behind the last journalled unit is dropped on resume.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.blob import Coding, EncodedBatch, section_hash
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import (
    bypass_page_cache,
    disk_errors,
    fsync_dir,
    make_durable,
    make_folder,
    open_read,
    open_sized,
    read_into,
    write_all,
)
from gnnsys.storage.manifest import FileEntry, Manifest
from gnnsys.storage.pool import shard_path
from gnnsys.storage.pool_index import HASHES, PoolIndex, columns, summary, write_index
from gnnsys.storage.stage import Stage
from gnnsys.storage.writer import SequentialWriter

SHARD_BYTES = 4 << 30
UNIT_BYTES = 64 << 20
_ROWS = ".work/index.bin"


class PoolWriter:
    """Writes the batches of one Pool in order; continues where the journal of `stage` ends.

    Args:
        stage: entered and not finished.
        num_batches: K, known from the seeds.
        coding: how the blobs were coded.
        shard_bytes: a new shard begins where a blob would go beyond this.
        unit_bytes: a unit ends when it has at least this many bytes.

    Attributes:
        next_batch: number of the batch that `append` expects.

    Raises:
        CorruptStoreError: what the journal says is durable is not there any more.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        num_batches: int,
        coding: Coding,
        shard_bytes: int = SHARD_BYTES,
        unit_bytes: int = UNIT_BYTES,
    ) -> None:
        self._stage, self._coding = stage, coding
        self._shard_limit, self._unit_limit = shard_bytes, unit_bytes
        self._kinds = columns(num_batches, len(coding.fanouts))
        self._table = np.zeros((num_batches, _width(self._kinds)), dtype=np.int64)
        done: Mapping[str, Any] = next(reversed(stage.done.values()), {})
        self.next_batch = self._first = int(done.get("batches", 0))
        self._sizes = [int(n) for n in done.get("shards", [0])]
        self._rows = SequentialWriter(stage.folder, _ROWS, stage.id, resume=done.get("rows"))
        fsync_dir(stage.work)
        self._fd = -1
        self._in_unit = 0
        self._continue()

    def append(self, encoded: EncodedBatch) -> None:
        """Write the blob of batch `next_batch`.

        Raises:
            DiskSpaceError: no space left; everything up to the last unit is kept.
        """
        if self._sizes[-1] and self._sizes[-1] + len(encoded.data) > self._shard_limit:
            self._next_shard()
        path = self._stage.folder / shard_path(len(self._sizes) - 1)
        with disk_errors(path):
            write_all(self._fd, encoded.data, self._sizes[-1])
        self._table[self.next_batch] = self._row(encoded)
        self._sizes[-1] += len(encoded.data)
        self._in_unit += len(encoded.data)
        self.next_batch += 1
        if self._in_unit >= self._unit_limit or self.next_batch == len(self._table):
            self._end_unit()

    def finish(self) -> Manifest:
        """Write the index and publish the Pool; every batch has been appended."""
        index = PoolIndex(**self._columns())
        shards = [_shard_entry(number, size) for number, size in enumerate(self._sizes)]
        entries = write_index(self._stage.folder, index)
        self.close()
        return self._stage.commit(counts=summary(index, sum(self._sizes), self._coding), files=(*shards, *entries))

    def close(self) -> None:
        """Close the files; without `finish` the Pool stays unfinished and can be continued."""
        self._rows.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _continue(self) -> None:
        """Check what an earlier run left, drop what it had not journalled, and open the last shard."""
        if self.next_batch:
            path = self._stage.folder / _ROWS
            fd = open_read(path)
            try:
                read_into(fd, self._table[: self.next_batch], 0, path)
            finally:
                os.close(fd)
            for number, size in enumerate(self._sizes):
                self._check_size(number, size)
            self._check_batch(self.next_batch - 1)
        for left_over in sorted((self._stage.folder / "shards").glob("blobs-*.bin"))[len(self._sizes) :]:
            left_over.unlink()
        self._open_shard()

    def _open_shard(self) -> None:
        path = self._stage.folder / shard_path(len(self._sizes) - 1)
        make_folder(path.parent)
        self._fd = open_sized(path, self._sizes[-1])
        bypass_page_cache(self._fd)
        fsync_dir(path.parent)

    def _next_shard(self) -> None:
        with disk_errors(self._stage.folder / shard_path(len(self._sizes) - 1)):
            make_durable(self._fd)
        os.close(self._fd)
        self._sizes.append(0)
        self._open_shard()

    def _end_unit(self) -> None:
        with disk_errors(self._stage.folder):
            make_durable(self._fd)
            self._rows.append(self._table[self._first : self.next_batch])
            self._rows.sync()
            unit = f"batches {self._first} to {self.next_batch - 1}"
            self._stage.record(unit, batches=self.next_batch, shards=[*self._sizes], rows=self._rows.state())
        self._first = self.next_batch
        self._in_unit = 0

    def _row(self, encoded: EncodedBatch) -> np.ndarray:
        """The index row of the next batch, all columns side by side as int64."""
        values = {
            "shard": [len(self._sizes) - 1],
            "num_nodes": encoded.num_nodes,
            "num_edges": encoded.num_edges,
            "num_pairs": [encoded.num_pairs],
            "offset": encoded.offset + self._sizes[-1],
            "bytes": encoded.bytes,
            "hash": encoded.hash.view(np.int64),
        }
        return np.concatenate([np.asarray(values[name], dtype=np.int64) for name in self._kinds])

    def _columns(self) -> dict[str, np.ndarray]:
        out, start = {}, 0
        for name, (dtype, shape) in self._kinds.items():
            stop = start + (shape[1] if len(shape) == 2 else 1)
            out[name] = np.ascontiguousarray(self._table[:, start:stop]).astype(dtype).reshape(shape)
            start = stop
        return out

    def _check_size(self, number: int, size: int) -> None:
        path = self._stage.folder / shard_path(number)
        fd = open_read(path)
        try:
            found = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if found < size:
            raise _changed(f"{path}: {found} bytes, the journal says {size}")

    def _check_batch(self, k: int) -> None:
        """The newest durable batch is the one a crash would have hurt: its sections must still hash right."""
        row = {name: column[k] for name, column in self._columns().items()}
        path = self._stage.folder / shard_path(int(row["shard"]))
        fd = open_read(path)
        try:
            for offset, size, expected in zip(row["offset"], row["bytes"], row["hash"], strict=True):
                data = aligned_buffer(int(size))
                read_into(fd, data, int(offset), path)
                if section_hash(data, k) != int(expected):
                    raise _changed(f"{path}: batch {k} changed since it was written")
        finally:
            os.close(fd)


def _width(kinds: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> int:
    return sum(shape[1] if len(shape) == 2 else 1 for _, shape in kinds.values())


def _shard_entry(number: int, size: int) -> FileEntry:
    return FileEntry(path=shard_path(number), size=size, dtype="U8", shape=(size,), role="shard", covered_by=HASHES)


def _changed(message: str) -> CorruptStoreError:
    return CorruptStoreError("GS-STORE-006", message, hint="Delete the unfinished folder and repeat the command.")
