"""Text of edges, labels or rows of nodes (csv, tsv, blanks; plain or .gz) as rows of fields.

The first line with data decides what edges hold: integers are ids as they are, anything else is a name, numbered from
0 in order of first appearance. A first line is a header when it stands above a line of integers, or when its first two
fields are column names (`HEADER_WORDS`); one whose column names stand elsewhere is refused. Lines that are blank or
begin with # or % are skipped. An edge is the first two columns; of more, one may hold weights (`text_weights`), others
are counted and ignored. A label is the only column.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

from gnnsys.errors import InputDataError
from gnnsys.ingestion import kernels
from gnnsys.ingestion.source import unpacking

MAX_LINE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(rb"-?\d+")
_FLOAT = re.compile(rb"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
HEADER_WORDS = frozenset(
    b"src dst source target from to u v head tail user item "
    b"id1 id2 node1 node2 id_1 id_2 node_1 node_2 src_id dst_id source_id target_id user_id item_id".split()
)
_PROBLEMS = {
    kernels.NOT_A_NUMBER: (
        "GS-IN-103",
        "is not a row of integers",
        "Write ids without a point; names must be names from the first row.",
    ),
    kernels.TOO_FEW: ("GS-IN-106", "has too few columns, or an empty one", "A row is source, destination."),
    kernels.TOO_LARGE: ("GS-IN-107", "holds a number of more than 18 digits", "Ids are less than 2^32."),
    kernels.NUL: (
        "GS-IN-109",
        "holds a NUL byte",
        "The file is binary, damaged, or saved as UTF-16: save it as UTF-8.",
    ),
    kernels.TOO_MANY: ("GS-IN-118", "has more than one column", ""),
    kernels.PADDED: (
        "GS-IN-184",
        "holds a number with leading zeros",
        "Ids that are numbers count the nodes from 0, so 007 would be 7: leave the zeros out, or give ids that are "
        "names a letter (u007).",
    ),
    kernels.QUOTED: ("GS-IN-119", "holds a quoted id", "Write ids without quotes, and separate them by tabs."),
}
_OF_LABELS = "Row i is the class of node i and nothing else: a whole number from 0, -1 = unlabelled."


@dataclass(frozen=True)
class Form:
    """What a row holds."""

    columns: int
    names: bool
    """Ids may be names."""
    more: bool
    """Further columns are ignored, else refused."""
    hint: str = ""
    """For bad rows of this form, in place of the general one."""


EDGES = Form(2, names=True, more=True)
LABELS = Form(1, names=False, more=False, hint=_OF_LABELS)


def line_of_row(path: Path, row: int) -> int:
    """The line, counted from 1 as editors do, that row `row` (from 0) of a file of edges stands on."""
    return next(islice(edge_rows(path), row, None))[0]


def edge_rows(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Every row of a file of edges: the line it stands on, counted from 1, and all its fields."""
    with unpacking(path), open_text(path) as file:
        start = sniff(file, path, EDGES)
        file.seek(start.byte)
        for line, text in enumerate(file, start.line + 1):
            if data := data_of(text):
                yield line, fields_of(data, start.separator)


def text_rows(path: Path, names: Container[bytes] = (), longest: int = MAX_LINE) -> Iterator[tuple[int, list[bytes]]]:
    """As `edge_rows`, of any text, with a first line of column names; the first row tells the separator.

    Lines that begin with # or % are no rows unless one of `names` stands there. Between tabs the last field may be
    empty.

    Raises:
        InputDataError: a line is longer than `longest` bytes, holds a NUL, or a carriage return that does not end it.
    """
    with unpacking(path), open_text(path) as file:
        file.seek(_start_byte(file))
        separator, line, known = None, 0, False
        while text := file.readline(longest + 1):
            refuse_long(text, path, line, longest)
            line += 1
            data = text.strip(b" \t\r\n")
            _refuse_binary(data, path, line)
            if not known:
                separator = _separator(data)
            fields = fields_of(text.strip(b" \r\n") if separator == b"\t" else data, separator)
            if data and (data[:1] not in (b"#", b"%") or fields[0] in names):
                known = True
                yield line, fields


def num_columns(path: Path) -> int:
    """Of the first row of a file of edges; 0 where there is none."""
    return next((len(fields) for _, fields in edge_rows(path)), 0)


def is_integer(field: bytes) -> bool:
    """Digits, with a sign or without."""
    return _INTEGER.fullmatch(field) is not None


def _refuse_binary(data: bytes, path: Path, line: int) -> None:
    if b"\0" in data:
        raise bad_row(path, line, data, kernels.NUL, EDGES)
    if b"\r" in data:
        raise InputDataError(
            "GS-IN-182",
            f"{path} row {line:,} holds a carriage return inside: {data[:60].decode('utf-8', 'replace')!r}",
            hint="Lines end with \\n or \\r\\n: save the text with line ends of Unix or Windows.",
        )


def bad_row(path: Path, line: int, text: bytes, problem: int, form: Form) -> InputDataError:
    """The error for one row: file, line number, what it is, what was expected."""
    if problem == kernels.NOT_A_NUMBER and b'"' in text:
        problem = kernels.QUOTED
    code, what, hint = _PROBLEMS[problem]
    shown = text[:60].decode("utf-8", "replace")
    return InputDataError(code, f"{path} row {line:,} {what}: {shown!r}", hint=form.hint or hint)


@dataclass(frozen=True)
class Start:
    """Where data begins and what it is."""

    byte: int
    line: int
    named: bool
    separator: bytes | None
    """None: blanks."""
    header: bool
    """The line before was one of column names."""


def open_text(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _start_byte(file: IO[bytes]) -> int:
    return len(_BOM) if file.read(len(_BOM)) == _BOM else 0


def _separator(data: bytes) -> bytes | None:
    return next((s for s in (b",", b";", b"\t") if s in data), None)


def sniff(file: IO[bytes], path: Path, form: Form) -> Start:
    byte = _start_byte(file)
    file.seek(byte)
    found: list[tuple[int, int, bytes]] = []
    line = 0
    while len(found) < 2 and (text := file.readline(MAX_LINE + 1)):
        refuse_long(text, path, line)
        if data := data_of(text):
            found.append((byte, line, data))
        byte, line = byte + len(text), line + 1
    if not found:
        return Start(byte, line, False, None, False)
    separator = _separator(found[0][2])
    integers = [all(map(is_integer, fields_of(data, separator)[:2])) for _, _, data in found]
    named = form.names and _names_columns(path, found[0], separator)
    header = named or (integers[-1] and not integers[0])
    first = found[0] if not header else found[1] if len(found) == 2 else (byte, line)
    for _, number, data in found:
        if all(map(_FLOAT.fullmatch, fields_of(data, separator)[:2])):
            # As names they would be numbered by appearance, and rows of features would go to the wrong nodes.
            raise bad_row(path, number + 1, data, kernels.NOT_A_NUMBER, form)
    return Start(first[0], first[1], form.names and not integers[-1 if header else 0], separator, header)


def _names_columns(path: Path, first: tuple[int, int, bytes], separator: bytes | None) -> bool:
    """The first line begins with the names of two columns, source and destination.

    Raises:
        InputDataError: it names them in other places.
    """
    _, line, data = first
    words = [field.strip(b'"').lower() for field in fields_of(data, separator)]
    known = HEADER_WORDS.intersection(words)
    if len(known) < 2 or known.issuperset(words[:2]):
        return len(known) >= 2
    raise InputDataError(
        "GS-IN-124",
        f"{path} row {line + 1:,} names columns, but source and destination are not the first two: "
        f"{data[:60].decode('utf-8', 'replace')!r}",
        hint="Put source and destination first, or begin the line with # when the first two columns are the ids.",
    )


def data_of(text: bytes) -> bytes:
    """A line without blanks around it; empty when it holds no data."""
    text = text.strip(b" \t\r\n")
    return b"" if text[:1] in (b"#", b"%") else text


def fields_of(data: bytes, separator: bytes | None) -> list[bytes]:
    return [field.strip() for field in data.split(separator)]


def refuse_long(text: bytes, path: Path, line: int, longest: int = MAX_LINE) -> None:
    if len(text) > longest:
        hint = "Give more --memory, or save the rows as a .npy file." if longest < MAX_LINE else ""
        raise InputDataError("GS-IN-117", f"{path} row {line + 1:,} is longer than {longest} bytes", hint=hint)
