"""Text of edges or of labels into raw int64 columns in scratch files, by threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion import kernels
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.source import Names, unpacking
from gnnsys.ingestion.text import MAX_LINE, Form, bad_row, open_text, refuse_long, sniff
from gnnsys.ingestion.text_names import NameNumbers, Parsed
from gnnsys.storage.files import map_array
from gnnsys.storage.writer import SequentialWriter


@dataclass(frozen=True)
class Columns:
    """Parsed text: `values` (rows, C) int64, mapped; `names` when its ids were names."""

    values: np.ndarray
    names: Names | None
    header: bool
    """A first line of column names was skipped."""
    comments: int
    """So many lines that begin with # or % were."""
    doubtful: int
    """So many of those above all rows of names may have been such rows."""


def parse_columns(job: Job, path: Path, form: Form) -> Columns:
    """Every row of `path` as integers, names numbered.

    Raises:
        InputDataError: a row is not valid (file, row and what is wrong), or the file cannot be read.
        MemoryBudgetError: the names do not fit into half of --memory.
    """
    unit = f"rows/{form.columns}"
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
    return Columns(values, names, payload["header"], payload["comments"], payload["doubtful"])


class _Parser:
    """One file being parsed: where it stands is journalled every unit."""

    def __init__(self, job: Job, path: Path, form: Form, unit: str) -> None:
        self._job, self._path, self._form, self._unit = job, path, form, unit
        self._size = path.stat().st_size
        state: dict[str, Any] = job.stage.done.get(unit, {})
        with open_text(path) as file:
            start = sniff(file, path, form)
        self._header, self._more = start.header, start.more
        self._comments = state.get("comments", start.comments)
        self._gap = state.get("gap", False)
        self._doubtful = start.doubtful
        self._byte, self._line = state.get("byte", start.byte), state.get("line", start.line)
        self._rows = state.get("rows", 0)
        self._out = SequentialWriter(
            job.stage.work, f"columns-{form.columns}.bin", job.stage.id, resume=state.get("out")
        )
        self._numbers = NameNumbers(job, start, state) if start.named else None

    def run(self) -> None:
        block_bytes = self._job.block_bytes
        recorded = self._byte
        with open_text(self._path) as file, ThreadPoolExecutor(self._job.workers) as self._threads:
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
        if self._numbers is not None:
            self._numbers.close()

    def _parse(self, block: bytes) -> None:
        if self._numbers is not None:
            self._append(*self._numbers.numbers(block, self._path, self._byte, self._line))
            return
        parts = _split(block, self._job.workers)
        for part, (found, gap, error) in zip(parts, self._threads.map(self._integers, parts), strict=True):
            values, lines, _ = found
            if self._gap and len(values):
                lines, error = 0, kernels.BLANK
            if error != kernels.OK:
                text = part.split(b"\n", lines + 1)[lines]
                raise bad_row(self._path, self._line + lines + 1, text, error, self._form)
            self._gap = not self._form.gaps and (gap or (self._gap and not len(values)))
            self._append(*found)

    def _integers(self, part: bytes) -> tuple[Parsed, bool, int]:
        """Of whole lines: what they hold, whether a blank one is behind the last row, what is wrong with the next."""
        # A row takes at least a digit and a separator per column.
        out = np.empty((len(part) // (2 * self._form.columns) + 1, self._form.columns), dtype=np.int64)
        text = np.frombuffer(part, dtype=np.uint8)
        rows, lines, comments, gap, error = kernels.parse_rows(text, self._more, self._form.gaps, out)
        return (out[:rows], lines, comments), gap, error

    def _append(self, values: np.ndarray, lines: int, comments: int) -> None:
        self._out.append(values)
        self._rows += len(values)
        self._line += lines
        self._comments += comments

    def _record(self, *, complete: bool) -> None:
        self._out.sync()
        names = self._numbers.sync(complete) if self._numbers is not None else {}
        state = {
            "byte": self._byte,
            "line": self._line,
            "rows": self._rows,
            "comments": self._comments,
            "gap": self._gap,
        }
        state |= {"out": self._out.state(), **names}
        if complete:
            self._out.finish(np.dtype(np.int64), (self._rows, self._form.columns), "scratch")
        facts: dict[str, Any] = {"complete": complete, "named": self._numbers is not None, "header": self._header}
        facts["doubtful"] = self._doubtful
        self._job.stage.record(self._unit, **facts, **state)


def _whole_lines(file: IO[bytes], num_bytes: int, path: Path, line: int) -> bytes:
    """At least `num_bytes`, up to the end of a line; empty at the end of the file."""
    block = file.read(num_bytes)
    if block and not block.endswith(b"\n"):
        block += file.readline(MAX_LINE + 1)
    start = 0
    while len(block) - start > MAX_LINE:
        end = block.rfind(b"\n", start, start + MAX_LINE + 1)
        if end < 0:
            refuse_long(block[start : start + MAX_LINE + 1], path, line + block.count(b"\n", 0, start))
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
