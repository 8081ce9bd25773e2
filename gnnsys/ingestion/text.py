"""Text of edges, labels or rows of nodes (csv, tsv, blanks; plain or .gz) as rows of fields.

The first line with data decides what edges hold: integers are ids as they are, anything else is a name, numbered from
0 in order of first appearance. A first line is a header when it stands above a line of integers, or when its first two
fields are column names (`HEADER_WORDS`); one whose column names stand elsewhere is refused. Lines that are blank or
begin with # or % are skipped; below the first row of names, which may begin so, only those with a blank behind the
sign. An edge is the first two columns; of more, one may hold weights (`text_weights`), others
are counted and ignored. A label is the only column.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import IO, NamedTuple, cast

from gnnsys.errors import InputDataError
from gnnsys.ingestion import kernels
from gnnsys.ingestion.source import unpacking

MAX_LINE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(rb"-?\d+")
_FLOAT = re.compile(rb"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_INDEX_COLUMNS = frozenset({b"", b"index", b"unnamed: 0", b"id"})
"""What stands above the index of pandas, beside two columns of ids."""
HEADER_WORDS = frozenset(
    b"src dst source target from to u v head tail user item "
    b"id1 id2 node1 node2 id_1 id_2 node_1 node_2 src_id dst_id source_id target_id from_id to_id "
    b"user_id item_id".split()
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
    kernels.TOO_MANY: (
        "GS-IN-118",
        "has more columns than the first row",
        "A row is one edge: of a list of neighbours write a row for each. Further columns are in every row or in none.",
    ),
    kernels.BLANK: ("GS-IN-188", "stands behind a blank line", ""),
    kernels.PADDED: (
        "GS-IN-184",
        "holds a number with leading zeros",
        "Ids that are numbers count the nodes from 0, so 007 would be 7: leave the zeros out, or give ids that are "
        "names a letter (u007).",
    ),
    kernels.QUOTED: ("GS-IN-119", "holds a quoted id", "Write ids without quotes, and separate them by tabs."),
}
_OF_LABELS = (
    "Row i is the class of node i and nothing else: a whole number from 0, -1 = unlabelled. Names of classes stand "
    "behind the ids of nodes: a row is an id and its class."
)


@dataclass(frozen=True)
class Form:
    """What a row holds."""

    columns: int
    names: bool
    """Ids may be names."""
    more: bool
    """Further columns are ignored where the first row has them, else refused."""
    gaps: bool
    """Lines between rows may be blank."""
    hint: str = ""
    """For bad rows of this form, in place of the general one."""


EDGES = Form(2, names=True, more=True, gaps=True)
LABELS = Form(1, names=False, more=False, gaps=False, hint=_OF_LABELS)


def line_of_row(path: Path, row: int) -> int:
    """The line, counted from 1 as editors do, that row `row` (from 0) of a file of edges stands on."""
    return next(islice(edge_rows(path), row, None))[0]


def edge_rows(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Every row of a file of edges: the line it stands on, counted from 1, and all its fields."""
    with unpacking(path), open_text(path) as file:
        start = sniff(file, path, EDGES)
        file.seek(start.byte)
        for line, text in enumerate(file, start.line + 1):
            if data := data_of(text, names=start.named):
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
                separator = _separator(path, [data], line, 1)
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
    more: bool
    """Rows have further columns."""
    comments: int
    """Lines above that begin with # or %."""
    header: bool
    """The line before was one of column names."""


def open_text(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _start_byte(file: IO[bytes]) -> int:
    return len(_BOM) if file.read(len(_BOM)) == _BOM else 0


def _separator(path: Path, rows: Sequence[bytes], line: int, columns: int) -> bytes | None:
    """What stands between the fields of the first `rows`: it makes integers of the `columns` that count in the last one
    or, where nothing does, leaves nothing else in those of the first (`line`) that may separate. None: blanks.

    Raises:
        InputDataError: two may do.
    """
    for mark in (b"\t", b",", b";", None):
        fields = fields_of(rows[-1], mark)
        if len(fields) > 1 and all(map(is_integer, fields[:columns])):
            return mark
    there = [mark for mark in (b"\t", b",", b";") if mark in rows[0]]
    if not there or there[0] == b"\t":  # what stands between tabs may hold anything else
        return there[0] if there else None
    for mark in there:
        fields = fields_of(rows[0], mark)[:columns]
        if not any(other in field for field in fields for other in there if other != mark):
            return mark
    raise InputDataError(
        "GS-IN-185",
        f"{path} row {line:,} may be cut at , and at ;: {rows[0][:60].decode('utf-8', 'replace')!r}",
        hint="Separate fields by tabs: what stands between them may hold anything else.",
    )


class _Row(NamedTuple):
    line: int
    begin: int
    end: int
    """Bytes of the file."""
    data: bytes


def sniff(file: IO[bytes], path: Path, form: Form) -> Start:
    """Where the data of `file` begins and what it is, told by its first two rows."""
    found, comments = _first_rows(file, path)
    if not found:
        return Start(file.tell(), comments, False, None, False, comments, False)
    first, last = found[0], found[-1]
    separator = _separator(path, [row.data for row in found], first.line, form.columns)
    ids = [fields_of(row.data, separator)[:2] for row in found]
    for row, fields in zip(found, ids, strict=True):
        if all(map(_FLOAT.fullmatch, fields)):
            # As names they would be numbered by appearance, and rows of features would go to the wrong nodes.
            raise bad_row(path, row.line, row.data, kernels.NOT_A_NUMBER, form)
    integers = [all(map(is_integer, fields)) for fields in ids]
    header = (form.names and _names_columns(path, first, separator)) or (integers[-1] and not integers[0])
    named = form.names and not integers[-1 if header else 0]
    more = form.more and len(fields_of((last if header else first).data, separator)) > form.columns
    byte, line = (first.end, first.line) if header else (first.begin, first.line - 1)
    return Start(byte, line, named, separator, more, comments, header)


def _first_rows(file: IO[bytes], path: Path) -> tuple[list[_Row], int]:
    """At most two rows, and how many comments stand above them."""
    begin = _start_byte(file)
    file.seek(begin)
    found: list[_Row] = []
    comments = 0
    for line in count(1):
        text = file.readline(MAX_LINE + 1)
        if not text or len(found) == 2:
            return found, comments
        refuse_long(text, path, line - 1)
        if line == 1 and text.startswith(b"%%MatrixMarket"):
            raise InputDataError(
                "GS-IN-186",
                f"{path} is a MatrixMarket file, whose ids count from 1 below a row of sizes",
                hint="From Python: gs.ingest(scipy.io.mmread(path), out).",
            )
        if data := data_of(text):
            found.append(_Row(line, begin, begin + len(text), data))
        elif text.strip() and not found:
            comments += 1
        begin += len(text)
    raise AssertionError


def _names_columns(path: Path, first: _Row, separator: bytes | None) -> bool:
    """The first line begins with the names of two columns, source and destination.

    Raises:
        InputDataError: it names them in other places.
    """
    words = [field.strip(b'"').lower() for field in fields_of(first.data, separator)]
    known = HEADER_WORDS.intersection(words)
    index = len(words) > 2 and words[0] in _INDEX_COLUMNS
    if not index and (len(known) < 2 or known.issuperset(words[:2])):
        return len(known) >= 2
    raise InputDataError(
        "GS-IN-124",
        f"{path} row {first.line:,} names columns, but source and destination are not the first two: "
        f"{first.data[:60].decode('utf-8', 'replace')!r}",
        hint="Put source and destination first (df.to_csv(.., index=False)), or begin the line with # when the first "
        "two columns are the ids.",
    )


def data_of(text: bytes, *, names: bool = False) -> bytes:
    """A line without blanks around it; empty when it holds no data. Among rows of `names` a # or % with something
    right behind it is the beginning of one."""
    text = text.strip(b" \t\r\n")
    comment = text[:1] in (b"#", b"%") and (not names or text[1:2] in (b"", b" ", b"\t"))
    return b"" if comment else text


def fields_of(data: bytes, separator: bytes | None) -> list[bytes]:
    return [field.strip() for field in data.split(separator)]


def refuse_long(text: bytes, path: Path, line: int, longest: int = MAX_LINE) -> None:
    if len(text) > longest:
        hint = "Give more --memory, or save the rows as a .npy file." if longest < MAX_LINE else ""
        raise InputDataError("GS-IN-117", f"{path} row {line + 1:,} is longer than {longest} bytes", hint=hint)
