"""The only place that writes files: durable small files, preallocated large ones, exact reads and checked maps.

Everything above builds on two promises: a file is never seen half-written under its final name (small files), or
is named by a manifest only after its bytes are durable (large files).
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from gnnsys.errors import CorruptStoreError, DiskSpaceError, GnnsysError, InputDataError
from gnnsys.failpoints import failpoint
from gnnsys.units import format_size

PAGE = 4096
"""I/O alignment: sections, chunks and O_DIRECT requests start at multiples of this."""

NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
"""What the system answers where no file is, or none can be."""
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def round_up(num_bytes: int, to: int = PAGE) -> int:
    """The smallest multiple of `to` that is at least `num_bytes`."""
    return -(-num_bytes // to) * to


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into an error that names it and says what to do."""
    try:
        yield
    except OSError as error:
        raise explained(error, path) from error


def explained(error: OSError, path: Path | None = None) -> GnnsysError:
    """What a person needs to know of a system call that failed: full disk, permission, open files, broken disk.

    Args:
        path: the file it is about, where the error does not know.
    """
    where, number = path or error.filename or "a file", error.errno or 0
    what = f"{where}: {os.strerror(number).lower() if number else error}"
    if number in _DISK_FULL:
        return DiskSpaceError(
            "GS-DISK-002",
            f"{what} while writing",
            hint="Nothing finished is lost. Free some space and repeat the command: it continues.",
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return GnnsysError(
            "GS-DISK-310", what, hint="Nothing finished is lost. Allow more (ulimit -n 1024) and repeat the command."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputDataError("GS-DISK-311", what, hint="Choose another folder, or change who may use this one.")
    return GnnsysError(
        "GS-DISK-312", what, hint="Nothing finished is lost. When the cause is mended, repeat the command."
    )


def make_durable(fd: int) -> None:
    """Wait until the bytes and the size of a file are on the disk. On macOS fsync leaves them in the drive's cache.

    After an error they are unknown: whoever continues must write them again.
    """
    failpoint("file.sync")
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def make_data_durable(fd: int) -> None:
    """Wait until the bytes of a file are on the disk; an error means what it means in `make_durable`."""
    if hasattr(os, "fdatasync"):
        failpoint("file.sync_data")
        os.fdatasync(fd)
    else:
        make_durable(fd)


def fsync_dir(path: Path) -> None:
    """Make names created, replaced or removed in `path` durable."""
    with disk_errors(path):
        failpoint("folder.sync")
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            make_durable(fd)
        finally:
            os.close(fd)
    failpoint("folder.synced")


def raw_bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array, without a copy when it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_all(fd: int, data: bytes | memoryview | np.ndarray, offset: int) -> None:
    """Write every byte of `data` at `offset`, continuing after short writes; through the page cache from the first
    piece on that a descriptor which bypasses it refuses."""
    view = raw_bytes(data) if isinstance(data, np.ndarray) else memoryview(data)
    while len(view):
        try:
            failpoint("file.write", torn=partial(_write_some, fd, view, offset))
            written = os.pwrite(fd, view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not _set_direct(fd, wanted=False):
                raise
            continue
        view, offset = view[written:], offset + written


def _write_some(fd: int, view: memoryview, offset: int, num_bytes: int) -> None:
    os.pwrite(fd, view[:num_bytes], offset)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; after a crash it holds either the old bytes or the new ones."""
    with replacing(path) as fd:
        write_all(fd, data, 0)


@contextmanager
def replacing(path: Path) -> Iterator[int]:
    """A descriptor to write to; what was written takes the place of `path`, durably, when the block ends well."""
    temp = path.with_name(f".{path.name}.tmp.{os.getpid()}.{secrets.token_hex(8)}")
    with disk_errors(path):
        try:
            with _durable(temp) as fd:
                yield fd
            failpoint("file.rename")
            temp.replace(path)
            failpoint("file.renamed")
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet and make its bytes durable, not its name: for folders that are renamed as
    a whole when every file is in them."""
    with disk_errors(path), _durable(path) as fd:
        write_all(fd, data, 0)


@contextmanager
def _durable(path: Path) -> Iterator[int]:
    """A descriptor of a file that is made here; its bytes are durable when the block ends well."""
    failpoint("file.create")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        failpoint("file.created")
        yield fd
        make_durable(fd)
    finally:
        os.close(fd)


def remove_temps(folder: Path) -> None:
    """Delete temporary files that a killed writer left in `folder`. Only the holder of its lock may call this."""
    for temp in folder.glob(".*.tmp.*.*"):
        temp.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Delete the temporary files that writers of `path` left which are no longer running on this machine."""
    for temp in path.parent.glob(f".{glob.escape(path.name)}.tmp.*.*"):
        owner = temp.name.split(".")[-2]
        with suppress(PermissionError):
            try:
                os.kill(int(owner) if owner.isdigit() else os.getpid(), 0)
            except (ProcessLookupError, OverflowError):
                temp.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Append one record to a log with a single write; nothing is promised about durability. A record that does not
    fit on the disk is taken back, so that a later one does not follow half a line."""
    with disk_errors(path):
        failpoint("log.append")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            if os.write(fd, line) < len(line):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user may still write on the volume of `path` (or of its nearest existing parent)."""
    while not path.exists():
        path = path.parent
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize


def require_free(path: Path, num_bytes: int, what: str) -> None:
    """Raise DiskSpaceError when the volume of `path` has less than `num_bytes` free."""
    free = free_bytes(path)
    if num_bytes > free:
        raise DiskSpaceError(
            "GS-DISK-001",
            f"{what} needs {format_size(num_bytes)}, {format_size(free)} are free on the volume of {path}",
            hint="Nothing finished is lost. Free some space and repeat the command, or choose another folder.",
        )


def open_sized(path: Path, num_bytes: int) -> int:
    """Open `path` for random writes with `num_bytes` allocated, so that a full disk shows now and not later.

    An existing file keeps its bytes. Returns a file descriptor.
    """
    with disk_errors(path):
        failpoint("file.open_sized")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with disk_errors(path):
            failpoint("file.allocate")
            if num_bytes:
                _allocate(fd, path, num_bytes)
            os.ftruncate(fd, num_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def bypass_page_cache(fd: int) -> None:
    """From now on write `fd` straight from memory, as long as that is whole pages to whole pages; where the file system
    cannot, nothing changes."""
    with suppress(OSError):
        _set_direct(fd, wanted=True)


def _set_direct(fd: int, *, wanted: bool) -> bool:
    """Set or clear O_DIRECT; says whether that was a change."""
    direct, flags = getattr(os, "O_DIRECT", 0), fcntl.fcntl(fd, fcntl.F_GETFL)
    changed = flags | direct if wanted else flags & ~direct
    if changed != flags:
        fcntl.fcntl(fd, fcntl.F_SETFL, changed)
    return changed != flags


def _allocate(fd: int, path: Path, num_bytes: int) -> None:
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, num_bytes)
            return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    require_free(path.parent, num_bytes - os.fstat(fd).st_size, path.name)


def open_read(path: Path, *, num_bytes: int | None = None, flags: int = 0) -> int:
    """Open `path` for reading after checking that it is a regular file of `num_bytes`. Returns a descriptor."""
    try:
        failpoint("file.open")
        # Without O_NONBLOCK a pipe in the place of a file would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags)
    except OSError as error:
        if error.errno in NO_SUCH_FILE:
            raise CorruptStoreError("GS-STORE-002", f"{path}: the file is missing", hint=_MEND) from None
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise
        raise CorruptStoreError("GS-STORE-003", f"{path}: is not a regular file", hint=_MEND) from None
    found = os.fstat(fd)
    size = found.st_size
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise CorruptStoreError("GS-STORE-003", f"{path}: is not a regular file", hint=_MEND)
    if num_bytes is not None and size != num_bytes:
        os.close(fd)
        raise CorruptStoreError("GS-STORE-003", f"{path}: {size} bytes, its manifest says {num_bytes}", hint=_MEND)
    return fd


_MEND = "Delete the folder and repeat the command that made it, or copy it again."


def read_small(path: Path) -> bytes:
    """All bytes of a small file of ours, which must be a regular one.

    Raises:
        CorruptStoreError: it is missing, or something else has its name.
    """
    with os.fdopen(open_read(path), "rb") as file:
        return file.read()


def read_into(fd: int, out: np.ndarray, offset: int, path: Path) -> None:
    """Fill the contiguous array `out` from `offset`, continuing after short reads.

    Raises:
        CorruptStoreError: the file ends first.
    """
    view = out.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        failpoint("file.read")
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            raise CorruptStoreError("GS-STORE-003", f"{path}: ends before byte {offset + len(view)}", hint=_MEND)
        done += count


def map_array(path: Path, dtype: np.dtype | str, shape: tuple[int, ...]) -> np.ndarray:
    """Read-only map of a file that must hold exactly `shape` values of `dtype`.

    The size is checked first: touching a map beyond the end of its file kills the process. Empty arrays are not
    mapped (the kernel refuses), they are made.
    """
    dtype = np.dtype(dtype)
    num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    os.close(open_read(path, num_bytes=num_bytes))
    if num_bytes == 0:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def move_folder(source: Path, target: Path) -> None:
    """Give a folder of durable files another name, durably; what stood there before is removed first."""
    remove_tree(target)
    with disk_errors(target):
        failpoint("folder.rename")
        source.rename(target)
        failpoint("folder.renamed")
    fsync_dir(target.parent)


def remove_tree(path: Path) -> None:
    """Delete a folder and what is in it; absent is fine."""
    failpoint("folder.remove")
    shutil.rmtree(path, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Create `path` and its parents, durably: what is promised of files in a folder is worth what its name is."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync_dir(path.parent)


def make_output_folder(path: Path) -> None:
    """Create `path` (and its parents) for an artefact to be written in.

    Raises:
        InputDataError: something that is not a folder is in the way.
    """
    try:
        make_folder(path)
    except (FileExistsError, NotADirectoryError):
        raise InputDataError("GS-IN-020", f"{path}: a file is in the way", hint="Choose another folder.") from None
