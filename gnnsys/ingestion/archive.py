"""A .npz archive of any size: large members are streamed, those that are read at random are unpacked into scratch
files and mapped from there."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import NpyHeader, map_raw, read_npy_header
from gnnsys.ingestion.source import Rows, require_file
from gnnsys.ingestion.values import native_dtype

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_MAX_MEMBERS = 100_000
# Deflate ends at 1032, and real files get there (14 MiB of ones in Amazon Computers).
_MAX_RATIO, _RATIO_FROM = 1100, 10 << 20
_COPY_BYTES = 64 << 10
"""zipfile joins what it read again and again: larger pieces are slower."""


class Archive:
    """The arrays of one archive by name; opening reads the directory alone.

    Raises:
        InputDataError: absent, or not an archive that is safe to unpack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = _read_directory(path)

    def unpacked_bytes(self, names: Iterable[str]) -> int:
        """What unpacking these members takes at most."""
        return sum(self.members[name].file_size for name in names)

    def unpack(self, job: Job, name: str) -> np.ndarray:
        """Member `name` as a read-only map; unpacked once per stage.

        Raises:
            InputDataError: it is damaged, or not a plain array of numbers.
        """
        file = job.stage.work / f"member-{name}.bin"
        if f"member/{name}" not in job.stage.done:
            what = self._what(name)
            info = self.members[name]
            with _damage(what), zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
                header = read_npy_header(stream, what, info.file_size)
                write_scratch(file, _pieces(stream))
            if file.stat().st_size != header.num_bytes:
                raise InputDataError("GS-IN-113", f"{what}: holds less than the archive says")
            shape = list(header.shape)
            job.stage.record(f"member/{name}", dtype=header.dtype.str, shape=shape, fortran=header.fortran)
        facts = job.stage.done[f"member/{name}"]
        return map_raw(file, np.dtype(facts["dtype"]), tuple(facts["shape"]), facts["fortran"])

    def stream(self, name: str) -> Values:
        """Member `name` to be read front to back.

        Raises:
            InputDataError: not a plain array of numbers.
        """
        return Values(self.path, self.members[name], self._what(name))

    def _what(self, name: str) -> str:
        return f"{self.path}: member {name}"


class Values:
    """The values of one member, decompressed as they are asked for: nothing is written, and little held.

    Going back starts again at the front of the member. One thread at a time. What was read is only known to be what
    the archive says (its CRC) when the last value was read.
    """

    def __init__(self, path: Path, info: zipfile.ZipInfo, what: str) -> None:
        self._path, self._info, self._what = path, info, what
        self._stream: IO[bytes] = io.BytesIO()
        self.header = self._open()
        self._stream.close()

    def __del__(self) -> None:
        self._stream.close()

    def rows(self) -> Rows:
        """A member (N, F) or (N,) in C order as rows."""
        shape, dtype = self.header.shape, self.header.dtype
        if len(shape) not in (1, 2) or (len(shape) == 2 and self.header.fortran):
            raise InputDataError("GS-IN-115", f"{self._what}: shape {shape}, expected (N, F) in C order")
        columns, native = shape[1] if len(shape) == 2 else 1, native_dtype(dtype)

        def read(start: int, stop: int) -> np.ndarray:
            return self.read(start * columns, stop * columns).astype(native, copy=False).reshape(-1, columns)

        return Rows(shape[0], columns, native, read, sequential=True)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Values start .. stop in the order of the file, (stop - start,)."""
        out = np.empty(stop - start, dtype=self.header.dtype)
        with _damage(self._what):
            self._move_to(start)
            self._fill(out.view(np.uint8).data)
            self._at = stop
            if stop * out.itemsize == self.header.num_bytes:
                self._stream.read(1)  # compares the CRC of the member
                self._stream.close()
        return out

    def _move_to(self, start: int) -> None:
        if self._stream.closed or start < self._at:
            self._open()
        left = (start - self._at) * self.header.dtype.itemsize
        while left:
            left -= len(self._some(left))

    def _fill(self, out: memoryview) -> None:
        filled = 0
        while filled < len(out):
            piece = self._some(len(out) - filled)
            out[filled : filled + len(piece)] = piece
            filled += len(piece)

    def _some(self, most: int) -> bytes:
        piece = self._stream.read(min(most, _COPY_BYTES))
        if not piece:
            raise EOFError("it ends too early")
        return piece

    def _open(self) -> NpyHeader:
        """Stand before the first value."""
        self._stream.close()
        with _damage(self._what), zipfile.ZipFile(self._path) as archive:
            self._stream = archive.open(self._info)
            self._at = 0
            return read_npy_header(self._stream, self._what, self._info.file_size)


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Errors of a damaged archive as InputDataError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise InputDataError("GS-IN-113", f"{what}: cannot be unpacked ({error})") from None


def _read_directory(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Members of the archive by array name, after the checks that keep unpacking harmless."""
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputDataError("GS-IN-113", f"{path}: not a .npz archive ({error})") from None
    members: dict[str, zipfile.ZipInfo] = {}
    if len(infos) > _MAX_MEMBERS:
        raise InputDataError("GS-IN-113", f"{path}: {len(infos)} members, the limit is {_MAX_MEMBERS}")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        bomb = info.file_size > _RATIO_FROM and info.file_size > _MAX_RATIO * info.compress_size
        # numpy writes stored or deflated members; other codecs fail in ways of their own.
        reasons = {
            "encrypted": info.flag_bits & 1,
            "compressed beyond reason": bomb,
            "there twice": name in members,
            "not stored or deflated": info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        }
        for reason, holds in reasons.items():
            if holds:
                raise InputDataError("GS-IN-113", f"{path}: member {name!r} is {reason}")
        members[name] = info
    return members


def _pieces(stream: Any) -> Iterator[np.ndarray]:
    while piece := stream.read(_COPY_BYTES):
        yield np.frombuffer(piece, dtype=np.uint8)
