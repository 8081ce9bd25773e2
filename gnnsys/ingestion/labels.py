"""Labels into the Store: classes as one column of integers, yes-or-no answers and numbers as a float32 matrix."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.rows import write_rows
from gnnsys.ingestion.source import Rows
from gnnsys.storage.files import map_array
from gnnsys.storage.labels import KINDS, MATRICES, LabelKind
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.store import LABELS

MAX_CLASSES = 1 << 31
_COUNTED_CLASSES = 1 << 20
_STEP = 1 << 19


@dataclass(frozen=True)
class WrittenLabels:
    """Labels that are in the Store: none, classes or a matrix."""

    entries: tuple[FileEntry, ...] = ()
    labels: np.ndarray | None = None
    """Mapped: (N,) int64 or (N, T) float32."""
    num_classes: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    """What the counts of the Store say of a matrix, or of classes that have names."""


def check_kind(kind: str | None) -> None:
    """Refuse a kind of labels that does not exist; None leaves it to the labels."""
    if kind is not None and kind not in KINDS:
        raise ConfigError("GS-CFG-901", f"label_kind is {kind!r}, expected {', '.join(KINDS)}")


def write_labels(job: Job, labels: Rows, kind: str | None, num_classes: int | None) -> WrittenLabels:
    """`labels/y.bin` of that kind; when None, one column holds classes and several are multilabel.

    Args:
        num_classes: of classes; the largest label + 1 when None.

    Raises:
        InputDataError: labels that the kind does not have, or more columns than it does; not numbers.
    """
    if labels.dtype.kind not in "iufb" or labels.columns < 1:
        raise InputDataError(
            "GS-IN-132", f"labels: {labels.dtype} in {labels.columns} columns, expected numbers, a row per node"
        )
    if labels.class_names:
        return _write_named_classes(job, labels, kind)
    if kind in MATRICES or (kind is None and labels.columns > 1):
        return _write_matrix(job, labels, "regression" if kind == "regression" else "multilabel")
    return _write_classes(job, labels, num_classes)


def _write_named_classes(job: Job, labels: Rows, kind: str | None) -> WrittenLabels:
    if kind in MATRICES:
        raise InputDataError(
            "GS-IN-132", f"labels: names such as {labels.class_names[0]!r}, expected numbers for labels of kind {kind}"
        )
    written = _write_classes(job, labels, len(labels.class_names))
    return replace(written, counts={"class_names": list(labels.class_names)})


def _write_classes(job: Job, labels: Rows, num_classes: int | None) -> WrittenLabels:
    if labels.columns != 1:
        raise InputDataError(
            "GS-IN-132",
            f"labels: {labels.columns} columns, expected one column of classes",
            hint="Several columns are --label-kind multilabel (0 or 1 each) or regression (numbers).",
        )
    limit = MAX_CLASSES if num_classes is None else num_classes

    def change(block: np.ndarray, start: int) -> tuple[np.ndarray, int]:
        out = _whole(block, start)
        bad = ((out < -1) | (out >= limit)).any(axis=1)
        if bad.any():
            raise InputDataError(
                "GS-IN-130",
                f"node {start + int(np.argmax(bad))} has label {int(out[np.argmax(bad), 0])}, "
                f"expected -1 (unlabelled) or a class in [0, {limit})",
                hint="Number the classes from 0.",
            )
        return out, 0

    shape = (labels.num_rows,)
    entries, _ = write_rows(job, LABELS, "labels", labels, np.dtype(np.int64), change, shape=shape)
    written = map_array(job.stage.folder / LABELS, "<i8", shape)
    if num_classes is not None:
        return WrittenLabels(entries, written, num_classes)
    parts = [written[a : a + _STEP] for a in range(0, len(written), _STEP)]
    num_classes = 1 + max((int(part.max()) for part in parts), default=-1)
    seen = np.zeros(num_classes if num_classes <= _COUNTED_CLASSES else 0, dtype=bool)
    for part in parts if len(seen) else ():
        seen[part[part >= 0]] = True
    empty = len(seen) - int(seen.sum())
    return WrittenLabels(entries, written, num_classes, {"empty_classes": empty} if empty else {})


def _write_matrix(job: Job, labels: Rows, kind: LabelKind) -> WrittenLabels:
    def change(block: np.ndarray, start: int) -> tuple[np.ndarray, int]:
        with np.errstate(over="ignore"):
            out = block.astype(np.float32)
        if kind == "multilabel":
            out[block == -1] = np.nan
            bad = ~np.isin(out, (0, 1)) & ~np.isnan(out)
        else:
            bad = np.isinf(out)
        if bad.any():
            row, column = (int(at) for at in np.argwhere(bad)[0])
            raise _not_of_kind(kind, start + row, column, block[row, column])
        return out, 0

    entries, _ = write_rows(job, LABELS, "labels", labels, np.dtype(np.float32), change)
    written = map_array(job.stage.folder / LABELS, "<f4", (labels.num_rows, labels.columns))
    return WrittenLabels(entries, written, counts={"labels": {"kind": kind, "columns": labels.columns}})


def _not_of_kind(kind: LabelKind, node: int, column: int, value: Any) -> InputDataError:
    expected = "0, 1, or -1 or NaN (unlabelled)" if kind == "multilabel" else "a finite float32, or NaN (unlabelled)"
    hint = "Are these numbers to be predicted? Say --label-kind regression." if kind == "multilabel" else ""
    return InputDataError(
        "GS-IN-150", f"node {node} has label {value} in column {column}, expected {expected}", hint=hint
    )


def _whole(block: np.ndarray, start: int) -> np.ndarray:
    """Labels (n, 1) as int64; NaN in float labels means unlabelled."""
    if block.dtype.kind != "f":
        return block.astype(np.int64)
    filled = np.where(np.isnan(block), -1, block)
    with np.errstate(invalid="ignore"):
        out = filled.astype(np.int64)
    if (out != filled).any():
        row = int(np.argmax((out != filled)[:, 0]))
        raise InputDataError(
            "GS-IN-131",
            f"node {start + row} has label {block[row, 0]}, expected a whole number",
            hint="Are these numbers to be predicted? Say --label-kind regression.",
        )
    return out
