"""How fast a volume is: measured once in about two seconds, kept in the user's cache directory, used to predict.

Speeds advise and predict; they decide nothing that is written, and no manifest names them.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gnnsys import keys
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import PAGE, atomic_write, free_bytes, write_all
from gnnsys.storage.kernels import gather
from gnnsys.storage.manifest import canonical_json

_VERSION = 1
_FILE_BYTES = 256 << 20
_REQUEST_BYTES = 2 << 20
_THREADS = 16
_SECONDS = 0.5
_ROW_BYTES = 512
_COPIED_BYTES = 64 << 20
"""More than a processor's cache holds."""


@dataclass(frozen=True)
class Speeds:
    """Bytes per second read and written front to back and copied row by row; random 4 KiB reads per second."""

    read: float
    write: float
    random: float
    copy: float


def speeds_of(folder: Path) -> Speeds | None:
    """Speeds of the volume that holds `folder` (or its nearest existing parent): remembered, else measured now.

    None where nothing can be written there, or where the volume has less than 1 GiB free.
    """
    while not folder.exists():
        folder = folder.parent
    memory = _cache_file(folder)
    known = _remembered(memory)
    if known is not None:
        return known
    measured = measure(folder) if free_bytes(folder) > 4 * _FILE_BYTES else None
    if measured is not None:
        _remember(memory, measured)
    return measured


def measure(folder: Path, num_bytes: int = _FILE_BYTES) -> Speeds | None:
    """Write, read and read at random a file of `num_bytes` that never has a name; None where that is refused."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        written, write = _write(fd, num_bytes)
        direct = _direct(fd)
        try:
            return Speeds(_read(direct, written), write, _random(direct, written), _copy(fd, written))
        finally:
            os.close(direct)
    except OSError:
        return None
    finally:
        os.close(fd)


def _cache_file(folder: Path) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gnnsys" / f"disk-{folder.stat().st_dev:x}.json"


def _remembered(path: Path) -> Speeds | None:
    """What was measured before; a file that is absent, damaged or of another version counts as none."""
    try:
        document = json.loads(path.read_bytes())
        speeds = Speeds(**{name: float(value) for name, value in document["speeds"].items()})
        sane = all(math.isfinite(v) and v > 0 for v in asdict(speeds).values())
        return speeds if sane and document["version"] == _VERSION else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remember(path: Path, speeds: Speeds) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, canonical_json({"version": _VERSION, "speeds": asdict(speeds)}))
    except OSError:
        return  # a read-only home costs two seconds next time, no more


def _write(fd: int, num_bytes: int) -> tuple[int, float]:
    """Bytes written until the time was up, and bytes per second, made durable."""
    data = aligned_buffer(_REQUEST_BYTES)
    data[:] = keys.draws(1, 0, _REQUEST_BYTES // 8).view(np.uint8)
    start, done = time.perf_counter(), 0
    while done < num_bytes and (done < _REQUEST_BYTES or time.perf_counter() - start < _SECONDS):
        write_all(fd, data, done)
        done += _REQUEST_BYTES
    os.fsync(fd)
    return done, done / (time.perf_counter() - start)


def _direct(fd: int) -> int:
    """The same file past the page cache; through it where the file system refuses."""
    path = f"/proc/self/fd/{fd}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _read(fd: int, num_bytes: int) -> float:
    buffer = aligned_buffer(_REQUEST_BYTES)
    start, done = time.perf_counter(), 0
    while done < _REQUEST_BYTES or time.perf_counter() - start < _SECONDS:
        done += os.preadv(fd, [buffer.data], done % num_bytes)
    return done / (time.perf_counter() - start)


def _random(fd: int, num_bytes: int) -> float:
    start = time.perf_counter()

    def reads(thread: int) -> int:
        buffer, count = aligned_buffer(PAGE), 0
        places = (keys.draws(thread, 0, 4096) % np.uint64(num_bytes // PAGE)).tolist()
        while count == 0 or time.perf_counter() - start < _SECONDS:
            os.preadv(fd, [buffer.data], places[count % len(places)] * PAGE)
            count += 1
        return count

    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(reads, range(_THREADS))) / (time.perf_counter() - start)


def _copy(fd: int, num_bytes: int) -> float:
    """Bytes per second of gathering rows in memory, one thread: rows of the file, which the page cache holds. (Fresh
    zeros would be one page of the kernel, and none of them would leave the processor's cache.)"""
    rows = np.frombuffer(mmap.mmap(fd, min(num_bytes, _COPIED_BYTES), prot=mmap.PROT_READ), dtype=np.uint8)
    rows = rows.reshape(-1, _ROW_BYTES)
    where = keys.permutation(len(rows), 2)[: _COPIED_BYTES // _ROW_BYTES // 8]
    out = np.empty((len(where), _ROW_BYTES), dtype=np.uint8)
    gather(rows, where, out)
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < _SECONDS / 10:
        gather(rows, where, out)
        done += out.nbytes
    return done / (time.perf_counter() - start)
