"""Arrays, tensors and functions that yield blocks as a Source: a graph of one's own, from Python."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from gnnsys.errors import InputDataError
from gnnsys.ingestion.blocks import Blocks, MakeBlocks
from gnnsys.ingestion.source import NOTHING_SKIPPED, Names, Rows
from gnnsys.ingestion.splits import require_ids
from gnnsys.ingestion.values import as_array, rows_of_array
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import raw_bytes

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job


_PIECE_BYTES = 1 << 20


class ArraySource:
    """A graph given as arrays or tensors, in memory or mapped; they are read in blocks, never copied whole.

    Args:
        edge_index: (2, E) integers, or a pair of (E,): edge i runs from `edge_index[0][i]` to `edge_index[1][i]`.
        num_nodes: N; None takes the rows of `x` or `y`, without them the largest id + 1.
        x: (N, F) features, or a function that yields blocks (n, F) of them in order. It is called more than once,
            and must yield the same rows each time.
        y: (N,) classes, -1 = unlabelled, or (N, T).
        edge_weight: (E,) finite numbers of at least 0. Parallel edges that are merged have the sum of theirs.
        splits: by name node ids (n,), or a boolean mask (N,); a list of several such mappings for versions of them.

    Raises:
        InputDataError: shapes or types that are not these.
    """

    names: Names | None = None
    skipped = NOTHING_SKIPPED
    num_classes: int | None = None
    label_kind: str | None = None
    sequential = False

    def __init__(
        self,
        edge_index: Any,
        num_nodes: int | None = None,
        *,
        x: Any | MakeBlocks = None,
        y: Any = None,
        splits: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        edge_weight: Any = None,
    ) -> None:
        self._edges = _checked_edges(edge_index)
        self.num_edges = len(self._edges[0])
        given = {"src": identity(self._edges[0]), "dst": identity(self._edges[1])}
        self.tables: Mapping[str, Rows] = {}
        self.labels: Rows | None = None
        self.weights: Rows | None = None
        if x is not None:
            rows, given["x"] = rows_and_identity("x", x)
            self.tables = {"x": rows}
        if y is not None:
            labels = _with_ndim("y", y, (1, 2))
            self.labels, given["y"] = rows_of_array(labels), identity(labels)
        if edge_weight is not None:
            weights = _with_ndim("edge_weight", edge_weight, (1, 2))
            self.weights, given["edge_weight"] = rows_of_array(weights), identity(weights)
        rows_of = {**self.tables, **({} if self.labels is None else {"y": self.labels})}
        self.num_nodes = _num_nodes(num_nodes, {name: rows.num_rows for name, rows in rows_of.items()})
        self.splits = [
            {name: ids_of(name, ids, self.num_nodes) for name, ids in version.items()}
            for version in _versions(splits)
            if version
        ]
        for number, version in enumerate(self.splits):
            given |= {f"split:{name}.{number}": identity(ids) for name, ids in version.items()}
        self._inputs = given

    def fingerprint(self) -> dict[str, Any]:
        return {"arrays": self._inputs, "nodes": self.num_nodes}

    def input_bytes(self) -> int:
        return 0

    def prepare(self, job: Job) -> None:
        """Nothing to unpack."""

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        src, dst = self._edges
        return src[start:stop].astype(np.int64), dst[start:stop].astype(np.int64)

    def edge_place(self, number: int) -> str:
        return f"edge {number}"


def rows_and_identity(name: str, given: Any | MakeBlocks) -> tuple[Rows, list[Any]]:
    """(N, F) values as rows, and what tells them from others.

    Raises:
        InputDataError: another shape, or blocks that do not fit together.
    """
    if callable(given):
        blocks = Blocks(given, name)
        return blocks.rows(), blocks.fingerprint()
    if hasattr(given, "__next__"):
        raise InputDataError(
            "GS-IN-172",
            f"{name} is an iterator, which can be read only once",
            hint="Give the function that makes it: x=make_blocks, not x=make_blocks().",
        )
    array = as_array(given)
    if array.ndim != 2:
        raise InputDataError("GS-IN-123", f"{name} has shape {array.shape}, expected (N, F)")
    return rows_of_array(array), identity(array)


def require_by_name(what: str, given: Any) -> None:
    """Raise InputDataError when `given` does not give values by name."""
    if not isinstance(given, Mapping):
        raise InputDataError(
            "GS-IN-178",
            f"{what} is a {type(given).__name__}, expected values by name",
            hint=f'As in {what}={{"mine": values}}.',
        )


def ids_of(name: str, given: Any, num_nodes: int | None) -> np.ndarray:
    """The node ids of a split: (n,) as given, or those that a boolean mask (N,) marks.

    Raises:
        InputDataError: a mask of another length, or no ids.
    """
    array = as_array(given)
    if array.dtype != np.bool_:
        require_ids(name, array)
        return array
    if array.ndim != 1 or len(array) != (num_nodes or len(array)):
        raise InputDataError(
            "GS-IN-173",
            f"split {name}: a mask of shape {array.shape}, expected ({num_nodes},)",
            hint="One value per node: as many as num_nodes says or, without it, as x or y has rows.",
        )
    return np.flatnonzero(array)


def _versions(splits: Any) -> list[Mapping[str, Any]]:
    if splits is None or isinstance(splits, Mapping):
        return [splits or {}]
    versions = list(splits) if isinstance(splits, Sequence) else [splits]
    for version in versions:
        require_by_name("splits", version)
    return versions


def _num_nodes(given: Any, rows: Mapping[str, int]) -> int | None:
    """N, where it was given or tables tell it by their `rows`, which must agree."""
    said = rows if given is None else {"num_nodes": _count(given), **rows}
    for name, count in rows.items():
        first = next(iter(said))
        if count != said[first]:
            there = f"num_nodes is {said[first]}" if first == "num_nodes" else f"{first} has {said[first]}"
            raise InputDataError("GS-IN-122", f"{name} has {count} rows, {there}", hint="One row per node.")
    return next(iter(said.values()), None)


def _count(num_nodes: Any) -> int:
    try:
        count = operator.index(num_nodes)
    except TypeError:
        count = -1
    if count < 0:
        raise InputDataError("GS-IN-176", f"num_nodes is {num_nodes!r}, expected a whole number of at least 0")
    return count


def _with_ndim(name: str, given: Any, allowed: tuple[int, ...]) -> np.ndarray:
    array = as_array(given)
    if array.ndim not in allowed:
        raise InputDataError("GS-IN-176", f"{name} has shape {array.shape}, expected a value or a row per entry")
    return array


def _checked_edges(edge_index: Any) -> tuple[np.ndarray, np.ndarray]:
    if not hasattr(edge_index, "__len__"):
        raise InputDataError("GS-IN-104", f"edge_index is a {type(edge_index).__name__}, expected (2, E)")
    src, dst = (as_array(ids) for ids in edge_index) if len(edge_index) == 2 else (as_array(edge_index),) * 2
    if len(edge_index) != 2 or src.shape != dst.shape or src.ndim != 1:
        shapes = f"{src.shape} and {dst.shape}" if len(edge_index) == 2 else f"{src.shape}"
        raise InputDataError("GS-IN-104", f"edge_index has shape {shapes}, expected (2, E)")
    for name, ids in (("sources", src), ("destinations", dst)):
        if ids.size and ids.dtype.kind not in "iu":
            raise InputDataError("GS-IN-104", f"the {name} of edges are {ids.dtype}, expected integers")
    return src, dst


def identity(array: np.ndarray) -> list[Any]:
    """Type, shape and content: equal bytes of another type are another input."""
    if array.dtype.hasobject:
        raise InputDataError("GS-IN-111", f"holds {array.dtype}, expected plain booleans, integers or floats")
    if array.flags.c_contiguous:
        return [array.dtype.str, list(array.shape), digest(raw_bytes(array))]
    hasher, step = xxhash.xxh3_128(), max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):  # never a copy of the whole
        hasher.update(raw_bytes(array[start : start + step]))
    return [array.dtype.str, list(array.shape), f"xxh3-128:{hasher.hexdigest()}"]
