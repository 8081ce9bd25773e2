"""Text of edges or of labels (csv, tsv, blanks; plain or .gz) into raw int64 columns in scratch files.

The first line with data decides: integers are ids as they are, anything else is a name, numbered from 0 in order of
first appearance. A first line is a header when it stands above a line of integers, or when its first two fields are
column names (`HEADER_WORDS`); one whose column names stand elsewhere is refused. Lines that are blank or begin with #
or % are skipped. An edge is the first two columns; of more, one may hold weights (`text_weights`), others are counted
and ignored. A label is the only column.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from gnnsys.errors import InputDataError, MemoryBudgetError
from gnnsys.ingestion import kernels
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.source import Names, unpacking
from gnnsys.storage.files import map_array
from gnnsys.storage.writer import SequentialWriter
from gnnsys.units import format_size

MAX_LINE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(rb"-?\d+")
_FLOAT = re.compile(rb"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
HEADER_WORDS = frozenset(
    b"src dst source target from to u v head tail user item "
    b"id1 id2 node1 node2 id_1 id_2 node_1 node_2 src_id dst_id source_id target_id user_id item_id".split()
)
_NAME_BYTES = 200
"""Memory of one name beside its characters: bytes object, number, dictionary slot while the dictionary doubles."""

_PROBLEMS = {
    kernels.NOT_A_NUMBER: (
        "GS-IN-103",
        "is not a row of integers",
        "Write ids without a point; names must be names from the first row.",
    ),
    kernels.TOO_FEW: ("GS-IN-106", "has too few columns", "A row is source, destination."),
    kernels.TOO_LARGE: ("GS-IN-107", "holds a number of more than 18 digits", "Ids are less than 2^32."),
    kernels.NUL: ("GS-IN-109", "holds a NUL byte", "The file is binary or damaged."),
    kernels.TOO_MANY: ("GS-IN-118", "has more than one column", ""),
    kernels.QUOTED: ("GS-IN-119", "holds a quoted id", "Write ids without quotes, and separate them by tabs."),
}
_OF_LABELS = "Row i is the class of node i and nothing else: a whole number from 0, -1 = unlabelled."


def names_bytes(names: Names) -> int:
    """Memory of a dictionary of them."""
    return names.text_path.stat().st_size + len(names) * _NAME_BYTES


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


@dataclass(frozen=True)
class Columns:
    """Parsed text: `values` (rows, C) int64, mapped; `names` when its ids were names."""

    values: np.ndarray
    names: Names | None
    header: bool
    """A first line of column names was skipped."""


def parse_columns(job: Job, path: Path, form: Form) -> Columns:
    """Every row of `path` as integers, names numbered.

    Raises:
        InputDataError: a row is not valid (file, row and what is wrong), or the file cannot be read.
        MemoryBudgetError: the names do not fit into half of --memory.
    """
    unit = f"text/{form.columns}"
    if not job.stage.done.get(unit, {}).get("complete"):
        try:
            with unpacking(path), closing(_Parser(job, path, form, unit)) as parser:
                parser.run()
        except OSError as error:
            if error.filename is None or Path(error.filename) != path:
                raise
            raise InputDataError("GS-IN-100", f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    payload = job.stage.done[unit]
    values = map_array(job.stage.work / f"columns-{form.columns}.bin", "<i8", (payload["rows"], form.columns))
    names = Names(job.stage.work / "names.bin", job.stage.work / "name-offsets.bin") if payload["named"] else None
    return Columns(values, names, payload["header"])


def line_of_row(path: Path, row: int) -> int:
    """The line, counted from 1 as editors do, that row `row` (from 0) of a file of edges stands on."""
    return next(islice(edge_rows(path), row, None))[0]


def edge_rows(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Every row of a file of edges: the line it stands on, counted from 1, and all its fields."""
    with unpacking(path), _open(path) as file:
        start = _sniff(file, path, EDGES)
        file.seek(start.byte)
        for line, text in enumerate(file, start.line + 1):
            if data := _data(text):
                yield line, _fields(data, start.separator)


def text_rows(path: Path, names: Container[bytes] = (), longest: int = MAX_LINE) -> Iterator[tuple[int, list[bytes]]]:
    """As `edge_rows`, of any text, with a first line of column names; the first row tells the separator.

    Lines that begin with # or % are no rows unless one of `names` stands there. Between tabs the last field may be
    empty.

    Raises:
        InputDataError: a line is longer than `longest` bytes, holds a NUL, or a carriage return that does not end it.
    """
    with unpacking(path), _open(path) as file:
        file.seek(_start_byte(file))
        separator, line, known = None, 0, False
        while text := file.readline(longest + 1):
            _refuse_long(text, path, line, longest)
            line += 1
            data = text.strip(b" \t\r\n")
            _refuse_binary(data, path, line)
            if not known:
                separator = _separator(data)
            fields = _fields(text.strip(b" \r\n") if separator == b"\t" else data, separator)
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


class _Parser:
    """One file being parsed: where it stands is journalled every unit."""

    def __init__(self, job: Job, path: Path, form: Form, unit: str) -> None:
        self._job, self._path, self._form, self._unit = job, path, form, unit
        self._size = path.stat().st_size
        state: dict[str, Any] = job.stage.done.get(unit, {})
        with _open(path) as file:
            start = _sniff(file, path, form)
        self._header = start.header
        self._byte, self._line = state.get("byte", start.byte), state.get("line", start.line)
        self._rows = state.get("rows", 0)
        self._out = SequentialWriter(
            job.stage.work, f"columns-{form.columns}.bin", job.stage.id, resume=state.get("out")
        )
        self._dictionary = _Dictionary(job, start.separator, state) if start.named else None

    def run(self) -> None:
        block_bytes = self._job.block_bytes
        recorded = self._byte
        with _open(self._path) as file, ThreadPoolExecutor(self._job.workers) as self._threads:
            file.seek(self._byte)
            while block := _whole_lines(file, block_bytes, self._path, self._line):
                self._parse(block)
                self._byte += len(block)
                self._job.progress(f"read {self._path.name}", min(self._byte, self._size), self._size)
                if self._byte - recorded >= self._job.unit_bytes:
                    recorded = self._byte
                    self._record(complete=False)
        self._record(complete=True)

    def close(self) -> None:
        self._out.close()
        if self._dictionary is not None:
            self._dictionary.close()

    def _parse(self, block: bytes) -> None:
        if self._dictionary is not None:
            values, lines = self._dictionary.numbers(block, self._path, self._byte, self._line)
            self._append(values, lines)
            return
        parts = _split(block, self._job.workers)
        for part, (values, lines, error) in zip(parts, self._threads.map(self._integers, parts), strict=True):
            if error != kernels.OK:
                text = part.split(b"\n", lines + 1)[lines]
                raise bad_row(self._path, self._line + lines + 1, text, error, self._form)
            self._append(values, lines)

    def _integers(self, part: bytes) -> tuple[np.ndarray, int, int]:
        """((rows, C) int64, lines read, what is wrong with the next line) of whole lines."""
        # A row takes at least a digit and a separator per column.
        out = np.empty((len(part) // (2 * self._form.columns) + 1, self._form.columns), dtype=np.int64)
        rows, lines, error = kernels.parse_rows(np.frombuffer(part, dtype=np.uint8), self._form.more, out)
        return out[:rows], lines, error

    def _append(self, values: np.ndarray, lines: int) -> None:
        self._out.append(values)
        self._rows += len(values)
        self._line += lines

    def _record(self, *, complete: bool) -> None:
        self._out.sync()
        names = self._dictionary.sync(complete) if self._dictionary is not None else {}
        state = {"byte": self._byte, "line": self._line, "rows": self._rows, "out": self._out.state(), **names}
        if complete:
            self._out.finish(np.dtype(np.int64), (self._rows, self._form.columns), "scratch")
        facts = {"complete": complete, "named": self._dictionary is not None, "header": self._header}
        self._job.stage.record(self._unit, **facts, **state)


class _Dictionary:
    """Names numbered in order of first appearance; new ones go to scratch files, from which a resume learns them."""

    def __init__(self, job: Job, separator: bytes | None, state: dict[str, Any]) -> None:
        self._job, self._separator = job, separator
        work, ident = job.stage.work, job.stage.id
        self._text = SequentialWriter(work, "names.bin", ident, resume=state.get("text"))
        self._offsets = SequentialWriter(work, "name-offsets.bin", ident, resume=state.get("offsets"))
        self._number: dict[bytes, int] = {}
        self._held = 0
        if "text" in state:
            self._learn(work, self._offsets.num_bytes // 8 - 1)
        else:
            self._offsets.append(np.zeros(1, dtype=np.int64))

    def _learn(self, work: Path, count: int) -> None:
        text, offsets = Names(work / "names.bin", work / "name-offsets.bin").mapped()
        for number in range(count):
            self._number[text[offsets[number] : offsets[number + 1]].tobytes()] = number
        self._account(int(offsets[-1]) + count * _NAME_BYTES)

    def numbers(self, block: bytes, path: Path, byte: int, line: int) -> tuple[np.ndarray, int]:
        """((rows, 2) int64, lines read) of a block of whole lines."""
        _require_utf8(block, path, byte)
        lines = block.split(b"\n")
        before = len(self._number)
        out: list[int] = []
        for number, text in enumerate(lines, line + 1):
            if data := _data(text):
                ends = _fields(data, self._separator)[:2]
                problem = _problem(ends, data)
                if problem != kernels.OK:
                    raise bad_row(path, number, text, problem, EDGES)
                out.extend(self._number.setdefault(name, len(self._number)) for name in ends)
        self._append(_last(self._number, before))
        values = np.array(out, dtype=np.int64).reshape(-1, 2)
        return values, len(lines) - block.endswith(b"\n")

    def _append(self, new: list[bytes]) -> None:
        lengths = np.array([len(name) for name in new], dtype=np.int64)
        self._account(int(lengths.sum()) + len(new) * _NAME_BYTES)
        self._offsets.append(self._text.num_bytes + np.cumsum(lengths))
        self._text.append(np.frombuffer(b"".join(new), dtype=np.uint8))

    def _account(self, num_bytes: int) -> None:
        self._held += num_bytes
        limit = self._job.budget.total // 2
        if self._held > limit:
            raise MemoryBudgetError(
                "GS-MEM-102",
                f"{len(self._number):,} names need {format_size(self._held)}, half of --memory is {format_size(limit)}",
                hint="Give more --memory, or number the nodes from 0 in the file.",
            )

    def close(self) -> None:
        self._text.close()
        self._offsets.close()

    def sync(self, complete: bool) -> dict[str, Any]:
        self._text.sync()
        self._offsets.sync()
        state = {"text": self._text.state(), "offsets": self._offsets.state()}
        if complete:
            self._text.finish(np.dtype(np.uint8), (self._text.num_bytes,), "scratch")
            self._offsets.finish(np.dtype(np.int64), (len(self._number) + 1,), "scratch")
        return state


def _problem(ends: list[bytes], data: bytes) -> int:
    """What is wrong with a row of names."""
    if b"\0" in data:
        return kernels.NUL
    if len(ends) < 2 or b"" in ends:
        return kernels.TOO_FEW
    # A quoted name may hold the separator; its first piece then begins with the quote.
    return kernels.QUOTED if any(b'"' in name for name in ends) else kernels.OK


def bad_row(path: Path, line: int, text: bytes, problem: int, form: Form) -> InputDataError:
    """The error for one row: file, line number, what it is, what was expected."""
    if problem == kernels.NOT_A_NUMBER and b'"' in text:
        problem = kernels.QUOTED
    code, what, hint = _PROBLEMS[problem]
    shown = text[:60].decode("utf-8", "replace")
    return InputDataError(code, f"{path} row {line:,} {what}: {shown!r}", hint=form.hint or hint)


@dataclass(frozen=True)
class _Start:
    """Where data begins and what it is."""

    byte: int
    line: int
    named: bool
    separator: bytes | None
    """None: blanks."""
    header: bool
    """The line before was one of column names."""


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _start_byte(file: IO[bytes]) -> int:
    return len(_BOM) if file.read(len(_BOM)) == _BOM else 0


def _separator(data: bytes) -> bytes | None:
    return next((s for s in (b",", b";", b"\t") if s in data), None)


def _sniff(file: IO[bytes], path: Path, form: Form) -> _Start:
    byte = _start_byte(file)
    file.seek(byte)
    found: list[tuple[int, int, bytes]] = []
    line = 0
    while len(found) < 2 and (text := file.readline(MAX_LINE + 1)):
        _refuse_long(text, path, line)
        if data := _data(text):
            found.append((byte, line, data))
        byte, line = byte + len(text), line + 1
    if not found:
        return _Start(byte, line, False, None, False)
    separator = _separator(found[0][2])
    integers = [all(map(is_integer, _fields(data, separator)[:2])) for _, _, data in found]
    named = form.names and _names_columns(path, found[0], separator)
    header = named or (integers[-1] and not integers[0])
    first = found[0] if not header else found[1] if len(found) == 2 else (byte, line)
    for _, number, data in found:
        if all(map(_FLOAT.fullmatch, _fields(data, separator)[:2])):
            # As names they would be numbered by appearance, and rows of features would go to the wrong nodes.
            raise bad_row(path, number + 1, data, kernels.NOT_A_NUMBER, form)
    return _Start(first[0], first[1], form.names and not integers[-1 if header else 0], separator, header)


def _names_columns(path: Path, first: tuple[int, int, bytes], separator: bytes | None) -> bool:
    """The first line begins with the names of two columns, source and destination.

    Raises:
        InputDataError: it names them in other places.
    """
    _, line, data = first
    words = [field.strip(b'"').lower() for field in _fields(data, separator)]
    known = HEADER_WORDS.intersection(words)
    if len(known) < 2 or known.issuperset(words[:2]):
        return len(known) >= 2
    raise InputDataError(
        "GS-IN-124",
        f"{path} row {line + 1:,} names columns, but source and destination are not the first two: "
        f"{data[:60].decode('utf-8', 'replace')!r}",
        hint="Put source and destination first, or begin the line with # when the first two columns are the ids.",
    )


def _data(text: bytes) -> bytes:
    """A line without blanks around it; empty when it holds no data."""
    text = text.strip(b" \t\r\n")
    return b"" if text[:1] in (b"#", b"%") else text


def _fields(data: bytes, separator: bytes | None) -> list[bytes]:
    return [field.strip() for field in data.split(separator)]


def _last(numbers: dict[bytes, int], before: int) -> list[bytes]:
    """Names numbered `before` and above: a dictionary keeps the order of insertion."""
    new: list[bytes] = []
    for name in reversed(numbers):
        if numbers[name] < before:
            break
        new.append(name)
    return new[::-1]


def _require_utf8(block: bytes, path: Path, byte: int) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        raise InputDataError(
            "GS-IN-116", f"{path}: not UTF-8 at byte {byte + error.start}", hint="Save the file as UTF-8."
        ) from None


def _whole_lines(file: IO[bytes], num_bytes: int, path: Path, line: int) -> bytes:
    """At least `num_bytes`, up to the end of a line; empty at the end of the file."""
    block = file.read(num_bytes)
    if block and not block.endswith(b"\n"):
        block += file.readline(MAX_LINE + 1)
    start = 0
    while len(block) - start > MAX_LINE:
        end = block.rfind(b"\n", start, start + MAX_LINE + 1)
        if end < 0:
            _refuse_long(block[start : start + MAX_LINE + 1], path, line + block.count(b"\n", 0, start))
        start = end + 1
    return block


def _split(block: bytes, count: int) -> list[bytes]:
    """`block`, which ends a line, as at most `count` parts of about one size that each end a line."""
    parts, start = list[bytes](), 0
    for number in range(1, count + 1):
        stop = block.find(b"\n", max(len(block) * number // count - 1, start)) + 1 or len(block)
        if stop > start:
            parts.append(block[start:stop])
        start = stop
    return parts


def _refuse_long(text: bytes, path: Path, line: int, longest: int = MAX_LINE) -> None:
    if len(text) > longest:
        hint = "Give more --memory, or save the rows as a .npy file." if longest < MAX_LINE else ""
        raise InputDataError("GS-IN-117", f"{path} row {line + 1:,} is longer than {longest} bytes", hint=hint)
