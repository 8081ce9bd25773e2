"""Files: atomic replacement, exact reads, checked maps, and a full disk that is named."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gnnsys.errors import CorruptStoreError, DiskSpaceError, GnnsysError, InputDataError
from gnnsys.storage import files
from gnnsys.storage.direct import aligned_buffer


def test_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "a", b"a long first version")
    files.atomic_write(tmp_path / "a", b"short")
    assert (tmp_path / "a").read_bytes() == b"short"


def test_a_failed_atomic_write_keeps_the_old_bytes_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.atomic_write(tmp_path / "a", b"old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskSpaceError, match="a: no space left"):
        files.atomic_write(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_write_all_continues_after_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    files.atomic_write(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_read_into_continues_after_short_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(range(10)))
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: real(fd, [views[0][:3]], offset))
    out = np.empty(8, dtype=np.uint8)
    fd = files.open_read(tmp_path / "a")
    files.read_into(fd, out, 2, tmp_path / "a")
    os.close(fd)
    assert out.tolist() == list(range(2, 10))


def test_reading_past_the_end_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    fd = files.open_read(tmp_path / "a")
    with pytest.raises(CorruptStoreError, match=r"GS-STORE-003.*a: ends before byte 8"):
        files.read_into(fd, np.empty(8, dtype=np.uint8), 0, tmp_path / "a")
    os.close(fd)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptStoreError, match=r"GS-STORE-002.*gone: the file is missing"):
        files.open_read(tmp_path / "gone")


def test_a_file_of_another_size_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(CorruptStoreError, match="3 bytes, its manifest says 4"):
        files.map_array(tmp_path / "a", "<i4", (1,))


def test_an_empty_array_is_mapped_too(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert files.map_array(tmp_path / "a", "<f4", (5, 0)).shape == (5, 0)


def test_a_map_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8))
    with pytest.raises(ValueError, match="read-only"):
        files.map_array(tmp_path / "a", "<i8", (1,))[0] = 1


def test_open_sized_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.close(files.open_sized(tmp_path / "a", 5))
    assert (tmp_path / "a").read_bytes() == b"abc\0\0"


def test_open_sized_works_where_allocation_is_not_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    os.close(files.open_sized(tmp_path / "a", 100))
    assert (tmp_path / "a").stat().st_size == 100


@pytest.mark.parametrize(
    ("number", "kind", "code", "help_"),
    [
        (errno.ENOSPC, DiskSpaceError, "GS-DISK-002", "Free some space"),
        (errno.EDQUOT, DiskSpaceError, "GS-DISK-002", "Free some space"),
        (errno.EFBIG, DiskSpaceError, "GS-DISK-002", "Free some space"),
        (errno.EMFILE, GnnsysError, "GS-DISK-310", "ulimit -n"),
        (errno.ENFILE, GnnsysError, "GS-DISK-310", "ulimit -n"),
        (errno.EACCES, InputDataError, "GS-DISK-311", "Choose another folder"),
        (errno.EPERM, InputDataError, "GS-DISK-311", "Choose another folder"),
        (errno.EROFS, InputDataError, "GS-DISK-311", "Choose another folder"),
        (errno.EIO, GnnsysError, "GS-DISK-312", "repeat the command"),
    ],
)
def test_what_the_system_refuses_names_the_file_and_a_way_out(
    tmp_path: Path, number: int, kind: type[GnnsysError], code: str, help_: str
) -> None:
    with pytest.raises(GnnsysError) as caught, files.disk_errors(tmp_path / "a"):
        raise OSError(number, "whatever")
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert caught.value.message.startswith(f"{tmp_path / 'a'}: {os.strerror(number).lower()}")
    assert help_ in caught.value.hint


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "whatever", "b"), "b: input/output error"),
        (OSError(errno.EIO, "whatever"), "a file: input/output error"),
        (OSError("no number"), "a file: no number"),
    ],
)
def test_an_error_names_the_file_that_it_knows(error: OSError, said: str) -> None:
    assert files.explained(error).message == said


def test_more_than_the_volume_holds_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(DiskSpaceError, match=r"GS-DISK-001.*a pack needs(?s:.*)Nothing finished is lost"):
        files.require_free(tmp_path / "not" / "there" / "yet", 1 << 60, "a pack")


def test_only_what_dead_writers_of_this_file_left_is_abandoned(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [f".a[1].tmp.{os.getpid()}.ab", f".b.tmp.{dead.pid}.ab", "a[1]", ".a[1].tmp.x.ab"]
    for name in (*kept, f".a[1].tmp.{dead.pid}.ab", f".a[1].tmp.{1 << 40}.ab"):
        (tmp_path / name).touch()
    files.remove_abandoned(tmp_path / "a[1]")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_temporaries_of_a_killed_writer_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.tmp.12.abcd", "a", ".hidden"):
        (tmp_path / name).touch()
    files.remove_temps(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a", ".hidden"}


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputDataError, match=r"GS-IN-020.*out"):
        files.make_output_folder(tmp_path / "out")


_FULL_DISK = """
import resource, sys
from pathlib import Path
from gnnsys.errors import DiskSpaceError
from gnnsys.storage.files import open_sized
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    open_sized(Path(sys.argv[1]), 8192)
except DiskSpaceError as error:
    print(error.code)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file size limits")
def test_a_real_limit_on_file_size_is_a_disk_space_error(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == "GS-DISK-002"


def test_what_is_not_a_regular_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(CorruptStoreError, match=rf"GS-STORE-003.*{name}: is not a regular file"):
            files.open_read(tmp_path / name)


def test_a_file_system_that_cannot_allocate_is_asked_for_its_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _offset: int, _length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(DiskSpaceError, match=r"GS-DISK-001: large needs 1024\.0 TiB"):
        files.open_sized(tmp_path / "large", 1 << 50)


def test_a_descriptor_that_bypasses_the_page_cache_takes_any_piece(tmp_path: Path) -> None:
    """Whole pages from aligned memory go straight; what does not fit that goes through the page cache."""
    data = aligned_buffer(3 * files.PAGE)
    data[:] = np.random.default_rng(0).integers(0, 256, len(data))
    fd = files.open_sized(tmp_path / "f", 0)
    try:
        files.bypass_page_cache(fd)
        assert _is_direct(fd)
        files.write_all(fd, data[: files.PAGE], 0)
        files.write_all(fd, data[files.PAGE : files.PAGE + 100], files.PAGE)
        files.write_all(fd, data[files.PAGE + 100 :], files.PAGE + 100)
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == data.tobytes()


def _is_direct(fd: int) -> bool:
    """Where the file system can: this one is asked with a descriptor of its own."""
    path = Path(f"/proc/self/fd/{fd}").resolve()
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return True
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


def test_records_are_appended_one_after_another(tmp_path: Path) -> None:
    for line in (b"one\n", b"", b"three\n"):
        files.append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o644 & ~_umask()


def test_a_record_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    files.append_line(tmp_path / "log", b"one\n")
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: real(fd, data[:2]))
        with pytest.raises(DiskSpaceError, match=r"GS-DISK-002: .*log: no space left"):
            files.append_line(tmp_path / "log", b"two\n")
    files.append_line(tmp_path / "log", b"three\n")
    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_new_file_takes_no_place_of_another(tmp_path: Path) -> None:
    files.write_new(tmp_path / "a", b"first")
    with pytest.raises(GnnsysError, match=r"a: .*exists"):
        files.write_new(tmp_path / "a", b"second")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    with pytest.raises(GnnsysError):
        files.write_new(tmp_path / "link", b"third")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert not (tmp_path / "b").exists()


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / name).write_bytes(b"")
    files.move_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["old", "deep", "new"]
    files.move_folder(tmp_path / "old", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
