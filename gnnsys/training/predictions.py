"""Predictions in a file: a row per node, `.csv` in the user's own ids or `.npy` in the order of ids, piece by piece.

`.csv` has a header. `node` is the id in the source (`Store.names`, else the number), `class` the largest output where
outputs are of classes, and there is a column per output with `probabilities` (p0, p1, ...: softmax over classes, a
sigmoid of every answer where there are several) or `outputs` (out0, out1, ...), nine digits each, which give float32
back exactly. Classes with names are told by them: `class` is one, columns are p_NAME and out_NAME.
`.npy` holds (n,) int64 classes, or (n, C) float32 probabilities or outputs; row i is of the i-th node of the split in
ascending order, of node i without a split.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.progress import Progress, silent
from gnnsys.storage.files import remove_abandoned, replacing, require_free, write_all
from gnnsys.storage.store import Store
from gnnsys.training.outputs import refuse_not_finite

What = Literal["class", "probabilities", "outputs"]
PIECE_BYTES = 4 << 20
"""Upper bound of what a piece of the file takes while it is made."""

_PIECE_VALUES = 1 << 14


def check_target(path: Path, what: str, *, replace: bool) -> None:
    """Refuse what cannot be written, before anything is computed.

    Raises:
        ConfigError: another suffix than .npy and .csv, or an unknown `what`.
        InputDataError: something that is no file is in the way, or without `replace` a file that holds no predictions,
            or there is no folder to write in.
    """
    if path.suffix not in (".npy", ".csv"):
        raise ConfigError(
            "GS-CFG-884", f"{path}: predictions are written as .npy or .csv", hint="E.g. --out preds.csv."
        )
    if what not in get_args(What):
        raise ConfigError("GS-CFG-885", f"what is {what!r}; it must be one of {', '.join(get_args(What))}")
    in_the_way = path.exists() and not path.is_file()
    if in_the_way or not path.parent.is_dir():
        problem = "what is in the way is no file" if in_the_way else f"there is no folder {path.parent}"
        raise InputDataError("GS-IN-541", f"{path}: {problem}", hint="Choose another --out.")
    if not replace and path.exists() and not _begins(path, b"node" if path.suffix == ".csv" else b"\x93NUMPY"):
        raise _in_the_way(path)


def _begins(path: Path, how: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(how)) == how


def _in_the_way(path: Path) -> InputDataError:
    return InputDataError(
        "GS-IN-543",
        f"{path}: is there already, and holds something else than is to be written",
        hint="Choose another --out, or give --replace.",
    )


def write_predictions(
    path: Path,
    what: What,
    store: Store,
    nodes: np.ndarray,
    outputs: np.ndarray,
    progress: Progress = silent,
    *,
    of_classes: bool = True,
    class_names: Sequence[str] = (),
    replace: bool = False,
) -> None:
    """Write the predictions for `nodes` to `path`; until all are written it is as it was.

    Args:
        nodes: (n,) int64 ascending ids.
        outputs: (n, C) float32 of the model; may be mapped.
        of_classes: an output per class, of which one is right.
        class_names: what they are called in a `.csv`, by number, as far as they have names.
        replace: whatever stands there; else only what is the same.

    Raises:
        InputDataError: something else stands there.
        DiskSpaceError: it does not fit on the volume.
    """
    columns = outputs.shape[1]
    if path.suffix == ".npy":
        require_free(path.parent, len(nodes) * (8 if what == "class" else 4 * columns), path.name)
        parts = _as_npy(what, outputs, of_classes)
    else:
        classes = [*class_names[:columns], *range(len(class_names), columns)] if of_classes else None
        parts = _as_csv(what, store, nodes, outputs, classes)
    remove_abandoned(path)
    with replacing(path) as fd, nullcontext() if replace else _comparing(path) as same:
        offset = 0
        for done, part in parts:
            if same is not None:
                same(part)
            write_all(fd, part, offset)
            offset += len(part)
            progress("write", done, len(nodes))


@contextmanager
def _comparing(path: Path) -> Iterator[Callable[[bytes], None] | None]:
    """What to call with all that is written where something stands already: raises InputDataError unless it is the
    same, at the latest when the block ends."""
    if not path.exists():
        yield None
        return
    with path.open("rb") as file:

        def same(part: bytes) -> None:
            if file.read(len(part)) != part:
                raise _in_the_way(path)

        yield same
        if file.read(1):
            raise _in_the_way(path)


def _pieces(what: What, outputs: np.ndarray, of_classes: bool) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Rows, their classes (m,) int64 and their values (m, C) float32; no columns for `class`."""
    step = max(1, _PIECE_VALUES // (outputs.shape[1] + 1))
    for start in range(0, len(outputs), step):
        rows = slice(start, min(start + step, len(outputs)))
        out = torch.from_numpy(np.array(outputs[rows]))
        if what != "outputs":
            refuse_not_finite(out, f"rows {rows.start:,} to {rows.stop:,} of the file")
        probable = partial(torch.softmax, dim=1) if of_classes else torch.sigmoid
        values = probable(out) if what == "probabilities" else out
        classes = out.argmax(dim=1).numpy()  # as `Accuracy` does it: the first of equal outputs
        yield rows, classes, values.numpy()[:, : 0 if what == "class" else None]


def _as_npy(what: What, outputs: np.ndarray, of_classes: bool) -> Iterator[tuple[int, bytes]]:
    """Rows done and bytes, header first."""
    shape = outputs.shape[:1] if what == "class" else outputs.shape
    header = io.BytesIO()
    described = {"descr": "<i8" if what == "class" else "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    yield 0, header.getvalue()
    for rows, classes, values in _pieces(what, outputs, of_classes):
        yield rows.stop, (classes.astype("<i8") if what == "class" else values.astype("<f4")).tobytes()


def _as_csv(
    what: What, store: Store, nodes: np.ndarray, outputs: np.ndarray, classes: Sequence[str | int] | None
) -> Iterator[tuple[int, bytes]]:
    """Rows done and lines, header first; what the `classes` are called, when outputs are of classes."""
    prefix = {"class": "", "probabilities": "p", "outputs": "out"}[what]
    of = range(outputs.shape[1]) if classes is None else classes
    titles = [f"{prefix}{c if isinstance(c, int) else f'_{c}'}" for c in of] if prefix else []
    yield 0, _lines([["node", *([] if classes is None else ["class"]), *titles]])
    for rows, largest, values in _pieces(what, outputs, classes is not None):
        ids = store.names(nodes[rows]) if store.has_names else nodes[rows].tolist()
        found = ([] for _ in ids) if classes is None else ([classes[c]] for c in largest.tolist())
        written = zip(ids, found, values.tolist(), strict=True)
        yield rows.stop, _lines([[name, *c, *(f"{value:.9g}" for value in row)] for name, c, row in written])


def _lines(rows: list[list[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
