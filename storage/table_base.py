"""What a table is: rows by id, with the checks and conversions that every kind of table shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import torch

from gnnsys.errors import InputDataError
from gnnsys.storage.manifest import numpy_dtype

_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "BOOL": torch.bool,
}


class Table(Protocol):
    """Rows by id. In memory, mapped, direct and cached tables are one type and are stacked.

    `read` may be called from several threads at once.
    """

    num_rows: int
    columns: int
    dtype: np.dtype
    """numpy type of the values; BF16 rows are their 16 bits."""
    dtype_name: str
    """safetensors name of the values."""
    row_bytes: int
    checksum_bytes: int
    """Bytes read only to verify, so far; `request_bytes` does not count them."""

    def read(self, ids: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Rows `ids` in the order and multiplicity asked for.

        Args:
            ids: (n,) integers of any width in [0, num_rows); n may be 0.
            out: (n, columns) of the table's dtype, C-contiguous, to be filled and returned.

        Returns:
            (n, columns) in the stored dtype, C-contiguous, never a view of the table.

        Raises:
            InputDataError: an id is out of range, or `out` does not fit.
            CorruptStoreError: the file behind the table changed.
        """
        ...

    def fetch(self, ids: Any, out: np.ndarray | None = None) -> tuple[np.ndarray, int]:
        """What `read` returns, and the bytes that it asked from the disk (through a map: the pages under the rows)."""
        ...

    def request_bytes(self, ids: Any) -> int:
        """Bytes that `fetch` of these ids will ask from the disk, whole pages counted; 0 when it asks none."""
        ...

    def close(self) -> None:
        """Let go of files and threads. Reading afterwards is an error."""
        ...


class FetchedRows(ABC):
    """The part of a Table that checks and allocates; a subclass says in `_fill` where the rows come from."""

    num_rows: int
    columns: int
    dtype: np.dtype
    name = "the table"
    """What errors call it."""

    def read(self, ids: Any, out: np.ndarray | None = None) -> np.ndarray:
        """See Table."""
        return self.fetch(ids, out)[0]

    def fetch(self, ids: Any, out: np.ndarray | None = None) -> tuple[np.ndarray, int]:
        """See Table."""
        ids = checked_ids(ids, self.num_rows, self.name)
        out = checked_out(out, (len(ids), self.columns), self.dtype)
        return out, self._fill(ids, out) if out.nbytes else 0

    @abstractmethod
    def _fill(self, ids: np.ndarray, out: np.ndarray) -> int:
        """out (n, columns) <- rows `ids`, both checked; returns the bytes asked from the disk."""


def checked_ids(ids: Any, num_rows: int, what: str = "the table") -> np.ndarray:
    """`ids` as contiguous (n,) int64 in [0, num_rows).

    Raises:
        InputDataError: not one-dimensional integers, or one is out of range (the first is named).
    """
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise InputDataError(
            "GS-IN-400",
            f"ids of shape {given.shape} and dtype {given.dtype}; row ids are one-dimensional integers",
            hint="Convert a mask with numpy.flatnonzero.",
        )
    if given.size and (int(given.min()) < 0 or int(given.max()) >= num_rows):
        at = int(np.argmax((given < 0) | (given >= num_rows)))
        raise InputDataError(
            "GS-IN-401",
            f"row id {given[at]} at position {at} is outside [0, {num_rows}) of {what}",
            hint="Were ids of another graph, or positions inside a batch, passed?",
        )
    return np.ascontiguousarray(given, dtype=np.int64)


def checked_out(out: np.ndarray | None, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """`out`, or a new array when it is None.

    Raises:
        InputDataError: `out` has another shape or dtype, or cannot be written row by row.
    """
    if out is None:
        return np.empty(shape, dtype=dtype)
    if out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        raise InputDataError(
            "GS-IN-402",
            f"out is {out.dtype} {out.shape}; expected a writable, C-contiguous {dtype} array of shape {shape}",
        )
    return out


def byte_rows(array: np.ndarray) -> np.ndarray:
    """A C-contiguous (n, F) array as (n, row bytes) uint8, without a copy."""
    row_bytes = array.shape[1] * array.dtype.itemsize
    return array.view(np.uint8) if row_bytes and len(array) else np.empty((len(array), row_bytes), dtype=np.uint8)


def torch_dtype(dtype_name: str) -> torch.dtype:
    """The torch type of a safetensors dtype name."""
    return _TORCH[dtype_name]


def torch_rows(array: np.ndarray, dtype_name: str) -> torch.Tensor:
    """A table's rows as a tensor over the same memory; BF16 bits become bfloat16."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype_name == "BF16" else tensor


def empty_rows(num_rows: int, columns: int, dtype_name: str, *, pin: bool = False) -> tuple[torch.Tensor, np.ndarray]:
    """A new (num_rows, columns) tensor and the numpy array over its memory that `Table.read` fills.

    Args:
        pin: page-locked, for copies to a GPU.
    """
    tensor = torch.empty((num_rows, columns), dtype=torch_dtype(dtype_name), pin_memory=pin)
    bits = tensor.view(torch.int16) if dtype_name == "BF16" else tensor
    return tensor, bits.numpy().view(numpy_dtype(dtype_name))
