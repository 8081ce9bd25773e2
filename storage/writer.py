"""Write one file front to back, summing its blocks and hashing the whole from the source buffer on the way."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.checksums import BLOCK_BYTES, context_seed, digest
from gnnsys.storage.files import (
    atomic_write,
    disk_errors,
    make_data_durable,
    make_durable,
    make_folder,
    open_read,
    open_sized,
    raw_bytes,
    read_into,
    write_all,
)
from gnnsys.storage.manifest import FileEntry, dtype_name, numpy_dtype

_REREAD_BYTES = 4 << 20


class SequentialWriter:
    """A file of `folder` that grows by `append` and ends as manifest entries.

    Args:
        folder: the artefact's folder.
        path: relative to it; parents are created.
        artefact_id: seeds the block sums.
        num_bytes: final size when known, allocated at once so that a full disk shows at the start.
        resume: what `state()` returned when the last journalled unit ended; bytes behind it are dropped, bytes
            before it are read again and must still hash to what they did.

    Raises:
        CorruptStoreError: the bytes to continue from changed.
        DiskSpaceError: no space left.
    """

    def __init__(
        self,
        folder: Path,
        path: str,
        artefact_id: str,
        *,
        num_bytes: int | None = None,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder, self._path = folder, path
        self._full = folder / path
        make_folder(self._full.parent)
        self._seed = context_seed(artefact_id, path)
        self._whole = xxhash.xxh3_128()
        self._block = xxhash.xxh3_64(seed=self._seed)
        self._sums = array("Q")
        self._in_block = 0
        self.num_bytes = 0
        kept = int(resume["bytes"]) if resume else 0
        self._fd = open_sized(self._full, max(num_bytes or 0, kept))
        if resume:
            try:
                self._continue(kept, dict(resume))
            except BaseException:
                self.close()
                raise

    def append(self, data: np.ndarray) -> None:
        """Write the bytes of a contiguous array at the end."""
        view = raw_bytes(data)
        with disk_errors(self._full):
            write_all(self._fd, view, self.num_bytes)
        self._sum(view)

    def state(self) -> dict[str, Any]:
        """Where the file stands, for the journal: size and hash so far."""
        return {"bytes": self.num_bytes, "hash": self._whole.hexdigest()}

    def sync(self) -> None:
        """Make what was appended durable."""
        with disk_errors(self._full):
            make_data_durable(self._fd)

    def finish(self, dtype: np.dtype, shape: tuple[int, ...], role: str) -> tuple[FileEntry, FileEntry]:
        """Close the file; returns its entry and that of its block sums."""
        with disk_errors(self._full):
            os.ftruncate(self._fd, self.num_bytes)
            make_durable(self._fd)
        self.close()
        if self._in_block:
            self._end_block()
        sums = np.array(self._sums, dtype=np.uint64)
        side = self._path + ".xxh"
        atomic_write(self._folder / side, sums.tobytes())
        entry = FileEntry(
            path=self._path,
            size=self.num_bytes,
            dtype=dtype_name(dtype),
            shape=shape,
            role=role,
            digest="xxh3-128:" + self._whole.hexdigest(),
        )
        return entry, array_entry(side, sums, "block_sums")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sum(self, view: memoryview) -> None:
        self._whole.update(view)
        self.num_bytes += len(view)
        while len(view):
            part = view[: BLOCK_BYTES - self._in_block]
            self._block.update(part)
            self._in_block += len(part)
            view = view[len(part) :]
            if self._in_block == BLOCK_BYTES:
                self._end_block()

    def _end_block(self) -> None:
        self._sums.append(self._block.intdigest())
        self._block = xxhash.xxh3_64(seed=(self._seed + len(self._sums)) & 0xFFFFFFFFFFFFFFFF)
        self._in_block = 0

    def _continue(self, kept: int, state: dict[str, Any]) -> None:
        self._reread(kept)
        if self.state() != state:
            raise CorruptStoreError(
                "GS-STORE-006",
                f"{self._full}: the first {kept} bytes changed since they were written",
                hint="Delete the unfinished folder and repeat the command.",
            )

    def _reread(self, num_bytes: int) -> None:
        buffer = np.empty(min(num_bytes, _REREAD_BYTES), dtype=np.uint8)
        while self.num_bytes < num_bytes:
            part = buffer[: num_bytes - self.num_bytes]
            read_into(self._fd, part, self.num_bytes, self._full)
            self._sum(part.data)


def array_entry(path: str, array: np.ndarray, role: str) -> FileEntry:
    """Manifest entry of a small array written whole."""
    return FileEntry(
        path=path,
        size=array.nbytes,
        dtype=dtype_name(array.dtype),
        shape=tuple(array.shape),
        role=role,
        digest=digest(raw_bytes(array)),
    )


def write_array(folder: Path, path: str, array: np.ndarray, role: str) -> FileEntry:
    """Write a small array atomically and return its entry."""
    make_folder((folder / path).parent)
    atomic_write(folder / path, np.ascontiguousarray(array).tobytes())
    return array_entry(path, array, role)


def read_array(folder: Path, entry: FileEntry) -> np.ndarray:
    """Read a small array back and verify its digest.

    Raises:
        CorruptStoreError: its bytes are not those of the manifest.
    """
    path = folder / entry.path
    fd = open_read(path, num_bytes=entry.size)
    try:
        array = np.empty(entry.shape, dtype=numpy_dtype(entry.dtype))
        read_into(fd, array, 0, path)
    finally:
        os.close(fd)
    if digest(raw_bytes(array)) != entry.digest:
        raise CorruptStoreError(
            "GS-STORE-004", f"{path}: fails its checksum", hint="Make the folder again, or copy it from a good one."
        )
    return array
