"""The ids of nodes as texts have them: names, or whole numbers that number the nodes from 0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from gnnsys.errors import InputDataError
from gnnsys.ingestion.source import Names

ID_COLUMNS = frozenset(b"|id|node|node_id|nodeid|index|name|key|vertex".split(b"|"))
"""What people call the column of ids; pandas writes no name."""
_NUMBER = re.compile(rb"0|[1-9]\d{0,17}")
_STRANGER = (
    "The id comes first, without quotes, as the edges have it. Take the row out where it is of no node, or of one that "
    "--largest-component left out, or give the node an edge to itself (--no-self-loops leaves that out again)."
)
_NUMBERED = (
    "Ids that are whole numbers, without a point, quotes or leading zeros, number the nodes from 0; they come first "
    "in a row."
)


class NodeIds:
    """Which nodes the rows of a text are of.

    Args:
        path: the text.
        names: of all nodes; None where they are numbers.
    """

    def __init__(self, path: Path, names: Names | None) -> None:
        self._path = path
        self._numbers = None if names is None else names.numbers()

    @property
    def names(self) -> Mapping[bytes, int]:
        """The node of every name; empty where ids are numbers."""
        return self._numbers or {}

    def node(self, field: bytes) -> int | None:
        """None where it is the id of none."""
        if self._numbers is not None:
            return self._numbers.get(field)
        return int(field) if _NUMBER.fullmatch(field) else None

    def stranger(self, line: int, field: bytes, hint: str = "") -> InputDataError:
        """The error for row `line`, whose id is that of no node."""
        what = "expected a whole number from 0" if self._numbers is None else "which no edge has"
        hint = f"{_NUMBERED} {hint}".strip() if self._numbers is None else _STRANGER
        return self.bad_row(line, f"is of node {shown(field)}, {what}", hint)

    def bad_row(self, line: int, problem: str, hint: str) -> InputDataError:
        """The error for row `line` of the text."""
        return InputDataError("GS-IN-179", f"{self._path} row {line:,} {problem}", hint=hint)


def is_title(field: bytes, *, likely: bool) -> bool:
    """Whether a first field, which is the id of no node, is the name of a column: it says that ids follow or, where a
    title is likely, is no number. An id that was spoilt (quotes, invisible characters) is none of these."""
    bare = re.sub(rb"[^0-9A-Za-z.+-]", b"", field)
    return field.lower() in ID_COLUMNS or (likely and not is_number(bare))


def shown(field: bytes) -> str:
    """The beginning of a field, for messages."""
    return repr(field[:60].decode("utf-8", "replace"))


def is_number(field: bytes) -> bool:
    """Whether it is one as Python reads it; nothing is none."""
    try:
        float(field or b"x")
    except ValueError:
        return False
    return True
