"""Rows of nodes from a text: the id of a node, then its numbers; rows stand in any order, a node in one of them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.source import Names, Rows
from gnnsys.ingestion.text import text_rows

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_ID = re.compile(rb"\d{1,18}")
_HELD = 40
"""Memory of a row's node while rows are read and put in order, beside the names."""
_FORM = (
    "A row is the id of a node, then its numbers, classes from 0; an empty cell is NaN. Rows without ids become an "
    'array, a row per node in order: np.save("x.npy", np.loadtxt("x.csv", delimiter=",", dtype="float32")).'
)
_STRANGER = "Take the row out, or give the node an edge to itself; --no-self-loops leaves that out again."


@dataclass(frozen=True)
class NodeText:
    """A parsed text: row `order[i]` of `values` is that of node `nodes[i]`. Mapped scratch files.

    `nodes` and `order` are (n,) int64, nodes ascend; `values` is (n, C).
    """

    path: Path
    nodes: np.ndarray
    order: np.ndarray
    values: np.ndarray
    header: bool
    """A first line of column names was skipped."""

    @property
    def num_nodes(self) -> int:
        """Largest id + 1."""
        return int(self.nodes[-1]) + 1 if len(self.nodes) else 0

    def rows(self, num_nodes: int) -> Rows:
        """A row per node, NaN where the text has none.

        Raises:
            InputDataError: the text has a row of a node that there is not.
        """
        if self.num_nodes > num_nodes:
            raise InputDataError(
                "GS-IN-179", f"{self.path} has a row of node {self.num_nodes - 1}, there are {num_nodes} nodes"
            )
        columns, dtype = self.values.shape[1], self.values.dtype

        def read(start: int, stop: int) -> np.ndarray:
            out = np.full((stop - start, columns), np.nan, dtype=dtype)
            a, b = np.searchsorted(self.nodes, [start, stop])
            out[self.nodes[a:b] - start] = self.values[self.order[a:b]]
            return out

        return Rows(num_nodes, columns, dtype, read)

    def require_all(self, names: Names | None) -> None:
        """Refuse a text without a row of every node: of all names, or of all ids from 0 to the largest."""
        num_nodes = self.num_nodes if names is None else len(names)
        if len(self.nodes) == num_nodes:
            return
        gaps = np.flatnonzero(self.nodes != np.arange(len(self.nodes)))
        first = int(gaps[0]) if len(gaps) else len(self.nodes)
        raise InputDataError(
            "GS-IN-180",
            f"{self.path} has no row of node {first if names is None else repr(names[first])} and "
            f"{num_nodes - len(self.nodes) - 1:,} others",
            hint="Every node needs features; a row with empty cells and --on-nan zero gives a node zeros.",
        )


def parse_node_text(job: Job, path: Path, role: str, names: Names | None, dtype: type[np.generic]) -> NodeText:
    """Every row of `path`, its numbers as `dtype`; ids are `names`, or number the nodes from 0. Parsed once per stage.

    Args:
        role: what the rows are, `features` or `labels`: names the scratch files.

    Raises:
        InputDataError: a row is not an id and as many numbers as the first has, names no node, or one that another
            row names.
        MemoryBudgetError: ids of so many rows cannot be put in order.
    """
    unit = f"text/nodes/{role}"
    values, nodes = (job.stage.work / f"columns-{role}-{what}.bin" for what in ("values", "nodes"))
    if unit not in job.stage.done:
        parser = _Parser(job, path, names, np.dtype(dtype))
        write_scratch(values, parser.blocks())
        write_scratch(nodes, parser.in_order())
        job.stage.record(unit, rows=parser.rows, columns=parser.columns, header=parser.header)
    facts = job.stage.done[unit]
    rows = facts["rows"]
    ascending, order = map_raw(nodes, np.dtype(np.int64), (2, rows), fortran=False)
    table = map_raw(values, np.dtype(dtype), (rows, facts["columns"]), fortran=False)
    return NodeText(path, ascending, order, table, facts["header"])


class _Parser:
    """One text being read: its numbers go out in blocks, the node of every row is kept."""

    def __init__(self, job: Job, path: Path, names: Names | None, dtype: np.dtype) -> None:
        self._job, self._path, self._dtype = job, path, dtype
        self._named = names is not None
        self._number_of: Callable[[bytes], int | None] = _whole_number if names is None else _numbers(names).get
        self._nodes = array("q")
        self.columns, self.header = 0, False

    @property
    def rows(self) -> int:
        return len(self._nodes)

    def blocks(self) -> Iterator[np.ndarray]:
        """The numbers of all rows in the order of the text, (n, C) of the dtype at a time."""
        rows = text_rows(self._path)
        while block := self._block(rows):
            with np.errstate(over="ignore"):  # becomes an infinity, which writing a table refuses
                yield np.frombuffer(block).astype(self._dtype)

    def in_order(self) -> Iterator[np.ndarray]:
        """The nodes, ascending, then the row of each; (rows,) int64."""
        with self._held():
            given = np.frombuffer(self._nodes, dtype=np.int64)
            order = np.argsort(given, kind="stable")
            nodes = given[order]
            twice = np.flatnonzero(nodes[1:] == nodes[:-1])
            if len(twice):
                first, second = (self._line(int(row)) for row in order[twice[0] : twice[0] + 2])
                raise self._bad_row(second, f"is of the same node as row {first:,}")
            yield nodes
            yield order

    def _block(self, rows: Iterator[tuple[int, list[bytes]]]) -> array[float]:
        numbers = array("d")
        for line, fields in rows:
            numbers.extend(self._row(line, fields))
            if len(numbers) * numbers.itemsize >= self._job.block_bytes:
                break
        with self._held():  # so many rows are refused before all are read
            return numbers

    def _row(self, line: int, fields: list[bytes]) -> list[float]:
        """The numbers of a row, whose node is noted; none of a line of column names."""
        node, numbers = self._number_of(fields[0]), _floats(fields[1:])
        if node is None and not self.rows and not self.header and self._names_columns(fields[0], numbers):
            self.header = True
            return []
        if node is None:
            what = "which no edge has" if self._named else "expected a whole number from 0"
            raise self._bad_row(line, f"is of node {_shown(fields[0])}, {what}", _STRANGER if self._named else _FORM)
        if numbers is None:
            column = next(i for i, field in enumerate(fields[1:], 2) if _floats([field]) is None)
            raise self._bad_row(line, f"has no number in column {column}: {_shown(fields[column - 1])}")
        self.columns = self.columns or len(numbers)
        if not numbers or len(numbers) != self.columns:
            raise self._bad_row(line, f"has {len(fields)} columns, expected {max(1, self.columns) + 1}")
        self._nodes.append(node)
        return numbers

    def _names_columns(self, first: bytes, numbers: list[float] | None) -> bool:
        """A row of no node is one of column names: one of them is no number, or stands where numbers have to be."""
        return numbers is None or (not self._named and _floats([first]) is None)

    def _held(self) -> AbstractContextManager[None]:
        return self._job.budget.holding(_HELD * self.rows, f"node ids of {self._path.name}")

    def _line(self, row: int) -> int:
        return next(islice(text_rows(self._path), row + self.header, None))[0]

    def _bad_row(self, line: int, problem: str, hint: str = _FORM) -> InputDataError:
        return InputDataError("GS-IN-179", f"{self._path} row {line:,} {problem}", hint=hint)


def _numbers(names: Names) -> dict[bytes, int]:
    text, offsets = names.mapped()
    return {text[offsets[i] : offsets[i + 1]].tobytes(): i for i in range(len(offsets) - 1)}


def _whole_number(field: bytes) -> int | None:
    return int(field) if _ID.fullmatch(field) else None


def _floats(fields: list[bytes]) -> list[float] | None:
    """Every field as a number, NaN where it is empty; None where one is no number."""
    try:
        if b"_" in b"".join(fields):  # which Python reads over
            return None
        return [float(field or b"nan") for field in fields]
    except ValueError:
        return None


def _shown(field: bytes) -> str:
    return repr(field[:60].decode("utf-8", "replace"))
