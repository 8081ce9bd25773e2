"""Reads that bypass the page cache (O_DIRECT), with a buffered fallback where the file system refuses them."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from gnnsys.errors import CorruptStoreError
from gnnsys.failpoints import failpoint
from gnnsys.storage.files import PAGE, open_read, round_up

REQUEST_BYTES = 2 << 20
"""Largest single read request: beyond 1 MiB the disk gains nothing, below it loses."""

_HUGE_PAGE = 2 << 20


def aligned_buffer(num_bytes: int, *, reused: bool = False) -> np.ndarray:
    """(num_bytes,) uint8 starting on a page, from an anonymous map that goes back to the system when dropped.

    Args:
        reused: ask for huge pages. They cost more to get and make random access to many MiB a third faster, which
            pays when the buffer is filled again and again.
    """
    memory = mmap.mmap(-1, max(num_bytes, 1))
    if reused and num_bytes >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)[:num_bytes]


class DirectFile:
    """A file opened for page-aligned positional reads; safe to share between threads.

    Args:
        num_bytes: the size that the manifest promises; checked at open.
    """

    fd = -1

    def __init__(self, path: Path, num_bytes: int | None = None) -> None:
        self.path = path
        self.fd = _open_direct(path, num_bytes)
        self.num_bytes = os.fstat(self.fd).st_size
        self._lock = threading.Lock()

    def read(self, out: np.ndarray, offset: int) -> int:
        """Fill page-aligned `out` from page-aligned `offset`; what lies past the end of the file is undefined.

        `len(out)` must be a multiple of PAGE. Returns the bytes that were asked for, counted request by request.

        Raises:
            CorruptStoreError: the file was cut since it was opened.
        """
        wanted = min(len(out), self.num_bytes - offset)
        done = asked = 0
        while done < wanted:
            stop = min(done + REQUEST_BYTES, round_up(wanted))
            asked += stop - done
            done += self._read_some(out[done:stop], offset + done)
        return asked

    def _read_some(self, out: np.ndarray, offset: int) -> int:
        try:
            failpoint("direct.read")
            count = os.preadv(self.fd, [out.data], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._fall_back()
            count = os.preadv(self.fd, [out.data], offset)
        if count == 0:
            raise CorruptStoreError("GS-STORE-003", f"{self.path}: ends at byte {offset}, while it is being read")
        return count

    def _fall_back(self) -> None:
        """Re-open buffered under the same descriptor number, so that other threads never see a closed one."""
        with self._lock:
            _warn_buffered(self.path)
            buffered = open_read(self.path)
            os.dup2(buffered, self.fd, inheritable=False)
            os.close(buffered)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


def _open_direct(path: Path, num_bytes: int | None) -> int:
    try:
        return open_read(path, num_bytes=num_bytes, flags=getattr(os, "O_DIRECT", 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = open_read(path, num_bytes=num_bytes)  # first: what is no file refuses O_DIRECT too
        _warn_buffered(path)
        return fd


def _warn_buffered(path: Path) -> None:
    warnings.warn(
        f"{path.parent}: this file system refuses O_DIRECT; reading through the page cache instead",
        RuntimeWarning,
        stacklevel=3,
    )


def page_span(start: int, stop: int) -> tuple[int, int]:
    """The page-aligned byte range that covers `start .. stop`."""
    return start // PAGE * PAGE, round_up(stop)
