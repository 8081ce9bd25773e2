"""One writer at a time: an advisory lock on `.lock` that dies with its holder and says who that is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from gnnsys.errors import StoreBusyError
from gnnsys.failpoints import failpoint
from gnnsys.storage.files import disk_errors, write_all


class WriterLock:
    """Hold `folder/.lock` for the life of a writer; readers need no lock because committed files never change.

    Raises:
        StoreBusyError: another live process holds it. A dead holder's lock is released by the kernel.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._fd = -1

    def __enter__(self) -> WriterLock:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            failpoint("lock.take")
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 4096, 0)
            os.close(self._fd)
            raise StoreBusyError(
                "GS-LOCK-001", f"{self._path.parent}: {_describe(holder)}", hint="Wait for it, or stop that process."
            ) from None
        except OSError:
            # A file system without locks is not a busy store.
            os.close(self._fd)
            raise
        identity = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": " ".join(sys.argv)[:500],
        }
        try:
            os.ftruncate(self._fd, 0)
            with disk_errors(self._path):
                write_all(self._fd, json.dumps(identity).encode(), 0)
            failpoint("lock.taken")
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _describe(holder: bytes) -> str:
    try:
        who = json.loads(holder)
        return f"being written by pid {who['pid']} on host {who['host']} (since {who['since']}: {who['command']})"
    except (ValueError, KeyError, TypeError):
        return "being written by another process"
