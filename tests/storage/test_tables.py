"""Every table is the array it was made from, row by row and bit for bit, whatever lies between."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.storage.files import PAGE
from gnnsys.storage.manifest import FileEntry, numpy_dtype
from gnnsys.storage.pages import page_runs, pages_of, pages_touched
from gnnsys.storage.tables import (
    CachedTable,
    DirectTable,
    MappedTable,
    MemoryTable,
    MutableTable,
    Table,
    empty_rows,
    open_table,
    torch_rows,
)
from gnnsys.storage.writer import SequentialWriter

ID = "xxh3-128:test"
SHAPES = [
    ("F32", 300, 128),  # 512-byte rows: 8 on a page
    ("F32", 700, 25),  # 100-byte rows cross pages
    ("F16", 500, 7),  # odd values: 14-byte rows
    ("U8", 9000, 1),  # one byte a row
    ("BF16", 90, 3),
    ("F32", 40, 1500),  # 6000 bytes: more than a page, not a multiple
    ("U8", 3, 1_100_000),  # a row longer than one request of 1 MiB
    ("I64", 1, 1),
]


def random_array(dtype_name: str, num_rows: int, columns: int) -> np.ndarray:
    """Any bit pattern, NaNs included."""
    dtype = numpy_dtype(dtype_name)
    bits = np.random.default_rng(0).integers(0, 256, (num_rows, columns * dtype.itemsize), dtype=np.uint8)
    return bits.view(dtype)


def write_table(folder: Path, array: np.ndarray, dtype_name: str = "F32") -> FileEntry:
    """A table file of an artefact `ID`, as ingest writes it."""
    writer = SequentialWriter(folder, "tables/x.bin", ID)
    writer.append(array)
    entry, _ = writer.finish(array.dtype, array.shape, "table")
    return FileEntry(**{**entry.__dict__, "dtype": dtype_name})


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class TableContract:
    """Every table must pass these; subclass and provide `make`."""

    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        raise NotImplementedError

    @pytest.fixture(params=SHAPES, ids=lambda s: f"{s[0]}-{s[1]}x{s[2]}")
    def case(self, request: pytest.FixtureRequest, tmp_path: Path):
        dtype_name, num_rows, columns = request.param
        array = random_array(dtype_name, num_rows, columns)
        table = self.make(tmp_path, array, dtype_name)
        yield array, table
        table.close()

    @pytest.fixture
    def small(self, tmp_path: Path):
        array = random_array("F32", 60, 5)
        table = self.make(tmp_path, array, "F32")
        yield array, table
        table.close()

    def test_says_its_shape_and_type(self, case) -> None:
        array, table = case
        assert (table.num_rows, table.columns) == array.shape
        assert table.dtype == array.dtype
        assert numpy_dtype(table.dtype_name) == array.dtype
        assert table.row_bytes == array.shape[1] * array.itemsize

    def test_rows_come_bit_for_bit_in_request_order_with_duplicates(self, case) -> None:
        array, table = case
        rng = np.random.default_rng(1)
        for count in (1, 2, 30):
            ids = rng.integers(0, len(array), count)
            assert same_bits(table.read(ids), array[ids])

    def test_every_row_at_once_is_the_array(self, case) -> None:
        array, table = case
        assert same_bits(table.read(np.arange(len(array))), array)

    @pytest.mark.parametrize("kind", ["i1", "u1", "i4", "u4", "i8", "u8", ">i4"])
    def test_ids_of_any_integer_type(self, small, kind: str) -> None:
        array, table = small
        ids = np.array([3, 59, 3, 0], dtype=kind)
        assert same_bits(table.read(ids), array[[3, 59, 3, 0]])

    def test_no_ids_give_no_rows_of_the_right_type(self, small) -> None:
        array, table = small
        for none in ([], np.empty(0, dtype=np.int32)):
            got = table.read(none)
            assert got.shape == (0, 5)
            assert got.dtype == array.dtype
            assert table.request_bytes(none) == 0

    @pytest.mark.parametrize(("ids", "named"), [([4, -1, 99], "-1 at position 1"), ([4, 5, 60], "60 at position 2")])
    def test_the_first_id_out_of_range_is_named(self, small, ids: list[int], named: str) -> None:
        _, table = small
        for call in (table.read, table.request_bytes):
            with pytest.raises(InputDataError, match=named) as error:
                call(np.array(ids))
            assert "[0, 60)" in str(error.value)

    @pytest.mark.parametrize("ids", [np.zeros((2, 2), dtype=np.int64), np.array([0.5]), np.ones(60, dtype=bool)])
    def test_ids_that_are_no_row_numbers_are_refused(self, small, ids: np.ndarray) -> None:
        with pytest.raises(InputDataError, match="GS-IN-400"):
            small[1].read(ids)

    def test_unsigned_ids_beyond_int64_are_out_of_range(self, small) -> None:
        with pytest.raises(InputDataError, match=str(2**64 - 1)):
            small[1].read(np.array([2**64 - 1], dtype=np.uint64))

    def test_out_is_filled_and_returned(self, small) -> None:
        array, table = small
        out = np.zeros((3, 5), dtype=np.float32)
        assert table.read([9, 9, 1], out=out) is out
        assert same_bits(out, array[[9, 9, 1]])

    def test_out_that_does_not_fit_is_refused(self, small) -> None:
        _, table = small
        frozen = np.zeros((2, 5), dtype=np.float32)
        frozen.flags.writeable = False
        for out in (np.zeros((3, 5), np.float32), np.zeros((2, 5)), np.zeros((5, 2), np.float32).T, frozen):
            with pytest.raises(InputDataError, match="GS-IN-402"):
                table.read([0, 1], out=out)

    def test_the_result_is_the_callers_own(self, small) -> None:
        array, table = small
        got = table.read([7])
        got[:] = 0
        assert same_bits(table.read([7]), array[[7]])
        assert got.flags.c_contiguous

    def test_threads_may_read_at_once(self, small) -> None:
        array, table = small
        wrong: list[int] = []

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(10):
                ids = rng.integers(0, 60, 30)
                if not same_bits(table.read(ids), array[ids]):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class TestMemoryTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return MemoryTable(array, dtype_name)

    def test_strided_arrays_are_taken(self) -> None:
        array = random_array("F32", 20, 6)
        assert same_bits(MemoryTable(array[::2, ::3]).read([3, 0]), array[[6, 0]][:, ::3].copy())

    def test_asks_nothing_from_disk(self) -> None:
        assert MemoryTable(np.zeros((4, 4))).request_bytes([0, 3]) == 0


class TestLoadedTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return open_table(folder, write_table(folder, array, dtype_name), ID, "memory")


class TestMappedTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return open_table(folder, write_table(folder, array, dtype_name), ID, "mapped")


class TestDirectTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return open_table(folder, write_table(folder, array, dtype_name), ID, "direct")

    def test_bytes_read_are_the_distinct_pages_under_the_rows(self, case) -> None:
        array, table = case
        assert isinstance(table, DirectTable)
        ids = np.random.default_rng(2).integers(0, len(array), 30)
        r = table.row_bytes
        pages = {p for v in ids.tolist() for p in range(v * r // PAGE, ((v + 1) * r - 1) // PAGE + 1)}
        assert table.request_bytes(ids) == len(pages) * PAGE == table.fetch(ids)[1]

    def test_blocks_are_read_for_verification_once(self, small) -> None:
        _, table = small
        table.read([0])
        first = table.checksum_bytes
        table.read([1, 59])
        assert first == PAGE == table.checksum_bytes

    def test_one_thread_gives_the_same(self, tmp_path: Path) -> None:
        array = random_array("F32", 5000, 25)
        table = DirectTable(tmp_path, write_table(tmp_path, array), ID, threads=1)
        assert same_bits(table.read(np.arange(4999, -1, -1)), array[::-1].copy())

    def test_no_reading_thread_outlives_close(self, tmp_path: Path) -> None:
        array = random_array("F32", 5000, 25)
        table = DirectTable(tmp_path, write_table(tmp_path, array), ID)
        table.read(np.arange(0, 5000, 50))
        table.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("gnnsys-direct")]


class TestCachedTable(TableContract):
    """Every third row cached, in a shuffled order."""

    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        cached = np.random.default_rng(3).permutation(np.arange(0, len(array), 3))
        return CachedTable(MemoryTable(array, dtype_name), cached)

    def test_cached_rows_ask_nothing_and_others_what_the_table_asks(self, tmp_path: Path) -> None:
        array = random_array("F32", 3000, 128)
        inner = open_table(tmp_path, write_table(tmp_path, array), ID, "direct")
        table = CachedTable(inner, np.arange(0, 3000, 2))
        assert table.request_bytes([0, 2, 2998]) == 0
        assert table.request_bytes([0, 9, 2501]) == inner.request_bytes([9, 2501]) == 2 * PAGE
        table.close()

    def test_a_row_cached_twice_is_refused(self) -> None:
        with pytest.raises(InputDataError, match="GS-IN-404"):
            CachedTable(MemoryTable(np.zeros((4, 4))), np.array([1, 2, 1]))


class TestFullyCachedTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return CachedTable(MemoryTable(array, dtype_name), np.arange(len(array))[::-1], array[::-1].copy())


class TestUncachedTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return CachedTable(MemoryTable(array, dtype_name), np.empty(0, dtype=np.int64))


class TestMutableTable(TableContract):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        return MutableTable(array.copy(), dtype_name)

    def empty(self, folder: Path, num_rows: int, columns: int) -> MutableTable:
        return MutableTable(np.zeros((num_rows, columns), dtype=np.float32))

    def test_writes_are_read_back_and_the_last_of_equal_ids_wins(self, tmp_path: Path) -> None:
        table = self.empty(tmp_path, 5, 2)
        table.write([3, 1, 3], np.array([[1, 1], [2, 2], [3, 3]], dtype=np.float32))
        assert table.read([0, 1, 3]).tolist() == [[0, 0], [2, 2], [3, 3]]

    def test_rows_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        table = self.empty(tmp_path, 5, 2)
        with pytest.raises(InputDataError, match="GS-IN-405"):
            table.write([0], np.zeros((1, 2)))
        with pytest.raises(InputDataError, match="GS-IN-401"):
            table.write([5], np.zeros((1, 2), dtype=np.float32))


class TestMutableFileTable(TestMutableTable):
    def make(self, folder: Path, array: np.ndarray, dtype_name: str) -> Table:
        table = MutableTable.at(folder / "rows.bin", *array.shape, dtype_name)
        table.write(np.arange(len(array)), array)
        return table

    def empty(self, folder: Path, num_rows: int, columns: int) -> MutableTable:
        return MutableTable.at(folder / "empty.bin", num_rows, columns)

    def test_rows_start_as_zeros_and_outlive_the_table(self, tmp_path: Path) -> None:
        table = self.empty(tmp_path, 5, 2)
        assert not table.read(np.arange(5)).any()
        table.write([4], np.ones((1, 2), dtype=np.float32))
        table.close()
        assert self.empty(tmp_path, 5, 2).read([4]).tolist() == [[1, 1]]


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 200), max_size=60),
    row_bytes=st.integers(1, 300),
    page=st.sampled_from([1, 7, 64, 128]),
    longest=st.integers(1, 5),
)
def test_page_runs_are_the_distinct_pages_in_order(ids: list[int], row_bytes: int, page: int, longest: int) -> None:
    slow = sorted({p for v in ids for p in range(v * row_bytes // page, ((v + 1) * row_bytes - 1) // page + 1)})
    array = np.array(ids, dtype=np.int64)
    first, count = page_runs(array, row_bytes, page, longest)
    assert [p for f, c in zip(first, count, strict=True) for p in range(f, f + c)] == slow
    assert count.max(initial=0) <= longest
    assert pages_touched(array, row_bytes, page) == len(slow)
    assert pages_of(array, row_bytes, page).tolist() == slow


@settings(max_examples=30, deadline=None)
@given(
    num_rows=st.integers(1, 400),
    columns=st.sampled_from([1, 3, 13, 100, 513, 1023, 4095, 4096, 4097, 9000]),
    picks=st.lists(st.floats(0, 1, exclude_max=True), max_size=50),
)
def test_direct_reads_agree_with_the_array_for_any_row_size(
    tmp_path_factory: pytest.TempPathFactory, num_rows: int, columns: int, picks: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("t")
    array = random_array("U8", num_rows, columns)
    table = DirectTable(folder, write_table(folder, array, "U8"), ID, threads=3)
    ids = (np.array(picks) * num_rows).astype(np.int64)
    rows, asked = table.fetch(ids)
    assert same_bits(rows, array[ids])
    assert asked == table.request_bytes(ids)
    table.close()


def test_bf16_rows_become_bfloat16_tensors_over_the_same_memory() -> None:
    bits = np.array([[0x3F80, 0xC000]], dtype=np.uint16)
    tensor = torch_rows(bits, "BF16")
    assert tensor.dtype == torch.bfloat16
    assert tensor.tolist() == [[1.0, -2.0]]
    bits[0, 0] = 0
    assert tensor[0, 0] == 0


@pytest.mark.parametrize("dtype_name", ["F32", "F16", "BF16", "U8", "I64", "BOOL"])
def test_empty_rows_share_memory_with_their_tensor(dtype_name: str) -> None:
    tensor, array = empty_rows(3, 2, dtype_name)
    assert array.dtype == numpy_dtype(dtype_name)
    array[:] = 1
    assert torch.equal(tensor, torch_rows(array, dtype_name))
    assert tensor.data_ptr() % 64 == 0


@pytest.mark.parametrize("backend", ["mapped", "direct"])
def test_file_tables_pickle_as_their_path(tmp_path: Path, backend: str) -> None:
    array = random_array("F32", 50, 3)
    table = open_table(tmp_path, write_table(tmp_path, array), ID, backend)
    data = pickle.dumps(table)
    assert len(data) < 1000
    assert same_bits(pickle.loads(data).read([49, 0]), array[[49, 0]])


@pytest.mark.parametrize("backend", ["mapped", "direct", "memory"])
def test_a_table_without_columns_has_empty_rows(tmp_path: Path, backend: str) -> None:
    table = open_table(tmp_path, write_table(tmp_path, np.empty((4, 0), dtype=np.float32)), ID, backend)
    assert table.read([0, 3, 3]).shape == (3, 0)
    assert table.request_bytes([0, 3]) == 0


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-400"):
        open_table(tmp_path, write_table(tmp_path, np.zeros((2, 2), np.float32)), ID, "tape")


@pytest.mark.parametrize("backend", ["mapped", "direct", "memory"])
@pytest.mark.parametrize("name", ["x.bin", "x.bin.xxh"])
def test_a_missing_or_short_file_is_named(tmp_path: Path, backend: str, name: str) -> None:
    entry = write_table(tmp_path, random_array("F32", 50, 3))
    path = tmp_path / "tables" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptStoreError, match=f"{name}: .* bytes, its manifest says"):
        open_table(tmp_path, entry, ID, backend)
    path.unlink()
    with pytest.raises(CorruptStoreError, match=f"{name}: the file is missing"):
        open_table(tmp_path, entry, ID, backend)


def test_mapped_and_direct_classes_are_what_open_table_gives(tmp_path: Path) -> None:
    entry = write_table(tmp_path, random_array("F32", 50, 3))
    assert isinstance(open_table(tmp_path, entry, ID), MappedTable)
    assert isinstance(open_table(tmp_path, entry, ID, "direct"), DirectTable)
