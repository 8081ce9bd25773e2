"""Rows of nodes from a text: the id of a node, then its numbers; rows stand in any order, a node in one of them.

A label may also be the name of a class.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.class_names import ClassNames
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.node_ids import ID_COLUMNS, NodeIds, is_title, shown
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.source import Names, Rows
from gnnsys.ingestion.text import MAX_LINE, text_rows
from gnnsys.ingestion.text_names import names_bytes

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_INDEX_COLUMNS = frozenset({b"", b"index", b"unnamed: 0"})
_LINE_BYTES = 64
"""Memory of a row per byte of its text, while it is fields and then numbers."""
_HELD = 40
"""Memory of a row's node while rows are read and put in order, beside the names."""
_FORM = (
    "A row is the id of a node, then its numbers: pandas writes it so with df.set_index(id).to_csv(..). Rows without "
    "ids become a .npy array, row i for node i."
)
_NUMBER = "Numbers have a decimal point and no quotes; an empty cell is NaN. Encode or leave out what is no number."
_COLUMNS = "Fields in quotes are not read: where one holds the separator, separate by tabs instead."


@dataclass(frozen=True)
class NodeText:
    """A parsed text: row `order[i]` of `values` is that of node `nodes[i]`. Mapped scratch files.

    `nodes` and `order` are (n,) int64, nodes ascend; `values` is (n, C).
    """

    path: Path
    nodes: np.ndarray
    order: np.ndarray
    values: np.ndarray
    titles: tuple[str, ...] | None
    """Names of its columns, without that of the ids, where a first line has them."""
    classes: tuple[str, ...] = ()
    """What the numbers in `values` are of, when they stand for names: in order of first appearance."""

    @property
    def num_nodes(self) -> int:
        """Largest id + 1."""
        return int(self.nodes[-1]) + 1 if len(self.nodes) else 0

    def rows(self, num_nodes: int) -> Rows:
        """A row per node, NaN where the text has none; classes that have names are numbered in their order.

        Raises:
            InputDataError: the text has a row of a node that there is not.
        """
        if self.num_nodes > num_nodes:
            raise InputDataError(
                "GS-IN-179", f"{self.path} has a row of node {self.num_nodes - 1}, there are {num_nodes} nodes"
            )
        columns, dtype = self.values.shape[1], self.values.dtype
        names = tuple(sorted(self.classes))
        rank = {name: number for number, name in enumerate(names)}
        ranks = np.array([*map(rank.__getitem__, self.classes), np.nan])  # the last one is that of no class, -1

        def read(start: int, stop: int) -> np.ndarray:
            out = np.full((stop - start, columns), np.nan, dtype=dtype)
            a, b = np.searchsorted(self.nodes, [start, stop])
            given = self.values[self.order[a:b]]
            out[self.nodes[a:b] - start] = ranks[np.nan_to_num(given, nan=-1).astype(np.int64)] if names else given
            return out

        titles = self.titles if self.titles and len(self.titles) == columns else ()
        return Rows(num_nodes, columns, dtype, read, class_names=names, column_names=titles)

    def require_all(self, num_nodes: int, names: Names | None) -> None:
        """Refuse a text without a row of every node, of which there are `num_nodes`."""
        if len(self.nodes) == num_nodes:
            return
        gaps = np.flatnonzero(self.nodes != np.arange(len(self.nodes)))
        first = int(gaps[0]) if len(gaps) else len(self.nodes)
        raise InputDataError(
            "GS-IN-180",
            f"{self.path} has no row of node {first if names is None else repr(names[first])}"
            + (f" and {others:,} others" if (others := num_nodes - len(self.nodes) - 1) else ""),
            hint="Every node needs features; a row with empty cells and --on-nan zero gives a node zeros. "
            + (
                "Whole numbers count the nodes from 0: give other ids a letter (u1000210)."
                if names is None
                else "Is it the name of a column? Such a line begins with #."
            ),
        )


def scratch_ratio(path: Path) -> float:
    """Scratch bytes of a byte of text, told by its first row."""
    fields = next((fields for _, fields in text_rows(path)), [b""])
    return (16 + 8 * len(fields)) / sum(len(field) + 1 for field in fields)


def parse_node_text(job: Job, path: Path, role: str, names: Names | None, dtype: type[np.generic]) -> NodeText:
    """Every row of `path`, its numbers as `dtype`; ids are `names`, or number the nodes from 0. Parsed once per stage,
    after a kill from its beginning.

    Args:
        role: what the rows are: `features`, or `labels`, which may be a name of a class in place of numbers.

    Raises:
        InputDataError: a row is not an id and as many numbers as the first has, names no node, or one that another
            row names; a column of labels is empty.
        MemoryBudgetError: ids of so many rows cannot be put in order.
    """
    unit = f"text/nodes/{role}"
    values, nodes = (job.stage.work / f"columns-{role}-{what}.bin" for what in ("values", "nodes"))
    if unit not in job.stage.done:
        with job.budget.holding(0 if names is None else names_bytes(names), "names of nodes"):
            parser = _Parser(job, path, names, np.dtype(dtype), labels=role == "labels")
            write_scratch(values, parser.blocks())
            write_scratch(nodes, parser.in_order())
        classes = parser.classes.names if parser.classes else []
        job.stage.record(unit, rows=parser.rows, columns=parser.columns, titles=parser.titles, classes=classes)
    facts = job.stage.done[unit]
    rows = facts["rows"]
    ascending, order = map_raw(nodes, np.dtype(np.int64), (2, rows), fortran=False)
    table = map_raw(values, np.dtype(dtype), (rows, facts["columns"]), fortran=False)
    titles = None if facts["titles"] is None else tuple(facts["titles"])
    return NodeText(path, ascending, order, table, titles, tuple(facts["classes"]))


class _Parser:
    """One text being read: its numbers go out in blocks, the node of every row is kept."""

    def __init__(self, job: Job, path: Path, names: Names | None, dtype: np.dtype, *, labels: bool) -> None:
        self._job, self._path, self._dtype, self._labels = job, path, dtype, labels
        self._ids = NodeIds(path, names)
        self._nodes = array("q")
        self._header: tuple[int, list[bytes]] | None = None
        self._may_name_classes = labels  # until the first number was read
        self.classes: ClassNames | None = None
        self.columns = self._read_bytes = 0

    @property
    def rows(self) -> int:
        return len(self._nodes)

    @property
    def titles(self) -> list[str] | None:
        return None if self._header is None else [name.decode(errors="replace") for name in self._header[1][1:]]

    def blocks(self) -> Iterator[np.ndarray]:
        """The numbers of all rows in the order of the text, (n, C) of the dtype at a time."""
        size = self._path.stat().st_size
        rows, given = self._fields(), np.zeros(1, dtype=bool)
        while block := self._block(rows):
            table = np.frombuffer(block).reshape(-1, self.columns)
            given = given | ~np.isnan(table).all(axis=0)
            with np.errstate(over="ignore"):  # becomes an infinity, which writing a table refuses
                yield table.astype(self._dtype)
            self._job.progress(f"read {self._path.name}", min(self._read_bytes, size), size)
        self._refuse_misread(given)

    def in_order(self) -> Iterator[np.ndarray]:
        """The nodes, ascending, then the row of each; (rows,) int64."""
        with self._held():
            found = np.frombuffer(self._nodes, dtype=np.int64)
            order = np.argsort(found, kind="stable")
            nodes = found[order]
            twice = np.flatnonzero(nodes[1:] == nodes[:-1])
            if len(twice):
                first, second = (self._line(int(row)) for row in order[twice[0] : twice[0] + 2])
                raise self._ids.bad_row(second, f"is of the same node as row {first:,}", "Keep one row of every node.")
            yield nodes
            yield order

    def _fields(self) -> Iterator[tuple[int, list[bytes]]]:
        longest = min(MAX_LINE, self._job.budget.total // _LINE_BYTES)
        return text_rows(self._path, self._ids.names, longest)

    def _block(self, rows: Iterator[tuple[int, list[bytes]]]) -> array[float]:
        numbers = array("d")
        for line, fields in rows:
            numbers.extend(self._row(line, fields))
            self._read_bytes += sum(map(len, fields)) + len(fields)
            if len(numbers) * numbers.itemsize >= self._job.block_bytes:
                break
        with self._held():  # so many rows are refused before all are read
            return numbers

    def _row(self, line: int, fields: list[bytes]) -> list[float]:
        """The numbers of a row, whose node is noted; none of a line of column names."""
        node, numbers = self._ids.node(fields[0]), _floats(fields[1:])
        if node is None:
            if self.rows or self._header or not is_title(fields[0], likely=numbers is None):
                raise self._ids.stranger(line, fields[0], _FORM)
            self._header = line, fields
            self._refuse_index(line, fields)
            return []
        if len(fields) < 2 or self.columns not in (0, len(fields) - 1):
            raise self._ids.bad_row(line, f"has {len(fields)} columns, expected {max(1, self.columns) + 1}", _COLUMNS)
        if self._may_name_classes and len(fields) == 2:
            numbers = self._of_class(line, fields[1], numbers)
        if numbers is None:
            column = next(i for i, field in enumerate(fields[1:], 2) if _floats([field]) is None)
            raise self._ids.bad_row(line, f"has no number in column {column}: {shown(fields[column - 1])}", _NUMBER)
        self.columns = len(numbers)
        self._nodes.append(node)
        return numbers

    def _refuse_index(self, line: int, names: list[bytes]) -> None:
        """Raise InputDataError where pandas put its index before the ids, whose rows it numbers."""
        words = [name.strip(b'"').lower() for name in names]
        known = ID_COLUMNS - _INDEX_COLUMNS
        ids = [i for i, word in enumerate(words[1:], 1) if word in known or word.endswith((b"_id", b" id"))]
        if ids and words[0] in _INDEX_COLUMNS:
            problem = f"names an index in column 1 and ids in column {ids[0] + 1}: {shown(names[ids[0]])}"
            raise self._ids.bad_row(
                line, problem, "The ids come first: df.to_csv(.., index=False) leaves the index out."
            )

    def _of_class(self, line: int, field: bytes, numbers: list[float] | None) -> list[float] | None:
        """What a row of one label says: the number of the class that it names, else `numbers`."""
        if self.classes is None and numbers is None:
            self.classes = ClassNames(self._path)
        if self.classes is not None:
            return [self.classes.number(line, field)]
        self._may_name_classes = numbers is not None and math.isnan(numbers[0])
        return numbers

    def _refuse_misread(self, given: np.ndarray) -> None:
        """Raise InputDataError where the text as a whole is hardly what it was taken for; `given` (C,): some row has a
        number in this column."""
        if self._header and self.classes and self._header[1][-1].decode(errors="replace") in self.classes:
            line, fields = self._header
            raise self._ids.stranger(line, fields[0], _FORM)  # what other rows call a class is no name of a column
        problem = "" if self.rows else "has no rows"
        if self._labels and self.rows and not given.all():
            problem = f"has no label in column {int(np.argmin(given)) + 2}"
        if self._labels and self.rows == 1 and self.columns > 1:
            problem = f"has one row, of {self.columns + 1} columns"
        if problem:
            raise InputDataError("GS-IN-183", f"{self._path} {problem}", hint=_FORM)

    def _held(self) -> AbstractContextManager[None]:
        return self._job.budget.holding(_HELD * self.rows, f"node ids of {self._path.name}")

    def _line(self, row: int) -> int:
        return next(islice(self._fields(), row + (self._header is not None), None))[0]


def _floats(fields: list[bytes]) -> list[float] | None:
    """Every field as a number, NaN where it is empty; None where one is no number."""
    try:
        if b"_" in b"".join(fields):  # which Python reads over
            return None
        return [float(field or b"nan") for field in fields]
    except ValueError:
        return None
