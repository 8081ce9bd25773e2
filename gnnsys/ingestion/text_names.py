"""Ids of a text that are names: numbered in order of first appearance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.errors import InputDataError, MemoryBudgetError
from gnnsys.ingestion import kernels
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.source import Names
from gnnsys.ingestion.text import EDGES, Start, bad_row, data_of, fields_of
from gnnsys.storage.writer import SequentialWriter
from gnnsys.units import format_size

_NAME_BYTES = 200
"""Memory of one name beside its characters: bytes object, number, dictionary slot while the dictionary doubles."""


Parsed = tuple[np.ndarray, int, int]
"""Of some lines: (rows, C) int64, how many lines they are, how many of them are comments."""


def names_bytes(names: Names) -> int:
    """Memory of a dictionary of them."""
    return names.text_path.stat().st_size + len(names) * _NAME_BYTES


class NameNumbers:
    """Names numbered in order of first appearance; new ones go to scratch files, from which a resume learns them."""

    def __init__(self, job: Job, start: Start, state: dict[str, Any]) -> None:
        self._job, self._start = job, start
        work, ident = job.stage.work, job.stage.id
        self._text = SequentialWriter(work, "names.bin", ident, resume=state.get("text"))
        self._offsets = SequentialWriter(work, "name-offsets.bin", ident, resume=state.get("offsets"))
        self._number: dict[bytes, int] = {}
        self._held = 0
        if "text" in state:
            names = Names(work / "names.bin", work / "name-offsets.bin")
            self._number = names.numbers()
            self._account(names_bytes(names))
        else:
            self._offsets.append(np.zeros(1, dtype=np.int64))

    def numbers(self, block: bytes, path: Path, byte: int, line: int) -> Parsed:
        """What a block of whole lines holds, (rows, 2)."""
        _require_utf8(block, path, byte)
        lines = block.split(b"\n")
        before, comments = len(self._number), 0
        out: list[int] = []
        for number, text in enumerate(lines, line + 1):
            if data := data_of(text, self._start):
                fields = fields_of(data, self._start.separator)
                problem = _problem(fields, data, self._start.more)
                if problem != kernels.OK:
                    raise bad_row(path, number, text, problem, EDGES)
                out.extend(self._number.setdefault(name, len(self._number)) for name in fields[:2])
            else:
                comments += bool(text.strip())
        self._append(_last(self._number, before))
        values = np.array(out, dtype=np.int64).reshape(-1, 2)
        return values, len(lines) - block.endswith(b"\n"), comments

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


def _problem(fields: list[bytes], data: bytes, more: bool) -> int:
    """What is wrong with a row of names."""
    if b"\0" in data:
        return kernels.NUL
    if len(fields) < 2 or b"" in fields[:2]:
        return kernels.TOO_FEW
    # A quoted name may hold the separator; its first piece then begins with the quote.
    if any(b'"' in name for name in fields[:2]):
        return kernels.QUOTED
    further = next(filter(None, fields[2:]), b"")
    return kernels.TOO_MANY if further and not more and further[:1] not in (b"#", b"%") else kernels.OK


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
