"""A packed generation holds every row where its slots say, and is the same bytes however it was made."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.budget import Budget
from gnnsys.errors import ConfigError, CorruptStoreError, DiskSpaceError, InputDataError, MemoryBudgetError
from gnnsys.samplers.sample import sample
from gnnsys.storage import placing, scatter
from gnnsys.storage.checksums import chunk_sum
from gnnsys.storage.files import PAGE
from gnnsys.storage.generation import CACHE_ROWS, Generation
from gnnsys.storage.packing import write_generation
from gnnsys.storage.pages import run_layout
from gnnsys.storage.placing import place
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays

MIB = 1 << 20


def features(num_nodes: int, columns: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (num_nodes, columns)).astype(dtype)


def make_store(folder: Path, num_nodes: int, columns: int, dtype: str) -> Store:
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, num_nodes, (2, 4 * num_nodes))
    x = features(num_nodes, columns, dtype)
    return ingest_arrays(folder, src, dst, num_nodes, x=x, splits={"train": np.arange(0, num_nodes, 2)})


class Packed:
    """A store, a pool, and the arguments to pack them."""

    def __init__(self, folder: Path, *, num_nodes: int = 400, columns: int = 33, dtype: str = "u1", batch: int = 40):
        self.folder = folder
        self.store = make_store(folder / "store", num_nodes, columns, dtype)
        self.x = np.asarray(features(num_nodes, columns, dtype))
        self.pool = sample(self.store, folder / "a" / "pool", fanouts=[3, 2], batch_size=batch)
        self.hot = np.random.default_rng(2).permutation(num_nodes)

    def pack(self, name: str = "a", *, cached: int = 30, **options: Any) -> Generation:
        folder = self.folder / name
        if not (folder / "pool").exists():
            shutil.copytree(self.folder / "a" / "pool", folder / "pool")
        settings = {"layout": "packed", "memory": 16 * MIB, **options}
        pool = Pool.open(folder / "pool")
        return write_generation(
            folder, pool, self.store, cache_rows=cached, hottest=lambda: self.hot[:cached], **settings
        )


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability is tested by real kills in tests/crash; here a sync only costs time."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return Packed(tmp_path)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch a unit, every range 64 KiB, every piece a few rows."""
    monkeypatch.setattr(placing, "UNIT_BYTES", 1)
    monkeypatch.setattr(scatter, "RANGE_BYTES", 4096)
    monkeypatch.setattr(scatter, "PIECE_BYTES", 0)
    monkeypatch.setattr(scatter, "STAGE_BYTES", 256)


def rows_of(generation: Generation, k: int) -> np.ndarray:
    """(n, B) uint8 rows of batch k as a loader puts them together."""
    both = np.concatenate([generation.load_cache(), generation.read_run(k)])
    return both[generation.slots(k).astype(np.int64)]


def assert_delivers(generation: Generation, x: np.ndarray) -> None:
    raw = x.view(np.uint8).reshape(len(x), -1)
    for k in range(generation.pool.num_batches):
        assert np.array_equal(rows_of(generation, k), raw[generation.pool.ids(k)])


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_batch_gets_the_rows_of_its_nodes_bit_for_bit(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    num_nodes = data.draw(st.integers(1, 150), "nodes")
    job = Packed(
        tmp_path_factory.mktemp("bits"),
        num_nodes=num_nodes,
        columns=data.draw(st.sampled_from([1, 3, 7, 64, 1024, 1500]), "columns"),
        dtype=data.draw(st.sampled_from(["f4", "f2", "u1"]), "dtype"),
        batch=data.draw(st.integers(1, num_nodes), "batch"),
    )
    generation = job.pack(
        cached=data.draw(st.integers(0, num_nodes), "cached"),
        memory=data.draw(st.integers(4 * MIB, 16 * MIB), "memory"),
        shard_bytes=data.draw(st.sampled_from([PAGE, 5 * PAGE, 1 << 30]), "shard"),
    )
    assert_delivers(generation, job.x)


@pytest.mark.usefixtures("small_units")
def test_the_digest_does_not_depend_on_workers_or_on_the_memory_of_packing(packed: Packed) -> None:
    made = {
        packed.pack(f"{workers}-{memory}", workers=workers, memory=memory).digest
        for workers in (1, 2, 4)
        for memory in (3 * MIB, 64 * MIB)
    }
    assert len(made) == 1


class StoppedError(Exception):
    """Raised from a progress report to stop the work there."""


def stop_at(nth: int) -> Callable[[str, float, float], None]:
    calls = iter(range(nth))

    def progress(_stage: str, _done: float, _total: float) -> None:
        if next(calls, None) is None:
            raise StoppedError

    return progress


@pytest.mark.usefixtures("small_units")
def test_packing_stopped_after_any_unit_continues_to_the_same_digest(packed: Packed) -> None:
    reports: list[str] = []
    whole = packed.pack("whole", progress=lambda stage, *_: reports.append(stage)).digest
    assert {"cache", "place", "write"} == set(reports)
    for nth in range(len(reports)):
        name = f"stopped-{nth}"
        with pytest.raises(StoppedError):
            packed.pack(name, progress=stop_at(nth))
        assert packed.pack(name).digest == whole


@pytest.mark.usefixtures("small_units")
def test_packing_stopped_at_every_unit_in_turn_ends_in_the_same_digest(packed: Packed) -> None:
    whole, stops = packed.pack("whole").digest, 0
    while True:
        try:
            generation = packed.pack("often", progress=stop_at(0))
            break
        except StoppedError:
            stops += 1
    assert stops > 5
    assert generation.digest == whole


@pytest.mark.usefixtures("small_units")
def test_packing_continued_with_another_memory_and_other_ranges_ends_in_the_same_digest(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = packed.pack("whole").digest
    reports: list[str] = []
    packed.pack("count", progress=lambda stage, *_: reports.append(stage))
    with pytest.raises(StoppedError):
        packed.pack("other", progress=stop_at(reports.index("write") + 1))
    monkeypatch.setattr(scatter, "RANGE_BYTES", 3000)
    assert packed.pack("other", memory=5 * MIB, workers=1).digest == whole


def test_a_finished_generation_is_left_alone(packed: Packed) -> None:
    packed.pack()
    before = {p: p.stat().st_mtime_ns for p in packed.folder.rglob("*") if p.is_file() and p.name != ".lock"}
    packed.pack(progress=stop_at(0))
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_another_cache_size_on_the_same_folder_is_refused_with_the_difference(packed: Packed) -> None:
    packed.pack(cached=30)
    with pytest.raises(ConfigError, match="cache_rows was 30, now 29"):
        packed.pack(cached=29)


def test_a_batch_whose_rows_are_all_cached_has_an_empty_run_and_no_file_is_made(packed: Packed) -> None:
    generation = packed.pack(cached=400)
    assert not list((packed.folder / "a" / "rows").glob("rows-*.bin"))
    assert all(generation.run_bytes(k) == 0 for k in range(generation.pool.num_batches))
    assert_delivers(generation, packed.x)


def test_without_a_cache_every_row_is_in_the_run(packed: Packed) -> None:
    generation = packed.pack(cached=0)
    assert generation.load_cache().shape == (0, 33)
    assert generation.count.tolist() == generation.pool.num_nodes[:, -1].tolist()
    assert_delivers(generation, packed.x)


def test_one_batch_is_packed_like_many(tmp_path: Path) -> None:
    job = Packed(tmp_path, num_nodes=50, batch=50)
    assert job.pool.num_batches == 1
    assert_delivers(job.pack(), job.x)


def test_the_gap_behind_a_run_and_behind_slots_is_zero(packed: Packed) -> None:
    generation = packed.pack()
    rows = np.fromfile(packed.folder / "a/rows/rows-00000.bin", dtype=np.uint8)
    slots = np.fromfile(packed.folder / "a/slots/slots.bin", dtype=np.uint8)
    starts, offset = np.fromfile(packed.folder / "a/slots/offset.bin", dtype=np.int64), 0
    for k, count in enumerate(generation.count.tolist()):
        end = offset + generation.run_bytes(k)
        assert not rows[offset + 33 * count : end].any()
        assert not slots[starts[k] + 4 * int(generation.pool.num_nodes[k, -1]) : starts[k + 1]].any()
        offset = end
    assert offset == len(rows)


def test_runs_lie_in_order_of_nodes(packed: Packed) -> None:
    generation, raw = packed.pack(), packed.x
    cached = set(packed.hot[:30].tolist())
    for k in range(generation.pool.num_batches):
        cold = sorted(set(generation.pool.ids(k).tolist()) - cached)
        assert np.array_equal(generation.read_run(k), raw[cold])


def test_direct_layout_stores_no_rows(packed: Packed) -> None:
    generation = packed.pack(layout="direct", cached=0)
    assert sorted(p.name for p in (packed.folder / "a").iterdir() if p.is_dir()) == ["pool"]
    assert generation.layout == "direct"
    assert generation.planned_bytes(0) == 0


def test_damaged_features_are_noticed_while_packing_and_named(packed: Packed) -> None:
    path = packed.store.path / "tables" / "x.bin"
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    with pytest.raises(CorruptStoreError, match=r"x\.bin: block 0"):
        packed.pack()


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("name", ["ids.bin", "count.bin", "hash.bin", "sums-0.bin", "cache.bin"])
def test_scratch_that_changed_between_two_runs_is_noticed(packed: Packed, name: str) -> None:
    reports: list[str] = []
    packed.pack("count", progress=lambda stage, *_: reports.append(stage))
    last = len(reports) - 1
    # the sums of an even number of units are in the other file
    if name == "sums-0.bin" and (reports.count("write") - 1) % 2:
        last -= 1
    with pytest.raises(StoppedError):
        packed.pack("b", progress=stop_at(last))
    path = packed.folder / "b" / ".work" / name
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptStoreError, match=name):
        packed.pack("b")


def test_a_full_disk_is_reported_at_the_start_and_the_work_continues_later(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, allocate = packed.pack("whole").digest, os.posix_fallocate

    def full(fd: int, offset: int, size: int) -> None:
        if "rows-" in Path(f"/proc/self/fd/{fd}").readlink().name:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskSpaceError, match=r"rows-00000\.bin"):
        packed.pack("b")
    monkeypatch.undo()
    assert packed.pack("b").digest == whole


def test_too_little_memory_is_refused_with_the_minimum(packed: Packed) -> None:
    with pytest.raises(MemoryBudgetError, match="needs"):
        packed.pack(memory=100_000)
    with pytest.raises(MemoryBudgetError, match="batches being placed needs"):
        packed.pack("b", memory=4_000)


def test_every_reservation_of_memory_may_fail_and_the_work_continues(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, reserve, calls = packed.pack("whole").digest, Budget.reserve, 0

    def failing(self: Budget, num_bytes: int, what: str) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise MemoryBudgetError("GS-MEM-002", f"{what}: no")
        reserve(self, num_bytes, what)

    monkeypatch.setattr(Budget, "reserve", failing)
    nth, finished = 0, False
    while not finished:
        nth, calls = nth + 1, 0
        try:
            packed.pack("b")
            finished = True
        except MemoryBudgetError as error:
            assert error.message.endswith(": no")
    assert nth > 3
    assert packed.pack("b").digest == whole


def test_a_store_without_features_is_refused(tmp_path: Path) -> None:
    edges = np.arange(10)
    store = ingest_arrays(tmp_path / "store", edges, edges, 10, splits={"train": edges})
    pool = sample(store, tmp_path / "g" / "pool", fanouts=[2], batch_size=4)
    with pytest.raises(InputDataError, match="no features"):
        write_generation(
            tmp_path / "g", pool, store, layout="packed", cache_rows=0, hottest=lambda: edges[:0], memory=MIB
        )


@given(st.lists(st.integers(0, 60), unique=True, max_size=40), st.sets(st.integers(0, 60)))
def test_placing_agrees_with_a_dictionary(ids: list[int], cached: set[int]) -> None:
    nodes = sorted(cached, reverse=True)
    slot_of = np.full(61, -1, dtype=np.int32)
    slot_of[nodes] = np.arange(len(nodes))
    slots, packed_ids = place(np.array(ids, dtype=np.int64), slot_of, len(nodes))
    cold = sorted(set(ids) - cached)
    where = {v: i for i, v in enumerate([*nodes, *cold])}
    assert slots.tolist() == [where[v] for v in ids]
    assert packed_ids.tolist() == cold


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 9000), st.integers(1, 5))
def test_runs_start_on_pages_are_never_split_and_fill_shards_in_order(
    count: list[int], row_bytes: int, pages: int
) -> None:
    shard, offset, sizes = run_layout(np.array(count, dtype=np.int64), row_bytes, pages * PAGE)
    ends = [0] * len(sizes)
    for c, s, o in zip(count, shard.tolist(), offset.tolist(), strict=True):
        num_bytes = -(-c * row_bytes // PAGE) * PAGE
        if num_bytes:
            assert o == ends[s]
            assert o == 0 or o + num_bytes <= pages * PAGE
            ends[s] += num_bytes
    assert ends == sizes
    assert all(sizes)


@pytest.mark.usefixtures("small_units")
def test_sums_of_pieces_are_the_sum_of_the_run(packed: Packed) -> None:
    generation = packed.pack()
    sums = np.fromfile(packed.folder / "a/rows/sum.bin", dtype=np.uint64)
    for k in range(generation.pool.num_batches):
        assert chunk_sum(generation.read_run(k)) == int(sums[k])
    assert (packed.folder / "a" / CACHE_ROWS).stat().st_size == 30 * 33
