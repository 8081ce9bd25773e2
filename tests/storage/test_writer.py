"""Sequential writer: any cutting of the appends and any kill between units gives the same file and sums."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnsys.errors import CorruptStoreError, DiskSpaceError
from gnnsys.storage.checksums import BLOCK_BYTES, block_sum, context_seed, digest_file
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.writer import SequentialWriter, read_array, write_array

U8 = np.dtype(np.uint8)


def _bytes(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8)


def _written(folder: Path, data: np.ndarray, cuts: list[int]) -> tuple[FileEntry, FileEntry]:
    writer = SequentialWriter(folder, "a.bin", "id")
    for piece in np.split(data, cuts):
        writer.append(piece)
    return writer.finish(U8, data.shape, "r")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 3 * BLOCK_BYTES + 7), max_size=6))
def test_the_file_does_not_depend_on_how_it_was_cut(tmp_path: Path, cuts: list[int]) -> None:
    data = _bytes(3 * BLOCK_BYTES + 7)
    assert _written(tmp_path, data, sorted(cuts)) == _written(tmp_path, data, [])
    assert (tmp_path / "a.bin").read_bytes() == data.tobytes()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_entries_hold_the_plain_digest_and_the_block_sums(tmp_path: Path, size: int) -> None:
    data = _bytes(size)
    entry, side = _written(tmp_path, data, [])
    blocks = [data[a : a + BLOCK_BYTES].tobytes() for a in range(0, size, BLOCK_BYTES)]
    assert entry.digest == digest_file(tmp_path / "a.bin")
    expected = [block_sum(block, context_seed("id", "a.bin"), i) for i, block in enumerate(blocks)]
    assert read_array(tmp_path, side).tolist() == expected


def test_block_sums_are_what_the_format_says(tmp_path: Path) -> None:
    _, side = _written(tmp_path, _bytes(10), [])
    seed = xxhash.xxh3_64_intdigest(b"id/a.bin")
    assert read_array(tmp_path, side)[0] == xxhash.xxh3_64_intdigest(_bytes(10).tobytes(), seed=seed)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(unit=st.integers(0, 100_000), torn=st.integers(0, 70_000), sized=st.booleans())
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path: Path, unit: int, torn: int, sized: bool) -> None:
    data = _bytes(100_000 + BLOCK_BYTES)
    golden = _written(tmp_path, data, [])
    num_bytes = len(data) if sized else None
    first = SequentialWriter(tmp_path, "a.bin", "id", num_bytes=num_bytes)
    first.append(data[:unit])
    state = first.state()
    first.append(np.full(torn, 7, dtype=np.uint8))
    first.close()
    second = SequentialWriter(tmp_path, "a.bin", "id", num_bytes=num_bytes, resume=state)
    second.append(data[unit:])
    assert second.finish(U8, data.shape, "r") == golden
    assert (tmp_path / "a.bin").read_bytes() == data.tobytes()


def test_bytes_that_changed_before_the_resume_point_are_refused(tmp_path: Path) -> None:
    writer = SequentialWriter(tmp_path, "a.bin", "id")
    writer.append(_bytes(100))
    state = writer.state()
    writer.close()
    (tmp_path / "a.bin").write_bytes(_bytes(100)[::-1].tobytes())
    with pytest.raises(CorruptStoreError, match="first 100 bytes changed"):
        SequentialWriter(tmp_path, "a.bin", "id", resume=state)


def test_a_file_cut_off_before_the_resume_point_is_refused(tmp_path: Path) -> None:
    writer = SequentialWriter(tmp_path, "a.bin", "id")
    writer.append(_bytes(100))
    state = writer.state()
    writer.close()
    (tmp_path / "a.bin").write_bytes(_bytes(99).tobytes())
    with pytest.raises(CorruptStoreError):
        SequentialWriter(tmp_path, "a.bin", "id", resume=state)


def test_a_full_disk_in_an_append_is_named_and_the_file_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SequentialWriter(tmp_path, "a.bin", "id")
    writer.append(_bytes(50))
    real = os.pwrite

    def nearly_full(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: 60 - offset], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", nearly_full)
        with pytest.raises(DiskSpaceError, match=r"GS-DISK-002.*a\.bin"):
            writer.append(_bytes(100)[50:])
    writer.append(_bytes(100)[50:])
    assert writer.finish(U8, (100,), "r") == _written(tmp_path, _bytes(100), [])


def test_an_array_is_written_and_read_back(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert np.array_equal(read_array(tmp_path, write_array(tmp_path, "d/a.bin", array, "r")), array)


def test_a_flipped_bit_in_an_array_is_named(tmp_path: Path) -> None:
    entry = write_array(tmp_path, "a.bin", np.arange(6), "r")
    data = bytearray((tmp_path / "a.bin").read_bytes())
    data[17] ^= 4
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(CorruptStoreError, match=r"GS-STORE-004.*a\.bin"):
        read_array(tmp_path, entry)
