"""Classes of named nodes from a text with a name and a class per row, as (N, 1) int64 in a scratch file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.source import Names, unpacking
from gnnsys.ingestion.text import edge_rows
from gnnsys.storage.files import map_array

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_CLASS = re.compile(rb"-?\d{1,18}")
_FORM = "A row is the name of a node and its class: a whole number from 0, -1 = unlabelled. Rows stand in any order."
_STRANGER = "Take the row out, or give the node an edge to itself; --no-self-loops leaves that out again."


def parse_labels_by_name(job: Job, path: Path, names: Names) -> np.ndarray:
    """The class of every node of `names`, -1 where `path` has no row of it; parsed once per stage.

    Memory is that of the names, which --memory was found to allow when the edges were parsed.

    Raises:
        InputDataError: a row is not a name and a class, names no node, or one that has another class already.
    """
    unit, file = "text/labels-by-name", job.stage.work / "labels-by-name.bin"
    if unit not in job.stage.done:
        with unpacking(path):
            write_scratch(file, [_labels(path, _numbers(names))])
        job.stage.record(unit, rows=file.stat().st_size // 8)
    return map_raw(file, np.dtype(np.int64), (job.stage.done[unit]["rows"], 1), fortran=False)


def _numbers(names: Names) -> dict[bytes, int]:
    offsets = map_array(names.offsets_path, "<i8", (names.offsets_path.stat().st_size // 8,))
    text = map_array(names.text_path, "|u1", (int(offsets[-1]),))
    return {text[offsets[i] : offsets[i + 1]].tobytes(): i for i in range(len(offsets) - 1)}


def _labels(path: Path, numbers: dict[bytes, int]) -> np.ndarray:
    labels, given = np.full(len(numbers), -1, dtype=np.int64), np.zeros(len(numbers), dtype=bool)
    for row, (line, fields) in enumerate(edge_rows(path)):
        if len(fields) != 2:
            raise _bad_row(path, line, f"has {len(fields)} columns, expected 2", _FORM)
        name, label = fields
        if not _CLASS.fullmatch(label):
            if row == 0 and name not in numbers:
                continue  # names of columns
            raise _bad_row(path, line, f"has no class in column 2: {_shown(label)}", _FORM)
        node = numbers.get(name)
        if node is None:
            raise _bad_row(path, line, f"names {_shown(name)}, which no edge has", _STRANGER)
        if given[node] and labels[node] != int(label):
            raise _bad_row(path, line, f"gives {_shown(name)} another class than {labels[node]}, an earlier row's", "")
        labels[node], given[node] = int(label), True
    return labels


def _shown(field: bytes) -> str:
    return repr(field[:60].decode("utf-8", "replace"))


def _bad_row(path: Path, line: int, problem: str, hint: str) -> InputDataError:
    return InputDataError("GS-IN-179", f"{path} row {line:,} {problem}", hint=hint)
