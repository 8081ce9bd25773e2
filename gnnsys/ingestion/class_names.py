"""Classes that have names in a text of labels: numbered as they appear, known by their order in the end."""

from __future__ import annotations

from pathlib import Path

from gnnsys.errors import InputDataError
from gnnsys.ingestion.node_ids import is_number

MAX_CLASSES = 10_000
_NO_CLASS = frozenset({"na", "n/a", "<na>", "none", "null", "?", "-"})
"""What stands where nothing is known."""
_MAX_BYTES = 200


class ClassNames:
    """The names met so far in the last column of `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def number(self, line: int, field: bytes) -> float:
        """Of the class that row `line` names; NaN where it names none.

        Raises:
            InputDataError: it is a number, or no name that is short and UTF-8; there are too many different ones.
        """
        if not field or field.lower() == b"nan":
            return float("nan")
        try:
            name = field.decode()
        except UnicodeDecodeError:
            name = ""
        if name.lower() in _NO_CLASS:
            raise InputDataError(
                "GS-IN-181",
                f"{self._path} row {line:,} has the class {name!r}",
                hint="Leave the cell empty, or the row out, for a node without a label.",
            )
        if not name or len(field) > _MAX_BYTES or '"' in name or is_number(field):
            raise InputDataError(
                "GS-IN-181",
                f"{self._path} row {line:,} has the class {field[:60].decode('utf-8', 'replace')!r}, expected a name "
                "as in other rows",
                hint=f"All are names (UTF-8, at most {_MAX_BYTES} bytes, no quotes), or all are numbers from 0; the "
                "cell of a node without a label is empty.",
            )
        number = self._numbers.setdefault(name, len(self._numbers))
        if number == MAX_CLASSES:
            raise InputDataError(
                "GS-IN-181",
                f"{self._path} row {line:,} has the {MAX_CLASSES + 1:,}th different class: is that a class at all?",
                hint="A row is the id of a node and its class.",
            )
        return float(number)

    @property
    def names(self) -> list[str]:
        """In the order of their numbers."""
        return list(self._numbers)
