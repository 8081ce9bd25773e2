"""Foreign `.pt` files: arrays and numbers, by torch's restricted reader in a child process with limits of its own.

The child may build nothing but numpy arrays, tensors, numbers, texts and dictionaries of them; it writes each array as
raw bytes and prints what there is. Whatever a file does to the child, the parent reads only checked shapes.
"""

from __future__ import annotations

import json
import math
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.source import require_file

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_DATA_BYTES, _DATA_FACTOR = 1 << 30, 4
"""Limit of the child's data beyond its imports: what torch maps for a small file, some copies of a large one."""
_CPU_SECONDS, _CPU_BYTES = 60, 10 << 20
"""Seconds of work, and bytes of the file for each second more."""
_GROWTH = 384 << 20
"""What a child grows by: Python, numpy and torch. Measured: 240 MiB."""
_MAX_ENTRIES = 10_000

Pickled = dict[str, "np.ndarray | float | str"]


def read_pickle(job: Job, path: Path) -> Pickled:
    """Arrays (read-only maps), numbers and texts of a dictionary that torch saved; `a/b` is entry b of dictionary a.

    Raises:
        InputDataError: absent, damaged, or it holds or wants to make anything else.
        MemoryBudgetError: the child does not fit.
    """
    require_file(path)
    unit = f"pickle/{path.name}"
    if unit not in job.stage.done:
        with job.budget.holding(_GROWTH + _DATA_FACTOR * path.stat().st_size, f"a process that reads {path.name}"):
            job.stage.record(unit, entries=_ask(path, job.stage.work))
    return {name: _value(job.stage.work, entry) for name, entry in job.stage.done[unit]["entries"].items()}


def _ask(path: Path, folder: Path) -> dict[str, Any]:
    """What the child found, after it has written the arrays into `folder`."""
    child = subprocess.run(  # noqa: S603 - this interpreter, no shell
        [sys.executable, "-m", "gnnsys.ingestion.pickles", str(path), str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0 or not child.stdout:
        said = (child.stderr.strip().splitlines() or [f"the process that reads it ended with {child.returncode}"])[-1]
        raise InputDataError(
            "GS-IN-133",
            f"{path}: {said}",
            hint="Only dictionaries of arrays and numbers are read. Where text files lie beside it, move it away.",
        )
    entries: dict[str, Any] = json.loads(child.stdout)
    return entries


def _value(folder: Path, entry: Mapping[str, Any]) -> np.ndarray | float | str:
    if "value" in entry:
        value: float | str = entry["value"]
        return value
    return map_raw(folder / entry["file"], np.dtype(entry["dtype"]), tuple(entry["shape"]), fortran=False)


def main(path: Path, folder: Path) -> int:
    """The child: read `path`, write the arrays into `folder`, print the entries as JSON."""
    import torch

    _limit(path.stat().st_size)
    try:
        with torch.serialization.safe_globals(_allowed()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        entries: dict[str, Any] = {}
        for number, (name, value) in enumerate(_flat("", loaded)):
            if number >= _MAX_ENTRIES:
                raise ValueError(f"holds more than {_MAX_ENTRIES:,} entries")
            if isinstance(value, np.ndarray):
                file = f"{path.name}-{number}.bin"
                write_scratch(folder / file, [np.ascontiguousarray(value)])
                entries[name] = {"file": file, "dtype": value.dtype.str, "shape": list(value.shape)}
            else:
                entries[name] = {"value": value}
    except BaseException as error:  # of every kind that a hostile file can provoke, limits included
        sys.stderr.write(_sentence(error) + "\n")
        return 1
    sys.stdout.write(json.dumps(entries))
    return 0


def _limit(num_bytes: int) -> None:
    """Limits of memory and time; set after the imports, which map gigabytes where torch was built for CUDA."""
    data, seconds = _DATA_FACTOR * num_bytes + _DATA_BYTES, _CPU_SECONDS + num_bytes // _CPU_BYTES
    used = sum(int(line.split()[1]) << 10 for line in _status() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + data, used + data))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _status() -> list[str]:
    try:
        return Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return []


def _allowed() -> list[Any]:
    """numpy's arrays, with their maker under the name that files of numpy 1 hold as well; empty ones hold `bytes()`."""
    from numpy._core.multiarray import _reconstruct

    types = [type(np.dtype(kind)) for kind in _KINDS]
    return [bytes, np.ndarray, np.dtype, *types, _reconstruct, (_reconstruct, "numpy.core.multiarray._reconstruct")]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, np.ndarray | float | str]]:
    import torch

    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"has an entry named {key!r}, expected text")
            yield from _flat(f"{prefix}/{key}" if prefix else key, inner)
        return
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    plain = type(value) in (int, float, str) and not (type(value) is float and not math.isfinite(value))
    if not prefix or not (plain or (isinstance(value, np.ndarray) and value.dtype.str[1:] in _KINDS)):
        raise ValueError(f"{prefix or 'the file'} holds {type(value).__name__}, expected arrays and numbers by name")
    yield prefix, value


def _sentence(error: BaseException) -> str:
    """What was refused, in one line."""
    wanted = re.search(r"(?:GLOBAL |got <class ')([\w.]+)", str(error))
    if wanted:
        return f"asks for {wanted[1]}, which is not an array"
    # torch's advice, to read the file without care, is not passed on
    said = str(error).split("WeightsUnpickler error: ")[-1].strip().splitlines()
    return f"cannot be read ({type(error).__name__}: {(said or [''])[0][:200]})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
