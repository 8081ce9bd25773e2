"""Aggregates: what every destination of the outermost block receives, one run of direct reads per batch.

    aggregates/runs-00000.bin ...   one run of D rows per batch, each starting on a page
    aggregates/hash.bin             (K,) uint64 xxh3-64 of every run

D is what the pool says of hop L - 1, so nothing but the hashes needs an index.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gnnsys.errors import CorruptStoreError, GnnsysError
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.files import PAGE, open_read, raw_bytes, round_up
from gnnsys.storage.manifest import Manifest, numpy_dtype, read_manifest
from gnnsys.storage.pages import run_layout
from gnnsys.storage.pool import Pool
from gnnsys.storage.writer import read_array

FORMAT, VERSION = "gnnsys-aggregates", 1
HASH = "hash.bin"
HOWS = ("sum", "mean", "gcn")
KEEP_OWN = {"sum": True, "mean": True, "gcn": False}
"""Whether a layer reads its own rows beside the aggregate; `gcn` has counted them in."""

_MEND = "Delete the pack's folder and repeat `gnnsys pack`, or copy the file from a good pack."


def runs_path(shard: int) -> str:
    """Where shard `shard` of the runs lies in the folder."""
    return f"runs-{shard:05d}.bin"


def sum_dtype(table_dtype: str, how: str) -> str:
    """Type of stored aggregates of a table: its own when that is a short float that holds them, else F32. A mean is no
    larger than what it is of; sums of F16 would overflow."""
    return table_dtype if table_dtype == "BF16" or (table_dtype == "F16" and how == "mean") else "F32"


def destinations(pool: Pool) -> np.ndarray:
    """(K,) int64: D, the nodes of every batch that the outermost block ends at."""
    return pool.num_nodes[:, pool.hops - 1]


class Aggregates:
    """The aggregates of the batches of one pool; safe to share between threads.

    Shapes: D destinations of a batch, F columns, A bytes an aggregate.

    Attributes:
        how: `sum`, `mean` or `gcn`.
        columns, dtype, row_bytes: F, the safetensors name of the values, A.
    """

    def __init__(self, path: Path, manifest: Manifest, pool: Pool, *, verify: str = "first") -> None:
        self.path, self.manifest, self._pool, self._verify = path, manifest, pool, verify
        try:
            self.how = str(manifest.parameters["how"])
            self.columns, self.dtype = int(manifest.counts["columns"]), str(manifest.counts["dtype"])
            self.row_bytes = self.columns * numpy_dtype(self.dtype).itemsize
            shard_bytes, hashes = int(manifest.parameters["shard_bytes"]), manifest.entry(HASH)
            if self.how not in HOWS or manifest.inputs["pool"] != pool.digest:
                raise ValueError("the pool that it lies beside")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStoreError("GS-STORE-001", f"{path}: the manifest lacks {error}", hint=_MEND) from error
        self.num_folded = pool.num_edges.sum(axis=1)
        self.count = destinations(pool)
        self._shard, self._offset, sizes = run_layout(self.count, self.row_bytes, shard_bytes)
        self._hash = read_array(path, hashes)
        if self._hash.shape != self.count.shape:
            raise CorruptStoreError("GS-STORE-007", f"{path / HASH}: has not one hash per batch", hint=_MEND)
        self._files = [DirectFile(path / runs_path(i), size) for i, size in enumerate(sizes)]
        self._good = np.zeros(len(self.count), dtype=bool)

    @classmethod
    def open(cls, path: Path, pool: Pool, *, verify: str = "first") -> Aggregates:
        """Those in folder `path`, made from `pool`.

        Raises:
            InputDataError: no finished aggregates are there.
            CorruptStoreError: manifest or hashes are damaged, or a file is missing or of another size.
        """
        return cls(path, read_manifest(path, FORMAT, VERSION), pool, verify=verify)

    def run_bytes(self, k: int) -> int:
        """Bytes that `read_into(k, ..)` requests: whole pages."""
        return round_up(int(self.count[k]) * self.row_bytes)

    def read_into(self, k: int, out: np.ndarray, page: np.ndarray) -> int:
        """out (D, A) uint8, on a page <- the aggregates of batch k in the order of its nodes: straight from the disk,
        but for the last page, which may be longer than what is left of `out`. Returns the bytes asked for.

        Args:
            page: page-aligned uint8 of one page.

        Raises:
            CorruptStoreError: they are not what was written.
        """
        flat, file = out.reshape(-1), self._files[int(self._shard[k])] if out.size else None
        whole, at, asked = len(flat) // PAGE * PAGE, int(self._offset[k]), 0
        if file is not None:
            asked += file.read(flat[:whole], at)
            if whole < len(flat):
                asked += file.read(page, at + whole)
                flat[whole:] = page[: len(flat) - whole]
        if self._verify == "always" or (self._verify == "first" and not self._good[k]):
            if run_hash(flat, k) != int(self._hash[k]):
                raise CorruptStoreError(
                    "GS-STORE-004", f"{self._where(k)}: aggregates of batch {k} fail their checksum", hint=_MEND
                )
            self._good[k] = True
        return asked

    def verify(self, deep: bool = False) -> list[str]:
        """Problems found, one sentence each; `deep` reads every run again."""
        return list(self._problems(deep))

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()

    def _problems(self, deep: bool) -> Iterator[str]:
        checks: list[Callable[[], Any]] = [partial(self._check_size, f.path, f.size) for f in self.manifest.files]
        if deep:
            again = Aggregates(self.path, self.manifest, self._pool, verify="always")
            checks += [partial(again._check_run, k) for k in range(len(self.count))]
        for check in checks:
            try:
                check()
            except GnnsysError as error:
                yield error.message

    def _check_size(self, path: str, size: int) -> None:
        os.close(open_read(self.path / path, num_bytes=size))

    def _check_run(self, k: int) -> None:
        """Read it; then the gap behind it, which no hash covers, must be zero."""
        data, page = aligned_buffer(int(self.count[k]) * self.row_bytes), aligned_buffer(PAGE)
        self.read_into(k, data, page)
        if len(data) % PAGE and page[len(data) % PAGE :].any():
            raise CorruptStoreError("GS-STORE-004", f"{self._where(k)}: the gap behind batch {k} is not zero")

    def _where(self, k: int) -> Path:
        return self.path / runs_path(int(self._shard[k]))


def run_hash(rows: np.ndarray, k: int) -> int:
    """xxh3-64 of the bytes of a run, seeded with the number of its batch."""
    return xxhash.xxh3_64_intdigest(raw_bytes(rows), seed=k)
