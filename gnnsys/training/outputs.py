"""What every way of inference shares: a model put into eval mode and back, a scratch folder, outputs in a file."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from torch import nn

from gnnsys.budget import Budget
from gnnsys.errors import GnnsysError, StoreBusyError
from gnnsys.storage.files import make_output_folder, map_array, remove_tree
from gnnsys.storage.lock import WriterLock
from gnnsys.storage.tables import MutableTable

_SCRATCH = ".evaluate-"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode and no gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def distinct(ids: np.ndarray) -> np.ndarray:
    """`ids` (n,) ascending without repeats; itself when it is that already. `np.unique` takes seven times its bytes."""
    if bool((ids[1:] > ids[:-1]).all()):
        return ids
    ids = np.sort(ids)
    return ids[np.concatenate([[True], ids[1:] != ids[:-1]])]


def refuse_not_finite(out: torch.Tensor, of: str) -> None:
    """Raise GnnsysError where `out` (n, ...) holds NaN or infinities: no score and no class could be made of them."""
    bad = int((~out.isfinite()).reshape(len(out), -1).any(dim=1).sum()) if len(out) else 0
    if bad:
        raise GnnsysError(
            "GS-TRAIN-010",
            f"{bad:,} of {len(out):,} outputs for {of} are not finite",
            hint="Weights or features are too large: use a smaller --lr, --clip-norm, or normalise the features.",
        )


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, removed afterwards; what was mapped from it stays readable."""
    folder = parent / "inference"
    remove_tree(folder)
    make_output_folder(folder)
    try:
        yield folder
    finally:
        remove_tree(folder)


@contextmanager
def scratch_in_run(run: Path) -> Iterator[Path]:
    """A folder for one evaluation: in the run's folder, which is on a disk with room, or in the temporary one when
    that cannot be written. What killed evaluations left in the run is removed."""
    try:
        folder = Path(mkdtemp(prefix=_SCRATCH, dir=run))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        folder = Path(mkdtemp(prefix="gnnsys-evaluate-"))
    try:
        with WriterLock(folder):
            _remove_abandoned(run)
            yield folder
    finally:
        remove_tree(folder)


def _remove_abandoned(run: Path) -> None:
    """The lock of a folder in use is held; the kernel released that of a killed process."""
    for left in run.glob(f"{_SCRATCH}*"):
        with suppress(StoreBusyError, OSError), WriterLock(left):
            remove_tree(left)


class OutputFile:
    """Rows of float32 that are written in any order and end as an array.

    Args:
        path: of the file, made here.
        targets: (n,) ascending node ids; row i is for `targets[i]`.
        columns: width of a row.
    """

    def __init__(self, path: Path, targets: np.ndarray, columns: int) -> None:
        self.targets = targets
        self.table = MutableTable.at(path, len(targets), columns)
        self._path = path

    def write(self, begin: int, rows: torch.Tensor) -> None:
        """Rows `begin ..` from a tensor on any device."""
        self.table.write(np.arange(begin, begin + len(rows)), rows.float().cpu().numpy())

    def rows_for(self, nodes: np.ndarray, budget: Budget) -> np.ndarray:
        """(m, columns) float32 for `nodes` (m,), each one of the targets: the file itself, mapped, when they are the
        targets, else a copy.

        Raises:
            MemoryBudgetError: the copy does not fit.
        """
        if np.array_equal(nodes, self.targets):
            return map_array(self._path, "<f4", (self.table.num_rows, self.table.columns))
        budget.reserve(len(nodes) * (self.table.row_bytes + 8), "outputs")
        return self.table.read(np.searchsorted(self.targets, nodes))
