"""Tables in files of raw rows: what all share (shape, verification by blocks), and the one that maps its file.

A row is served only after the 64 KiB blocks it lies on were read and matched with their sums once in this process.
"""

from __future__ import annotations

import mmap
import os
import threading
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gnnsys.storage import kernels
from gnnsys.storage.checksums import BLOCK_BYTES, BlockChecks, context_seed
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import PAGE, map_array, open_read, read_into, round_up
from gnnsys.storage.manifest import FileEntry, numpy_dtype
from gnnsys.storage.pages import pages_of, pages_touched
from gnnsys.storage.table_base import FetchedRows, byte_rows, checked_ids

Verify = Literal["first", "always", "off"]
"""Check a block when it is first touched in this process, whenever it is touched, or never."""

STAGE_PAGES = 256
"""1 MiB per thread: one long request, or many short ones between two copies."""


class FileTable(FetchedRows):
    """A file of rows whose blocks are verified; the subclasses fetch. Pickles as a path and reopens.

    Args:
        folder: the artefact's folder.
        entry: the file in its manifest: raw (N, F) rows, with block sums in `<path>.xxh`.
        artefact_id: identity the sums are seeded with.
        verify: when blocks are checked.

    Raises:
        CorruptStoreError: a file is missing or has another size.
    """

    def __init__(self, folder: Path, entry: FileEntry, artefact_id: str, verify: Verify = "first") -> None:
        self._made_of = (folder, entry, artefact_id, verify)
        self.path = folder / entry.path
        self.name = str(self.path)
        self.num_rows, self.columns = entry.shape
        self.dtype, self.dtype_name = numpy_dtype(entry.dtype), entry.dtype
        self.row_bytes = self.columns * self.dtype.itemsize
        self.checksum_bytes = 0
        self.num_bytes = entry.size
        self._verify = verify
        sums = map_array(self.path.with_name(self.path.name + ".xxh"), "<u8", (-(-entry.size // BLOCK_BYTES),))
        self._checks = BlockChecks(sums, context_seed(artefact_id, entry.path), self.path)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    @abstractmethod
    def read_raw(self, buffer: np.ndarray, offset: int) -> None:
        """Fill page-aligned `buffer` from page-aligned `offset` as far as the file goes."""

    def verify_blocks(self, first: int, data: np.ndarray) -> None:
        """Match the bytes of whole blocks, from block `first` on, with their sums.

        Raises:
            CorruptStoreError: a block differs; the file and the block are named.
        """
        for at in range(0, len(data), BLOCK_BYTES):
            self._checks.check(first + at // BLOCK_BYTES, data[at : at + BLOCK_BYTES].data)

    def request_bytes(self, ids: Any) -> int:
        return pages_touched(checked_ids(ids, self.num_rows, str(self.path)), self.row_bytes) * PAGE

    def _unverified(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of the blocks under `ids` that must be checked before their rows are served, ascending."""
        if self._verify == "off":
            return np.empty(0, dtype=np.int64)
        blocks = pages_of(ids, self.row_bytes, BLOCK_BYTES)
        return blocks if self._verify == "always" else self._checks.unchecked(blocks)

    def _check(self, blocks: np.ndarray, stage: np.ndarray) -> None:
        """Read and verify `blocks` (ascending), neighbours in one request that fits the stage."""
        longest = len(stage) // BLOCK_BYTES
        for near in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
            for at in range(0, len(near), longest):
                self._check_run(near[at : at + longest], stage)

    def _check_run(self, blocks: np.ndarray, stage: np.ndarray) -> None:
        offset = int(blocks[0]) * BLOCK_BYTES
        num_bytes = min(len(blocks) * BLOCK_BYTES, self.num_bytes - offset)
        self.read_raw(stage[: round_up(num_bytes)], offset)
        self.verify_blocks(int(blocks[0]), stage[:num_bytes])
        with self._lock:
            self.checksum_bytes += round_up(num_bytes)


class MappedTable(FileTable):
    """Rows through a read-only map: the page cache is the only cache. Arguments and errors are FileTable's."""

    def __init__(self, folder: Path, entry: FileEntry, artefact_id: str, verify: Verify = "first") -> None:
        super().__init__(folder, entry, artefact_id, verify)
        self._rows = map_array(self.path, self.dtype, (self.num_rows, self.columns))
        if isinstance(self._rows, np.memmap):
            self._rows._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]

    def _fill(self, ids: np.ndarray, out: np.ndarray) -> int:
        blocks = self._unverified(ids)
        if len(blocks):
            self._check(blocks, aligned_buffer(STAGE_PAGES * PAGE))
        kernels.gather(byte_rows(self._rows), ids, byte_rows(out))
        return self.request_bytes(ids)

    def read_raw(self, buffer: np.ndarray, offset: int) -> None:
        fd = open_read(self.path, num_bytes=self.num_bytes)
        try:
            read_into(fd, buffer[: self.num_bytes - offset], offset, self.path)
        finally:
            os.close(fd)

    def close(self) -> None:
        self._rows = self._rows[:0]
        self.num_rows = 0
