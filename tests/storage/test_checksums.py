"""A changed byte is an error that names the file and the block, whichever way the rows are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys import keys
from gnnsys.errors import CorruptStoreError
from gnnsys.storage.checksums import BLOCK_BYTES, chunk_sum, digest, digest_file
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.tables import DirectTable, MappedTable, Verify, open_table
from gnnsys.storage.writer import SequentialWriter

ID = "xxh3-128:test"
ROWS, COLUMNS = 1000, 50  # 200-byte rows: 200,000 bytes, 4 blocks, rows cross them


def write_table(folder: Path, path: str = "tables/x.bin", seed: int = 0) -> tuple[np.ndarray, FileEntry]:
    array = np.random.default_rng(seed).random((ROWS, COLUMNS), dtype=np.float32)
    writer = SequentialWriter(folder, path, ID)
    writer.append(array)
    return array, writer.finish(array.dtype, array.shape, "table")[0]


def flip(path: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


class FlippedBitContract:
    """Tables over files detect every change; subclass and provide `backend`."""

    backend: str

    @pytest.mark.parametrize("offset", [0, 65_535, 65_536, 131_071, 150_000, 199_999])
    @pytest.mark.parametrize("bit", [0, 7])
    def test_a_flipped_bit_names_file_and_block(self, tmp_path: Path, offset: int, bit: int) -> None:
        _, entry = write_table(tmp_path)
        flip(tmp_path / "tables/x.bin", offset, bit)
        with pytest.raises(CorruptStoreError, match=rf"x\.bin: block {offset // BLOCK_BYTES} fails") as error:
            open_table(tmp_path, entry, ID, self.backend).read([offset // 200])
        assert error.value.code == "GS-STORE-004"

    def test_a_flipped_sum_is_an_error(self, tmp_path: Path) -> None:
        _, entry = write_table(tmp_path)
        flip(tmp_path / "tables/x.bin.xxh", 8)
        with pytest.raises(CorruptStoreError, match="block 1 fails"):
            open_table(tmp_path, entry, ID, self.backend).read([400])

    def test_swapped_blocks_are_an_error(self, tmp_path: Path) -> None:
        _, entry = write_table(tmp_path)
        path = tmp_path / "tables/x.bin"
        data = path.read_bytes()
        path.write_bytes(data[BLOCK_BYTES : 2 * BLOCK_BYTES] + data[:BLOCK_BYTES] + data[2 * BLOCK_BYTES :])
        sums = np.fromfile(tmp_path / "tables/x.bin.xxh", dtype="<u8")
        sums[[0, 1]] = sums[[1, 0]]
        (tmp_path / "tables/x.bin.xxh").write_bytes(sums.tobytes())
        with pytest.raises(CorruptStoreError, match="block 0 fails"):
            open_table(tmp_path, entry, ID, self.backend).read([0])

    def test_the_same_file_of_another_artefact_is_an_error(self, tmp_path: Path) -> None:
        _, entry = write_table(tmp_path)
        with pytest.raises(CorruptStoreError, match="block 0 fails"):
            open_table(tmp_path, entry, "xxh3-128:other", self.backend).read([0])

    def test_verification_can_be_turned_off(self, tmp_path: Path) -> None:
        array, entry = write_table(tmp_path)
        flip(tmp_path / "tables/x.bin", 1, 3)
        got = open_table(tmp_path, entry, ID, self.backend, verify="off").read([0])
        assert (got != array[[0]]).sum() == 1


class TestMapped(FlippedBitContract):
    backend = "mapped"


class TestDirect(FlippedBitContract):
    backend = "direct"


class TestMemory(FlippedBitContract):
    backend = "memory"


@pytest.mark.parametrize("kind", [MappedTable, DirectTable])
@pytest.mark.parametrize(("verify", "detected"), [("first", False), ("always", True)])
def test_a_later_change_is_seen_by_verify_always_only(
    tmp_path: Path, kind: type[MappedTable] | type[DirectTable], verify: Verify, detected: bool
) -> None:
    _, entry = write_table(tmp_path)
    table = kind(tmp_path, entry, ID, verify)
    table.read([0])
    with (tmp_path / "tables/x.bin").open("r+b") as file:
        file.write(b"\xff")
    if detected:
        with pytest.raises(CorruptStoreError, match="block 0 fails"):
            table.read([0])
    else:
        table.read([0])


@settings(max_examples=50, deadline=None)
@given(data=st.data(), num_rows=st.integers(1, 20), row_bytes=st.integers(1, 40))
def test_chunk_sum_is_free_of_order_and_sees_every_bit(data: st.DataObject, num_rows: int, row_bytes: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (num_rows, row_bytes), dtype=np.uint8)
    whole = chunk_sum(rows)
    order = np.array(data.draw(st.permutations(range(num_rows))))
    assert chunk_sum(rows[order], slots=order.astype(np.int64)) == whole
    cut = data.draw(st.integers(0, num_rows))
    assert (chunk_sum(rows[:cut]) + chunk_sum(rows[cut:], first_slot=cut)) % 2**64 == whole
    bad = rows.copy()
    bad[data.draw(st.integers(0, num_rows - 1)), data.draw(st.integers(0, row_bytes - 1))] ^= 1
    assert chunk_sum(bad) != whole


def test_chunk_sum_is_what_the_format_says() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, 13), dtype=np.uint8)
    total = 0
    for slot, row in enumerate(rows):
        words = np.frombuffer(row.tobytes() + bytes(3), dtype="<u8").tolist()
        acc = sum(w * (1 + j * 0xD6E8FEB86659FD92) for j, w in enumerate(words))
        total += int(keys.mix(np.array([(acc + (slot + 1) * 0x9E3779B97F4A7C15) % 2**64], dtype=np.uint64))[0])
    assert chunk_sum(rows) == total % 2**64


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "f").write_bytes(data)
    assert digest_file(tmp_path / "f", chunk_bytes=999) == digest(data)


def test_rows_of_odd_width_sum_alike_however_they_are_portioned(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (50, 13), dtype=np.uint8)
    slots = np.random.default_rng(1).permutation(50)
    at_once = chunk_sum(rows), chunk_sum(rows, slots=slots)
    monkeypatch.setattr("gnnsys.storage.checksums._PADDED_BYTES", 64)
    assert (chunk_sum(rows), chunk_sum(rows, slots=slots)) == at_once
