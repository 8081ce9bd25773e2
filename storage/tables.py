"""The tables by one name each, and `open_table`: a file of rows of an artefact behind the backend asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from gnnsys.errors import ConfigError
from gnnsys.storage.checksums import BLOCK_BYTES
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import PAGE, round_up
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.table_base import Table, byte_rows, checked_ids, empty_rows, torch_dtype, torch_rows
from gnnsys.storage.table_direct import DirectTable
from gnnsys.storage.table_files import FileTable, MappedTable, Verify
from gnnsys.storage.table_memory import CachedTable, MemoryTable, MutableTable

__all__ = [
    "CachedTable",
    "DirectTable",
    "FileTable",
    "MappedTable",
    "MemoryTable",
    "MutableTable",
    "Table",
    "Verify",
    "byte_rows",
    "checked_ids",
    "empty_rows",
    "load_rows",
    "open_table",
    "torch_dtype",
    "torch_rows",
]

Backend = Literal["mapped", "direct", "memory"]


def open_table(
    folder: Path, entry: FileEntry, artefact_id: str, backend: str = "mapped", verify: Verify = "first"
) -> Table:
    """The rows of one file of a finished artefact.

    Args:
        folder: the artefact's folder.
        entry: the file in its manifest, with block sums beside it.
        artefact_id: the artefact's id.
        backend: `mapped` (page cache), `direct` (O_DIRECT) or `memory` (read now, front to back).
        verify: when blocks are checked against their sums.

    Raises:
        CorruptStoreError: the file is missing, has another size or, for `memory`, fails a checksum.
    """
    if backend == "mapped":
        return MappedTable(folder, entry, artefact_id, verify)
    if backend not in ("direct", "memory"):
        raise ConfigError(
            "GS-CFG-400", f"there is no table backend {backend!r}", hint="Choose mapped, direct or memory."
        )
    direct = DirectTable(folder, entry, artefact_id, verify)
    if backend == "direct":
        return direct
    try:
        return MemoryTable(load_rows(direct, verify), entry.dtype)
    finally:
        direct.close()


def load_rows(table: DirectTable, verify: Verify = "first", chunk_bytes: int = 64 * BLOCK_BYTES) -> np.ndarray:
    """Every row of a direct table in order, (N, F): one sequential pass that verifies what it reads."""
    rows = np.empty((table.num_rows, table.columns), dtype=table.dtype)
    flat = byte_rows(rows).reshape(-1)
    stage = aligned_buffer(chunk_bytes)
    for offset in range(0, table.num_bytes, chunk_bytes):
        part = flat[offset : offset + chunk_bytes]
        table.read_raw(stage[: round_up(len(part), PAGE)], offset)
        if verify != "off":
            table.verify_blocks(offset // BLOCK_BYTES, stage[: len(part)])
        part[:] = stage[: len(part)]
    return rows
