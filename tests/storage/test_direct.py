"""Direct reads: whole pages, the end of a file, and file systems that refuse O_DIRECT."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.direct import DirectFile, aligned_buffer, page_span
from gnnsys.storage.files import PAGE


def make_file(path: Path, num_bytes: int) -> np.ndarray:
    data = np.random.default_rng(0).integers(0, 256, num_bytes, dtype=np.uint8)
    path.write_bytes(data.tobytes())
    return data


def test_buffers_start_on_a_page_and_have_the_size_asked_for() -> None:
    for num_bytes in (0, 1, PAGE, PAGE + 1):
        buffer = aligned_buffer(num_bytes)
        assert len(buffer) == num_bytes
        assert num_bytes == 0 or buffer.ctypes.data % PAGE == 0


@pytest.mark.parametrize("num_bytes", [1, PAGE - 1, PAGE, 3 * PAGE + 5, (2 << 20) + 7 * PAGE + 1])
def test_a_read_beyond_the_end_gives_what_there_is(tmp_path: Path, num_bytes: int) -> None:
    data = make_file(tmp_path / "f", num_bytes)
    buffer = aligned_buffer(-(-num_bytes // PAGE) * PAGE + PAGE)
    DirectFile(tmp_path / "f").read(buffer, 0)
    assert (buffer[:num_bytes] == data).all()


def test_reads_start_at_any_page(tmp_path: Path) -> None:
    data = make_file(tmp_path / "f", 5 * PAGE)
    buffer = aligned_buffer(2 * PAGE)
    DirectFile(tmp_path / "f").read(buffer, 2 * PAGE)
    assert (buffer == data[2 * PAGE : 4 * PAGE]).all()


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_file(tmp_path / "f", 8 * PAGE)
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, offset: whole(fd, [parts[0][:PAGE]], offset))
    buffer = aligned_buffer(8 * PAGE)
    DirectFile(tmp_path / "f").read(buffer, 0)
    assert (buffer == data).all()


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    make_file(tmp_path / "f", 100)
    with pytest.raises(CorruptStoreError, match="100 bytes, its manifest says 101"):
        DirectFile(tmp_path / "f", 101)


def test_a_file_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    make_file(tmp_path / "f", 4 * PAGE)
    file = DirectFile(tmp_path / "f")
    os.truncate(tmp_path / "f", PAGE)
    with pytest.raises(CorruptStoreError, match="ends at byte 4096"):
        file.read(aligned_buffer(4 * PAGE), 0)


def refusing_open(path: Any, flags: int, *rest: Any, _open: Any = os.open) -> int:
    if flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, "no O_DIRECT here")
    return _open(path, flags, *rest)


def test_a_file_system_that_refuses_direct_opens_warns_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_file(tmp_path / "f", PAGE)
    monkeypatch.setattr(os, "open", refusing_open)
    with pytest.warns(RuntimeWarning, match="refuses O_DIRECT"):
        file = DirectFile(tmp_path / "f")
    buffer = aligned_buffer(PAGE)
    file.read(buffer, 0)
    assert (buffer == data).all()


def test_a_file_system_that_refuses_the_first_direct_read_warns_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_file(tmp_path / "f", 2 * PAGE)
    file = DirectFile(tmp_path / "f")
    whole, refused = os.preadv, []

    def refuse_once(fd: int, parts: Any, offset: int) -> int:
        if not refused:
            refused.append(fd)
            raise OSError(errno.EINVAL, "unaligned for this device")
        return whole(fd, parts, offset)

    monkeypatch.setattr(os, "preadv", refuse_once)
    buffer = aligned_buffer(2 * PAGE)
    with pytest.warns(RuntimeWarning, match="refuses O_DIRECT"):
        file.read(buffer, 0)
    assert (buffer == data).all()
    assert file.fd == refused[0]


@pytest.mark.parametrize(
    ("start", "stop", "span"),
    [(0, 0, (0, 0)), (0, 1, (0, PAGE)), (PAGE - 1, PAGE + 1, (0, 2 * PAGE)), (PAGE, 2 * PAGE, (PAGE, 2 * PAGE))],
)
def test_page_span_covers_a_byte_range(start: int, stop: int, span: tuple[int, int]) -> None:
    assert page_span(start, stop) == span
