"""Tables whose rows are at hand: an array, a cache in front of another table, and rows that a Run may rewrite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.storage import kernels
from gnnsys.storage.files import PAGE, open_sized
from gnnsys.storage.manifest import dtype_name as name_of
from gnnsys.storage.manifest import numpy_dtype
from gnnsys.storage.pages import pages_touched
from gnnsys.storage.table_base import FetchedRows, Table, byte_rows, checked_ids, checked_out


class MemoryTable(FetchedRows):
    """A table over an array that the caller keeps unchanged.

    Args:
        array: (N, F), any strides; copied only when it is not C-contiguous.
        dtype_name: safetensors name when the dtype alone does not say it (BF16 held as uint16).
    """

    checksum_bytes = 0

    def __init__(self, array: np.ndarray, dtype_name: str | None = None) -> None:
        if array.ndim != 2:
            raise InputDataError("GS-IN-403", f"a table has two dimensions, the array has shape {array.shape}")
        self._array = np.ascontiguousarray(array)
        self.num_rows, self.columns = array.shape
        self.dtype = self._array.dtype
        self.dtype_name = dtype_name or name_of(self.dtype)
        self.row_bytes = self.columns * self.dtype.itemsize

    def _fill(self, ids: np.ndarray, out: np.ndarray) -> int:
        kernels.gather(byte_rows(self._array), ids, byte_rows(out))
        return 0

    def request_bytes(self, ids: Any) -> int:
        checked_ids(ids, self.num_rows)
        return 0

    def close(self) -> None:
        pass


class CachedTable(FetchedRows):
    """`table` with some of its rows held in memory for good.

    Args:
        ids: (C,) unique row numbers of the cached rows, any order.
        rows: (C, F) those rows in the table's dtype; read from `table` when absent.
    """

    def __init__(self, table: Table, ids: np.ndarray, rows: np.ndarray | None = None) -> None:
        ids = checked_ids(ids, table.num_rows)
        order = np.argsort(ids, kind="stable")
        self._ids, self._place = ids[order], order
        if (self._ids[1:] == self._ids[:-1]).any():
            raise InputDataError("GS-IN-404", "a cached row is listed twice")
        self._rows = table.read(ids) if rows is None else checked_out(rows, (len(ids), table.columns), table.dtype)
        self._table = table
        self.num_rows, self.columns = table.num_rows, table.columns
        self.dtype, self.dtype_name, self.row_bytes = table.dtype, table.dtype_name, table.row_bytes

    @property
    def checksum_bytes(self) -> int:
        return self._table.checksum_bytes

    def _fill(self, ids: np.ndarray, out: np.ndarray) -> int:
        held, place = self._find(ids)
        missing = np.flatnonzero(~held)
        # rows that are missing follow the cached ones, in the order in which they were asked for
        where = np.where(held, place, 0)
        where[missing] = len(self._rows) + np.arange(len(missing))
        rest, asked = self._table.fetch(ids[missing])
        kernels.gather_two(byte_rows(self._rows), byte_rows(rest), where, byte_rows(out))
        return asked

    def request_bytes(self, ids: Any) -> int:
        ids = checked_ids(ids, self.num_rows)
        return self._table.request_bytes(ids[~self._find(ids)[0]])

    def close(self) -> None:
        self._table.close()

    def _find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether every id is cached, and where its row is."""
        if len(self._ids) == 0:
            return np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.int64)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._ids[at] == ids, self._place[at]


class MutableTable(FetchedRows):
    """Rows that training rewrites (node memories, embeddings). Belongs to a Run, never to a Store or a Pack.

    Threads may read at once; a write must not overlap another call on the same rows.

    Args:
        rows: (N, F), C-contiguous and writable, taken over without a copy. `MutableTable.at` keeps them in a file.
        dtype_name: safetensors name when the dtype alone does not say it (BF16 held as uint16).
    """

    checksum_bytes = 0

    def __init__(self, rows: np.ndarray, dtype_name: str | None = None) -> None:
        if rows.ndim != 2:
            raise InputDataError("GS-IN-403", f"a table has two dimensions, the array has shape {rows.shape}")
        self._array = checked_out(rows, rows.shape, rows.dtype)
        self.num_rows, self.columns = rows.shape
        self.dtype = rows.dtype
        self.dtype_name = dtype_name or name_of(rows.dtype)
        self.row_bytes = self.columns * self.dtype.itemsize
        self._in_file = isinstance(rows, np.memmap)

    @classmethod
    def at(cls, path: Path, num_rows: int, columns: int, dtype_name: str = "F32") -> MutableTable:
        """Rows in file `path`: those it holds when it has their size, else zeros; allocated now.

        Raises:
            DiskSpaceError: there is no room for them.
        """
        dtype = numpy_dtype(dtype_name)
        num_bytes = num_rows * columns * dtype.itemsize
        os.close(open_sized(path, num_bytes))
        if num_bytes == 0:
            return cls(np.zeros((num_rows, columns), dtype=dtype), dtype_name)
        return cls(np.memmap(path, dtype=dtype, mode="r+", shape=(num_rows, columns)), dtype_name)

    def _fill(self, ids: np.ndarray, out: np.ndarray) -> int:
        kernels.gather(byte_rows(self._array), ids, byte_rows(out))
        return self.request_bytes(ids)

    def write(self, ids: Any, rows: np.ndarray) -> None:
        """Replace rows `ids` (n,) by `rows` (n, F) in the table's dtype; the last of equal ids wins.

        Raises:
            InputDataError: an id is out of range, or `rows` has another shape or dtype.
        """
        ids = checked_ids(ids, self.num_rows)
        if rows.shape != (len(ids), self.columns) or rows.dtype != self.dtype:
            raise InputDataError(
                "GS-IN-405",
                f"rows are {rows.dtype} {rows.shape}; expected {self.dtype} of shape {(len(ids), self.columns)}",
            )
        kernels.scatter(byte_rows(np.ascontiguousarray(rows)), ids, byte_rows(self._array))

    def flush(self) -> None:
        """Make the rows of a file-backed table durable."""
        if isinstance(self._array, np.memmap):
            self._array.flush()

    def request_bytes(self, ids: Any) -> int:
        ids = checked_ids(ids, self.num_rows)
        return pages_touched(ids, self.row_bytes) * PAGE if self._in_file else 0

    def close(self) -> None:
        self.flush()
        self._array = np.empty((0, self.columns), dtype=self.dtype)
        self.num_rows = 0
