"""A .npz archive whose members are unpacked into scratch files one by one and mapped from there, so that its size
never matters."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.npy import map_raw, read_npy_header

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_MAX_MEMBERS = 100_000
# Deflate ends at 1032, and real files get there (14 MiB of ones in Amazon Computers).
_MAX_RATIO, _RATIO_FROM = 1100, 10 << 20
_COPY_BYTES = 256 << 10


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
            what = f"{self.path}: member {name}"
            info = self.members[name]
            try:
                with zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
                    header = read_npy_header(stream, what, info.file_size)
                    write_scratch(file, _pieces(stream))
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise InputDataError("GS-IN-113", f"{what}: cannot be unpacked ({error})") from None
            if file.stat().st_size != header.num_bytes:
                raise InputDataError("GS-IN-113", f"{what}: holds less than the archive says")
            shape = list(header.shape)
            job.stage.record(f"member/{name}", dtype=header.dtype.str, shape=shape, fortran=header.fortran)
        facts = job.stage.done[f"member/{name}"]
        return map_raw(file, np.dtype(facts["dtype"]), tuple(facts["shape"]), facts["fortran"])


def _read_directory(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Members of the archive by array name, after the checks that keep unpacking harmless."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except FileNotFoundError:
        raise InputDataError("GS-IN-100", f"{path}: no such file") from None
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
