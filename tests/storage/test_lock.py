"""The writer lock: one holder, a refusal that says who, and release when the holder dies."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gnnsys.errors import StoreBusyError
from gnnsys.storage.lock import WriterLock

_HOLD = """
import sys, time
from pathlib import Path
from gnnsys.storage.lock import WriterLock
with WriterLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreBusyError, match=f"GS-LOCK-001.*being written by pid {child.pid} "),
            WriterLock(tmp_path),
        ):
            pass
    finally:
        child.kill()
        child.communicate()


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with WriterLock(tmp_path):
        pass


def test_the_lock_can_be_taken_again_after_it_was_left(tmp_path: Path) -> None:
    for _ in range(2):
        with WriterLock(tmp_path):
            pass
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_holder_that_left_no_readable_identity_is_still_refused(tmp_path: Path) -> None:
    with WriterLock(tmp_path):
        (tmp_path / ".lock").write_bytes(b"{nonsense")
        with pytest.raises(StoreBusyError, match="being written by another process"), WriterLock(tmp_path):
            pass


def test_a_file_system_without_locks_is_not_called_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _flags: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="No locks available"), WriterLock(tmp_path):
        pass
