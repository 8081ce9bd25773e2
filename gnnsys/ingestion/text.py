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
_SIGNS, _BLANKS = (b"#", b"%"), (b"", b" ", b"\t")
_INTEGER = re.compile(rb"-?\d+")
_FLOAT = re.compile(rb"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_INDEX_COLUMNS = frozenset({b"", b"index", b"unnamed: 0"})
"""What stands above the index of pandas, which counts from 0."""
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
        "A row is one edge: of a list of neighbours write a row for each. The first row tells whether there are "
        "further columns.",
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
        mark = start.separator
        for line, text in enumerate(file, start.line + 1):
            if data := data_of(text, start if start.named else None):
                fields = fields_of(data, mark)
                if not (start.named or _is_cut(data, mark, fields)):
                    mark, fields = next(_cuts(data, EDGES.columns), (mark, fields))
                yield line, fields


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
                separator = _mark(path, line, data)
            fields = fields_of(text.strip(b" \r\n") if separator == b"\t" else data, separator)
            if data and (data[:1] not in (b"#", b"%") or fields[0] in names):
                known = True
                yield line, fields


def _mark(path: Path, line: int, data: bytes) -> bytes | None:
    """What separates the fields of a row that begins with an id, told by the row alone."""
    found = [mark for mark, fields in _cuts(data, 1) if len(fields) > 1]
    return found[0] if found else _separator(path, line, [data], 1)


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
    doubtful: int
    """So many of them may be rows of names that begin so."""
    header: bool
    """The line before was one of column names."""


def open_text(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _start_byte(file: IO[bytes]) -> int:
    return len(_BOM) if file.read(len(_BOM)) == _BOM else 0


_MOST_ABOVE = 1000
_MARKS = (b"\t", b",", b";", None)
"""What may stand between fields; None: blanks."""


def _cuts(data: bytes, columns: int) -> Iterator[tuple[bytes | None, list[bytes]]]:
    """Marks that make integers of the first `columns` of a row, with the fields that they make."""
    for mark in _MARKS:
        fields = fields_of(data, mark)
        if len(fields) >= columns and all(map(is_integer, fields[:columns])):
            yield mark, fields


def _is_cut(data: bytes, mark: bytes | None, fields: list[bytes]) -> bool:
    """Whether `fields`, by the `mark` of the row before, are what `_cuts` gives first: a tab is also a blank."""
    ends = len(fields) > 1 and fields[0].isdigit() and fields[1].isdigit()
    return ends and (mark is not None or b"\t" not in data)


def _numbers(data: bytes, columns: int) -> list[bytes] | None:
    """The fields of a row whose first `columns` are integers, whatever stands between them; None where they are not."""
    return next((fields for _, fields in _cuts(data, columns)), None)


def _separator(path: Path, line: int, rows: Sequence[bytes], columns: int) -> bytes | None:
    """What stands between the fields of `rows` of names: the one mark that all have or, of several, a tab, else the
    one that leaves no other in the `columns` that count of the first row, `line`. None: blanks.

    Raises:
        InputDataError: two may do.
    """
    marks = [mark for mark in _MARKS if mark is not None and mark in rows[0]]
    of_all = [mark for mark in marks if all(mark in row for row in rows)]
    if not marks or len(of_all) == 1 or marks[0] == b"\t":  # what stands between tabs may hold anything else
        return of_all[0] if len(of_all) == 1 else marks[0] if marks else None
    for mark in marks:
        fields = fields_of(rows[0], mark)[:columns]
        if not any(other in field for field in fields for other in marks if other != mark):
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
    whole: bytes
    """With tabs at its ends, between which a field may be empty."""


def sniff(file: IO[bytes], path: Path, form: Form) -> Start:
    """Where the data of `file` begins and what it is, told by its first two rows."""
    found, above, comments = _first_rows(file, path, form)
    if not found:
        return Start(file.tell(), comments, False, None, False, comments, 0, False)
    first, last = found[0], found[-1]
    for row in found:
        if any(all(map(_FLOAT.fullmatch, fields_of(row.data, mark)[:2])) for mark in _MARKS):
            # As names they would be numbered by appearance, and rows of features would go to the wrong nodes.
            raise bad_row(path, row.line, row.data, kernels.NOT_A_NUMBER, form)
    words = form.names and _numbers(first.data, form.columns) is None
    separator = _separator(path, first.line, [row.data for row in found], form.columns) if words else None
    header = (words and _names_columns(path, found, separator)) or _is_above_numbers(first, last, form)
    numbers = _numbers((last if header else first).data, form.columns)
    named = form.names and numbers is None
    told = found if header else [first]
    more = form.more and any(len(_all_fields(row, named, separator)) > form.columns for row in told)
    doubtful = sum(len(fields_of(text, separator)) > 1 for text in above) if named else 0
    byte, line = (first.end, first.line) if header else (first.begin, first.line - 1)
    return Start(byte, line, named, separator, more, comments, doubtful, header)


def _first_rows(file: IO[bytes], path: Path, form: Form) -> tuple[list[_Row], list[bytes], int]:
    """At most two rows, of the comments above them some without a blank behind the sign, and how many there are."""
    begin = _start_byte(file)
    file.seek(begin)
    found, above, comments, gap = list[_Row](), list[bytes](), 0, False
    for line in count(1):
        text = file.readline(MAX_LINE + 1)
        if not text or len(found) == 2:
            return found, above, comments
        refuse_long(text, path, line - 1)
        if line == 1 and text.startswith(b"%%MatrixMarket"):
            raise InputDataError(
                "GS-IN-186",
                f"{path} is a MatrixMarket file, whose ids count from 1 below a row of sizes",
                hint="From Python: gs.ingest(scipy.io.mmread(path), out).",
            )
        data = data_of(text)
        if data and gap and not found and not form.gaps:
            raise bad_row(path, line, data, kernels.BLANK, form)
        if data:
            found.append(_Row(line, begin, begin + len(text), data, text.strip(b" \r\n")))
        elif not found and text.strip():
            comments += 1
            above += [text.strip()] if text.strip()[1:2] not in _BLANKS and len(above) < _MOST_ABOVE else []
        gap |= not text.strip()
        begin += len(text)
    raise AssertionError


def _is_above_numbers(first: _Row, last: _Row, form: Form) -> bool:
    """The first row is none of numbers, stands above one, and may be cut as that is."""
    if _numbers(first.data, form.columns) is not None:
        return False
    return any(len(fields_of(first.data, mark)) >= form.columns for mark, _ in _cuts(last.data, form.columns))


def _all_fields(row: _Row, named: bool, separator: bytes | None) -> list[bytes]:
    """Also those that are empty between tabs at the end."""
    numbers = None if named else _numbers(row.whole, 1)
    return fields_of(row.whole, separator) if numbers is None else numbers


def _names_columns(path: Path, rows: Sequence[_Row], separator: bytes | None) -> bool:
    """The first of `rows` begins with the names of two columns, source and destination.

    Raises:
        InputDataError: it names them in other places, or pandas put its index before them.
    """
    first = rows[0]
    words = [field.strip(b'"').lower() for field in fields_of(first.data, separator)]
    known = HEADER_WORDS.intersection(words)
    index = len(words) > 2 and words[0] in _INDEX_COLUMNS and re.match(rb"0\D", rows[-1].data) is not None
    if not index and (len(known) < 2 or known.issuperset(words[:2])):
        return len(known) >= 2
    raise InputDataError(
        "GS-IN-124",
        f"{path} row {first.line:,} names columns, but source and destination are not the first two: "
        f"{first.data[:60].decode('utf-8', 'replace')!r}",
        hint="Put source and destination first (df.to_csv(.., index=False)), or begin the line with # when the first "
        "two columns are the ids.",
    )


def data_of(text: bytes, names: Start | None = None) -> bytes:
    """A line without blanks around it; empty when it holds no data. Among rows of `names` one that begins with # or %
    is a row when it has as many fields, and no blank stands behind the sign."""
    text = text.strip(b" \t\r\n")
    if text[:1] not in _SIGNS or (names is not None and _is_row(text, names)):
        return text
    return b""


def _is_row(text: bytes, names: Start) -> bool:
    fields = fields_of(text, names.separator)
    return text[1:2] not in _BLANKS and len(fields) > 1 and (names.more or len(fields) == EDGES.columns)


def fields_of(data: bytes, separator: bytes | None) -> list[bytes]:
    return [field.strip() for field in data.split(separator)]


def refuse_long(text: bytes, path: Path, line: int, longest: int = MAX_LINE) -> None:
    if len(text) > longest:
        hint = "Give more --memory, or save the rows as a .npy file." if longest < MAX_LINE else ""
        raise InputDataError("GS-IN-117", f"{path} row {line + 1:,} is longer than {longest} bytes", hint=hint)
