"""Read the header of a .npy array, plain or inside an archive, believing nothing in it before it is checked."""

from __future__ import annotations

import ast
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.source import require_file

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
_MAX_DIMENSIONS = 8
_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


@dataclass(frozen=True)
class NpyHeader:
    """What a .npy header says, checked."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    data_offset: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(file: IO[bytes], what: str, num_bytes: int) -> NpyHeader:
    """The header at the start of `file`, which has `num_bytes` in all; reads no further than its end.

    Raises:
        InputDataError: not a plain array of numbers whose payload fills the file exactly. `what` names it.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise InputDataError(
            "GS-IN-110",
            f"{what}: not a .npy array (starts with {start[:6]!r})",
            hint='np.save("x.npy", array) writes one: row i is that of node i, without a column of ids.',
        )
    length_bytes = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > _MAX_HEADER:
        raise InputDataError("GS-IN-110", f"{what}: its header claims {length} bytes, the limit is {_MAX_HEADER}")
    text = file.read(length)
    dtype, shape, fortran = _parse(text, what)
    header = NpyHeader(dtype, shape, fortran, 8 + length_bytes + length)
    if len(text) != length or header.data_offset + header.num_bytes != num_bytes:
        raise InputDataError(
            "GS-IN-112",
            f"{what}: {num_bytes} bytes, shape {shape} of {dtype} needs {header.data_offset + header.num_bytes}",
            hint="The file is cut off or damaged.",
        )
    return header


def _parse(text: bytes, what: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        fields = ast.literal_eval(text.decode("latin1").strip())
        descr, shape, fortran = fields["descr"], fields["shape"], fields["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise InputDataError("GS-IN-110", f"{what}: not a valid .npy header ({type(error).__name__})") from None
    if not isinstance(descr, str) or descr[:1] not in "<>|=" or descr[1:] not in _DTYPES:
        raise InputDataError(
            "GS-IN-111",
            f"{what}: holds {descr!r}, expected plain booleans, integers or floats",
            hint="Objects, strings and records are not read. Save it again with allow_pickle=False.",
        )
    good = (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
    )
    if good and 0 in shape:  # no payload gives its other numbers away
        good = math.prod(max(n, 1) for n in shape) < 1 << 60
    if not good or type(fortran) is not bool or not text.endswith(b"\n"):
        raise InputDataError("GS-IN-110", f"{what}: not a valid .npy header (shape {shape!r})")
    return np.dtype(descr), shape, fortran


def map_npy(path: Path) -> np.ndarray:
    """Read-only map of a .npy file, in the type and layout that it has.

    Raises:
        InputDataError: absent, or not a plain array of numbers.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            header = read_npy_header(file, str(path), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise InputDataError("GS-IN-100", f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    return map_raw(path, header.dtype, header.shape, header.fortran, header.data_offset)


def map_raw(path: Path, dtype: np.dtype, shape: tuple[int, ...], fortran: bool, offset: int = 0) -> np.ndarray:
    """Read-only map of raw values; empty arrays are made, the kernel does not map nothing."""
    if math.prod(shape) == 0:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
