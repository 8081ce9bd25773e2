"""Generation: read the slots and the packed run of any batch front to back, directly, verified.

    g000000/pool/      the batches                 g000000/slots/     where the row of every input node is
    g000000/cache/     rows kept in memory         g000000/rows/      one run of rows per batch, in batch order

Row i of a batch comes from slot s = slots[i]: from cache row s when s < C, else from row s - C of the batch's run.
A pre-aggregated generation has such rows for the nodes within L - 1 hops, or none, and beside them

    g000000/aggregates/   what the destinations of the outermost block receive (storage/aggregates.py)

The table of files is in docs/formats.md, Pack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gnnsys.errors import ConfigError, CorruptStoreError, GnnsysError
from gnnsys.storage.aggregates import KEEP_OWN, Aggregates
from gnnsys.storage.checksums import chunk_sum, digest, digest_file
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.files import PAGE, open_read, raw_bytes, read_into, round_up
from gnnsys.storage.manifest import FileEntry, Manifest, numpy_dtype, read_manifest
from gnnsys.storage.pages import piece_bytes
from gnnsys.storage.plan_file import StoredPlan, read_plan
from gnnsys.storage.pool import VERIFY, Pool
from gnnsys.storage.writer import read_array

FORMAT = "gnnsys-generation"
VERSION = 1
LAYOUTS = ("packed", "pre-aggregated", "direct")
PARTS = ("slots", "cache", "rows")
"""Folders of a generation, beside its pool and aggregates."""
AGGREGATES = "aggregates"
SLOTS, SLOT_OFFSET, SLOT_HASH = "slots/slots.bin", "slots/offset.bin", "slots/hash.bin"
CACHE_NODES, CACHE_ROWS = "cache/nodes.bin", "cache/rows.bin"
ROW_SHARD, ROW_OFFSET, ROW_COUNT, ROW_SUM = "rows/shard.bin", "rows/offset.bin", "rows/count.bin", "rows/sum.bin"

_MEND = "Delete the pack's folder and repeat `gnnsys pack`, or copy the file from a good pack."


def rows_path(shard: int) -> str:
    """Where shard `shard` of the packed runs lies inside a generation."""
    return f"rows/rows-{shard:05d}.bin"


class Generation:
    """One pool and its rows; safe to share between threads.

    Shapes: K batches, n nodes of a batch, C cached rows, B bytes a row.

    Attributes:
        layout: `packed`, `pre-aggregated`, or `direct` (rows are in the Store; nothing but `pool` and `plan` is here).
        has_rows: slots, cache and runs are here; not when `direct`, nor where a folded layer needs no rows of its own.
        hops: the rows are those of nodes within so many.
        row_bytes, columns, dtype: B, F and the safetensors name of the values.
        num_cached: C.
        count: (K,) int64 rows of every run.
    """

    def __init__(self, path: Path, manifest: Manifest, *, pool: Pool | None = None, verify: str = "first") -> None:
        if verify not in VERIFY:
            raise ConfigError("GS-CFG-300", f"verify is {verify!r}; it must be one of {', '.join(VERIFY)}")
        self.path = path
        self.manifest = manifest
        self._verify = verify
        try:
            self.layout = str(manifest.parameters["layout"])
            how = manifest.parameters["aggregate"] if self.layout == "pre-aggregated" else None
            self.has_rows = self.layout == "packed" or (how is not None and KEEP_OWN[str(how)])
            self.num_cached = int(manifest.counts["cached"])
            self.row_bytes, self.columns = int(manifest.counts["row_bytes"]), int(manifest.counts["columns"])
            self.dtype = str(manifest.counts["dtype"])
            self._pool_id = str(manifest.inputs["pool"])
            if numpy_dtype(self.dtype).itemsize * self.columns != self.row_bytes or self.num_cached < 0:
                raise ValueError("a row size that dtype and columns give")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStoreError("GS-STORE-001", f"{path}: the manifest lacks {error}", hint=_MEND) from error
        self._given_pool = pool
        if self.has_rows:
            self._open_rows()

    @classmethod
    def open(cls, path: str | Path, *, pool: Pool | None = None, verify: str = "first") -> Generation:
        """The generation in folder `path`; its index is read and verified.

        Args:
            pool: its batches, where they do not lie in its own folder.
            verify: check slots and runs on their `first` read through this object, `always`, or `off`.

        Raises:
            InputDataError: no finished generation is there.
            CorruptStoreError: manifest or index are damaged, or a file is missing or of another size.
            VersionError: a newer gnnsys wrote it.
        """
        path = Path(path)
        return cls(path, read_manifest(path, FORMAT, VERSION), pool=pool, verify=verify)

    @property
    def id(self) -> str:
        return self.manifest.id

    @cached_property
    def digest(self) -> str:
        return self.manifest.digest

    @cached_property
    def pool(self) -> Pool:
        """The batches of this generation.

        Raises:
            CorruptStoreError: another pool lies there than the rows were made for.
        """
        pool = self._given_pool or Pool.open(self.path / "pool")
        if pool.digest != self._pool_id:
            raise CorruptStoreError(
                "GS-STORE-008", f"{pool.path}: is not the pool that {self.path} was packed from", hint=_MEND
            )
        return pool

    @property
    def hops(self) -> int:
        return self.pool.hops - (self.layout == "pre-aggregated")

    @cached_property
    def aggregates(self) -> Aggregates | None:
        """What the outermost blocks were folded into; None unless `pre-aggregated`.

        Raises:
            CorruptStoreError: others lie there than the manifest says.
        """
        if self.layout != "pre-aggregated":
            return None
        found = Aggregates.open(self.path / AGGREGATES, self.pool, verify=self._verify)
        if found.manifest.digest != self.manifest.counts.get("aggregates"):
            raise CorruptStoreError("GS-STORE-008", f"{found.path}: are not those of {self.path}", hint=_MEND)
        return found

    @cached_property
    def plan(self) -> StoredPlan:
        return read_plan(self.path)

    @property
    def cache_rows_bytes(self) -> int:
        """Bytes of the static cache in memory."""
        return self.num_cached * self.row_bytes

    def cache_nodes(self) -> np.ndarray:
        """(C,) ids of the cached nodes, hottest first, verified."""
        return read_array(self.path, self._entry(CACHE_NODES))

    def load_cache(self) -> np.ndarray:
        """(C, B) uint8 rows of the cached nodes, hottest first: one sequential read, verified.

        Raises:
            CorruptStoreError: they changed since they were written.
        """
        rows = np.empty((self.num_cached, self.row_bytes), dtype=np.uint8)
        if rows.size == 0:
            return rows
        entry = self._entry(CACHE_ROWS)
        path = self.path / CACHE_ROWS
        fd = open_read(path, num_bytes=entry.size)
        try:
            read_into(fd, rows, 0, path)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        if self._verify != "off" and digest(raw_bytes(rows)) != entry.digest:
            raise CorruptStoreError("GS-STORE-004", f"{path}: fails its checksum", hint=_MEND)
        return rows

    def slots_bytes(self, k: int) -> int:
        """Bytes that `slots(k)` requests: whole pages."""
        return int(self._slot_offset[k + 1] - self._slot_offset[k])

    def slots(self, k: int) -> np.ndarray:
        """(n,) uint32: where the row of every node of batch k is, in the order of the pool's ids; see `read_slots`."""
        return self.read_slots(k, aligned_buffer(self.slots_bytes(k)))[0]

    def run_bytes(self, k: int) -> int:
        """Bytes that `read_run(k, ..)` requests: whole pages, 0 when every row of the batch is cached."""
        return round_up(int(self.count[k]) * self.row_bytes)

    def read_run(self, k: int, buffer: np.ndarray | None = None) -> np.ndarray:
        """(rows, B) uint8: the packed rows of batch k in ascending node id, one contiguous read.

        Args:
            buffer: page-aligned uint8 of at least `run_bytes(k)`; the result points into it. Made when None.

        Raises:
            CorruptStoreError: they are not what was written.
        """
        count, num_bytes = int(self.count[k]), self.run_bytes(k)
        data = aligned_buffer(num_bytes) if buffer is None else buffer[:num_bytes]
        if num_bytes:
            self._shards[int(self._shard[k])].read(data, int(self._offset[k]))
        rows = data[: count * self.row_bytes].reshape(count, self.row_bytes)
        if self._due(self._runs_good, k):
            self._check_run(k, chunk_sum(rows))
        return rows

    def pieces(self, k: int, buffer: np.ndarray) -> Iterator[tuple[int, np.ndarray, int]]:
        """The run of batch k piece by piece: position of the first row, rows (n, B) uint8, bytes asked from the disk.

        A small piece is used while it is in the processor's cache: reading into the same small buffer again and again
        is a third faster than reading a run of tens of MiB whole, and so is what is done with the rows.

        Args:
            buffer: page-aligned uint8 of `piece_bytes(row_bytes)`, or of `run_bytes(k)` where that is less; each piece
                points into it, until the next one.

        Raises:
            CorruptStoreError: with the last piece, the run is not what was written.
        """
        count, step, total = int(self.count[k]), piece_bytes(self.row_bytes) // self.row_bytes, 0
        for first in range(0, count, step):
            rows = buffer[: min(step, count - first) * self.row_bytes].reshape(-1, self.row_bytes)
            at = int(self._offset[k]) + first * self.row_bytes
            asked = self._shards[int(self._shard[k])].read(buffer[: round_up(rows.size)], at)
            if self._due(self._runs_good, k):
                total += chunk_sum(rows, first_slot=first)
                if first + len(rows) == count:
                    self._check_run(k, total % (1 << 64))
            yield first, rows, asked

    def planned_bytes(self, k: int) -> int:
        """Bytes that reading the slots and the run of batch k requests."""
        return self.slots_bytes(k) + self.run_bytes(k) if self.has_rows else 0

    def verify(self, deep: bool = False) -> list[str]:
        """Problems found, one sentence each; `deep` reads every byte of pool, cache, slots, runs, aggregates again."""
        return list(self._problems(deep))

    def close(self) -> None:
        """Close every file that this object opened."""
        for file in (*self._shards, self._slot_file) if self.has_rows else ():
            file.close()
        if self.__dict__.get("aggregates") is not None and self.aggregates:
            self.aggregates.close()
        if "pool" in self.__dict__ and self._given_pool is None:
            self.pool.close()

    def read_slots(self, k: int, buffer: np.ndarray) -> tuple[np.ndarray, int]:
        """`slots(k)`, and the bytes asked from the disk for them.

        Args:
            buffer: page-aligned uint8 of at least `slots_bytes(k)`; the slots point into it.

        Raises:
            CorruptStoreError: they are not what was written.
        """
        data = buffer[: self.slots_bytes(k)]
        asked = self._slot_file.read(data, int(self._slot_offset[k]))
        slots = data[: 4 * int(self._num_nodes[k])].view("<u4")
        if self._due(self._slots_good, k):
            self._check_slots(k, slots)
            self._slots_good[k] = True
        return slots, asked

    def _check_run(self, k: int, found: int) -> None:
        if found != int(self._sum[k]):
            where = f"{self._run_path(k)}: rows of batch {k} (file offset {int(self._offset[k])})"
            raise CorruptStoreError("GS-STORE-004", f"{where} fail their checksum", hint=_MEND)
        self._runs_good[k] = True

    def _open_rows(self) -> None:
        """Read the index, check that it tells one story with the sizes of the files, open them."""
        self._num_nodes = self.pool.num_nodes[:, self.hops]
        read = {path: self._column(path) for path in _INDEX}
        self._slot_offset, self._slot_hash = read[SLOT_OFFSET], read[SLOT_HASH]
        self._shard, self._offset = read[ROW_SHARD].astype(np.int64), read[ROW_OFFSET]
        self.count, self._sum = read[ROW_COUNT], read[ROW_SUM]
        sizes = [f.size for f in sorted(self.manifest.files, key=lambda f: f.path) if f.role == "rows"]
        self._check_index(sizes)
        slots = self._entry(SLOTS)
        self._slot_file = DirectFile(self.path / SLOTS, slots.size)
        self._shards = [DirectFile(self.path / rows_path(i), size) for i, size in enumerate(sizes)]
        self._slots_good = np.zeros(len(self.count), dtype=bool)
        self._runs_good = np.zeros(len(self.count), dtype=bool)

    def _entry(self, path: str) -> FileEntry:
        try:
            return self.manifest.entry(path)
        except KeyError:
            raise CorruptStoreError("GS-STORE-001", f"{self.path}: the manifest lacks {path}", hint=_MEND) from None

    def _column(self, path: str) -> np.ndarray:
        entry = self._entry(path)
        dtype, extra = _INDEX[path]
        if entry.dtype != dtype or entry.shape != (len(self._num_nodes) + extra,):
            raise CorruptStoreError("GS-STORE-001", f"{self.path}: {path} has an impossible shape", hint=_MEND)
        return read_array(self.path, entry)

    def _check_index(self, sizes: list[int]) -> None:
        slot_bytes = np.diff(self._slot_offset)
        run_bytes = -(-self.count * self.row_bytes // PAGE) * PAGE
        used = self.count > 0
        shard_ends = np.array([*sizes, 0], dtype=np.int64)[np.minimum(self._shard, len(sizes))]
        good = (
            self._slot_offset[0] == 0
            and (slot_bytes == -(-4 * self._num_nodes // PAGE) * PAGE).all()
            and self._entry(CACHE_ROWS).size == self.cache_rows_bytes
            and self._slot_offset[-1] == self._entry(SLOTS).size
            and ((self.count >= 0) & (self.count <= self._num_nodes)).all()
            and ((self._offset >= 0) & (self._offset % PAGE == 0)).all()
            and (self._offset + run_bytes <= shard_ends)[used].all()
        )
        if not good:
            raise CorruptStoreError("GS-STORE-007", f"{self.path}: index and files disagree", hint=_MEND)

    def _due(self, done: np.ndarray, k: int) -> bool:
        return self._verify == "always" or (self._verify == "first" and not done[k])

    def _check_slots(self, k: int, slots: np.ndarray) -> None:
        """The hash first; then the range, so that no slot of a foreign file indexes outside cache and run."""
        hashed = xxhash.xxh3_64_intdigest(raw_bytes(slots), seed=k)
        top = int(slots.max(initial=0))
        if hashed != int(self._slot_hash[k]) or (len(slots) and top >= self.num_cached + int(self.count[k])):
            raise CorruptStoreError(
                "GS-STORE-004", f"{self.path / SLOTS}: slots of batch {k} fail their checksum", hint=_MEND
            )

    def _run_path(self, k: int) -> Path:
        return self.path / rows_path(int(self._shard[k]))

    def _problems(self, deep: bool) -> Iterator[str]:
        checks: list[Callable[[], Any]] = [partial(read_plan, self.path)]
        checks += [partial(self._check_file, entry, deep) for entry in self.manifest.files]
        if deep and self.has_rows:
            again = Generation(self.path, self.manifest, pool=self.pool, verify="always")
            checks += [
                partial(check, k) for k in range(len(self.count)) for check in (again._deep_slots, again._deep_run)
            ]
        for check in checks:
            try:
                check()
            except GnnsysError as error:
                yield error.message
        try:
            yield from self.aggregates.verify(deep) if self.aggregates else ()
        except GnnsysError as error:
            yield error.message
        yield from self.pool.verify(deep)

    def _deep_slots(self, k: int) -> None:
        """Read them; then the gap behind them, which no hash covers, must be zero."""
        data = aligned_buffer(self.slots_bytes(k))
        self._require_zero(data[self.read_slots(k, data)[0].nbytes :], self.path / SLOTS, k)

    def _deep_run(self, k: int) -> None:
        data = aligned_buffer(self.run_bytes(k))
        self._require_zero(data[self.read_run(k, data).nbytes :], self._run_path(k), k)

    def _require_zero(self, gap: np.ndarray, path: Path, k: int) -> None:
        if gap.any():
            raise CorruptStoreError("GS-STORE-004", f"{path}: the gap behind batch {k} is not zero", hint=_MEND)

    def _check_file(self, entry: FileEntry, deep: bool) -> None:
        """Its size; when `deep` also its digest, if it has one of its own."""
        path = self.path / entry.path
        os.close(open_read(path, num_bytes=entry.size))
        if deep and entry.digest is not None and digest_file(path) != entry.digest:
            raise CorruptStoreError("GS-STORE-004", f"{path}: fails its checksum", hint=_MEND)


_INDEX = {
    SLOT_OFFSET: ("I64", 1),
    SLOT_HASH: ("U64", 0),
    ROW_SHARD: ("U32", 0),
    ROW_OFFSET: ("I64", 0),
    ROW_COUNT: ("I64", 0),
    ROW_SUM: ("U64", 0),
}
"""Index columns of a packed generation: dtype, and how many values more than there are batches."""
