"""Arrays in memory as a Source: what tests and small examples start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.source import Names, Rows
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import raw_bytes
from gnnsys.storage.store import Store

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job


def native_dtype(dtype: np.dtype) -> np.dtype:
    """The type that values of `dtype` are kept as: this machine's byte order, booleans as 0 and 1."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")


def rows_of_array(array: np.ndarray) -> Rows:
    """An (N, F) or (N,) array, in memory or mapped, any byte order and layout, as rows in native order."""
    columns = array.shape[1] if array.ndim == 2 else 1
    native = native_dtype(array.dtype)

    def read(start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(array[start:stop], dtype=native).reshape(stop - start, columns)

    return Rows(len(array), columns, native, read)


class ArraySource:
    """A graph given as arrays.

    Args:
        src, dst: (E,) integers; edge i runs from `src[i]` to `dst[i]`.
        num_nodes: N; None takes the largest id + 1.
        x: (N, F) features. y: (N,) classes, -1 = unlabelled, or (N, T). splits: node ids by name.
    """

    names: Names | None = None
    header_lines = 0
    num_classes: int | None = None
    label_kind: str | None = None
    sequential = False

    def __init__(
        self,
        src: np.ndarray,
        dst: np.ndarray,
        num_nodes: int | None = None,
        *,
        x: np.ndarray | None = None,
        y: np.ndarray | None = None,
        splits: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._src, self._dst = np.asarray(src), np.asarray(dst)
        if self._src.shape != self._dst.shape or self._src.ndim != 1:
            raise InputDataError("GS-IN-104", f"src has shape {self._src.shape}, dst {self._dst.shape}, expected (E,)")
        for name, ids in (("src", self._src), ("dst", self._dst)):
            if ids.size and ids.dtype.kind not in "iu":
                raise InputDataError("GS-IN-104", f"{name} holds {ids.dtype}, expected integers")
        if x is not None and np.ndim(x) != 2:
            raise InputDataError("GS-IN-123", f"x has shape {np.shape(x)}, expected (N, F)")
        rows = next((len(a) for a in (x, y) if a is not None), None)
        self.num_nodes = rows if num_nodes is None else num_nodes
        self.num_edges = len(self._src)
        self.tables: Mapping[str, Rows] = {} if x is None else {"x": rows_of_array(np.asarray(x))}
        self.labels: Rows | None = None if y is None else rows_of_array(np.asarray(y))
        self.splits = [{name: np.asarray(ids) for name, ids in splits.items()}] if splits else []
        given = {"src": src, "dst": dst, "x": x, "y": y, **{f"split:{k}": v for k, v in (splits or {}).items()}}
        self._inputs = {name: _identity(np.asarray(a)) for name, a in given.items() if a is not None}

    def fingerprint(self) -> dict[str, Any]:
        return {"arrays": self._inputs, "nodes": self.num_nodes}

    def input_bytes(self) -> int:
        return 0

    def prepare(self, job: Job) -> None:
        """Nothing to unpack."""

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return self._src[start:stop].astype(np.int64), self._dst[start:stop].astype(np.int64)

    def edge_place(self, number: int) -> str:
        return f"edge {number}"


def _identity(array: np.ndarray) -> list[Any]:
    """Type, shape and content: equal bytes of another type are another input."""
    if array.dtype.hasobject:
        raise InputDataError("GS-IN-111", f"holds {array.dtype}, expected plain booleans, integers or floats")
    return [array.dtype.str, list(array.shape), digest(raw_bytes(array))]


def ingest_arrays(
    out: str | Path,
    src: np.ndarray,
    dst: np.ndarray,
    num_nodes: int | None = None,
    *,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    splits: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Store:
    """Store in `out` of an ArraySource; `options` are those of `ingest`."""
    from gnnsys.ingestion.build import ingest

    return ingest(ArraySource(src, dst, num_nodes, x=x, y=y, splits=splits), out, **options)
