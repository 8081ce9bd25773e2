"""A pack is read by whole pages as planned, and nothing in it is believed unchecked."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import gnnsys as gs
from gnnsys.errors import (
    ConfigError,
    CorruptStoreError,
    GnnsysError,
    InputDataError,
    InterruptedWorkError,
    VersionError,
)
from gnnsys.planning.calibrate import Speeds
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.files import PAGE
from gnnsys.storage.generation import (
    CACHE_ROWS,
    ROW_COUNT,
    ROW_OFFSET,
    ROW_SHARD,
    SLOT_OFFSET,
    Generation,
    rows_path,
)
from gnnsys.storage.hint import read_hint, resolve_store, write_hint
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.pack import Pack
from gnnsys.storage.plan_file import plan_document, read_plan
from gnnsys.storage.pool import Pool
from gnnsys.storage.writer import read_array
from tests.graphs import ingest_arrays

SPEEDS = Speeds(read=1e9, write=5e8, random=5e4, copy=5e9)
NODES = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """store/ and pack/ : 600 nodes, rows of 64 bytes, a cache, two shards."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    x = rng.random((NODES, 16), dtype=np.float32)
    src, dst = rng.integers(0, NODES, (2, 3000))
    store = ingest_arrays(folder / "store", src, dst, NODES, x=x, splits={"train": np.arange(0, NODES, 3)})
    pool = gs.sample(store, folder / "pool", fanouts=[3, 2], batch_size=32)
    plan = gs.plan(pool, store, memory="32MiB", layout="packed", speeds=SPEEDS)
    pack = gs.pack(
        pool, folder / "pack", plan=replace(plan, cache_rows=150), store=store, memory="32MiB", shard_bytes=40_000
    )
    assert 0 < pack.generations[0].num_cached < NODES
    assert (folder / "pack/g000000/rows/rows-00001.bin").exists()
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the pack that a test may damage."""
    return Path(shutil.copytree(made / "pack", tmp_path / "pack"))


def read_everything(path: Path) -> None:
    """What a loader touches in one epoch and the plan; then the rest."""
    pack = Pack.open(path)
    for generation in pack.generations:
        generation.load_cache()
        generation.cache_nodes()
        for k in range(generation.pool.num_batches):
            generation.pool.read(k)
            generation.slots(k)
            generation.read_run(k)
        assert generation.plan["layout"] == "packed"
    for problem in pack.verify(deep=True):
        raise CorruptStoreError("", problem)


def files_of(made: Path) -> list[Path]:
    """Every file of the pack that somebody reads."""
    unread = {".lock", "provenance.json", "hint.json"}
    return [
        p.relative_to(made / "pack") for p in sorted((made / "pack").rglob("*")) if p.is_file() and p.name not in unread
    ]


def test_reading_requests_exactly_the_planned_bytes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack, asked, read = Pack.open(made / "pack"), [], DirectFile.read

    def counting(self: DirectFile, out: np.ndarray, offset: int) -> None:
        asked.append(len(out))
        read(self, out, offset)

    monkeypatch.setattr(DirectFile, "read", counting)
    generation = pack.generations[0]
    for k in range(pack.pool.num_batches):
        asked.clear()
        generation.slots(k)
        generation.read_run(k)
        assert sum(asked) == generation.planned_bytes(k) == generation.slots_bytes(k) + generation.run_bytes(k)


def test_pieces_are_the_run(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their size: rows in order, where they belong, and the bytes of the run asked once."""
    whole = Pack.open(made / "pack").generations[0]
    unit = math.lcm(whole.row_bytes, PAGE)
    assert whole.run_bytes(0) > 2 * unit
    for pieces in (1, 2, 1000):
        monkeypatch.setattr("gnnsys.storage.generation.piece_bytes", lambda _, size=pieces * unit: size)
        generation = Pack.open(made / "pack").generations[0]
        buffer = aligned_buffer(pieces * unit)
        for k in range(generation.pool.num_batches):
            found = [(first, rows.copy(), asked) for first, rows, asked in generation.pieces(k, buffer)]
            assert np.array_equal(np.concatenate([rows for _, rows, _ in found]), whole.read_run(k))
            starts = np.cumsum([0, *(len(rows) for _, rows, _ in found)])[:-1]
            assert [first for first, _, _ in found] == starts.tolist()
            assert sum(asked for _, _, asked in found) == whole.run_bytes(k)


def test_damage_in_any_piece_is_noticed(made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Pack.open(made / "pack").generations[0]
    unit = math.lcm(good.row_bytes, PAGE)
    monkeypatch.setattr("gnnsys.storage.generation.piece_bytes", lambda _: unit)
    k = int(np.argmax(good.count))
    path, first = copy / "g000000" / rows_path(int(good._shard[k])), int(good._offset[k])
    whole = path.read_bytes()
    for at in range(3, int(good.count[k]) * good.row_bytes, unit):
        data = bytearray(whole)
        data[first + at] ^= 1
        path.write_bytes(data)
        generation = Pack.open(copy).generations[0]
        with pytest.raises(CorruptStoreError, match=f"rows of batch {k}"):
            list(generation.pieces(k, aligned_buffer(unit)))


def test_buffers_of_the_caller_are_used(made: Path) -> None:
    generation = Pack.open(made / "pack").generations[0]
    run, slots = aligned_buffer(generation.run_bytes(1)), aligned_buffer(generation.slots_bytes(1))
    assert np.shares_memory(generation.read_run(1, run), run)
    assert np.shares_memory(generation.read_slots(1, slots)[0], slots)


@pytest.mark.parametrize("damage", ["flip the first byte", "flip the last byte", "truncate", "remove"])
def test_damage_to_any_file_is_noticed_and_the_file_is_named(made: Path, copy: Path, damage: str) -> None:
    for relative in files_of(made):
        path, good = copy / relative, (made / "pack" / relative).read_bytes()
        data = bytearray(good)
        if damage.startswith("flip"):
            # the gap behind the last section is covered by no hash, because nobody reads it
            at = 0 if "first" in damage else _last_used(made / "pack", relative, len(data))
            data[at] ^= 0x10
        path.write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
        if damage == "remove":
            path.unlink()
        with pytest.raises(GnnsysError) as caught:
            read_everything(copy)
        named = caught.value.message
        unreadable = (CorruptStoreError, InputDataError, InterruptedWorkError, VersionError)
        assert isinstance(caught.value, unreadable), relative
        assert relative.name.removesuffix(".xxh") in named or str(copy / relative.parent) in named, (relative, named)
        path.write_bytes(good)
    read_everything(copy)


def _last_used(pack: Path, relative: Path, size: int) -> int:
    """Position of the last byte of a file that belongs to a section, a run or a value."""
    generation = Pack.open(pack).generations[0]
    last = generation.pool.num_batches - 1
    if relative.name == "slots.bin":
        return size - generation.slots_bytes(last) + 4 * int(generation.pool.num_nodes[last, -1]) - 1
    if relative.name.startswith("rows-0"):
        shard = np.fromfile(pack / "g000000/rows/shard.bin", dtype=np.uint32)
        mine = np.flatnonzero(shard == int(relative.stem.removeprefix("rows-")))[-1]
        return size - generation.run_bytes(mine) + int(generation.count[mine]) * generation.row_bytes - 1
    if relative.name.startswith("blobs"):
        pool = generation.pool
        return int(pool.offset[last, -1] + pool.bytes[last, -1]) - 1
    return size - 2 if relative.suffix == ".json" else size - 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rows/rows-00000.bin", "rows/rows-00001.bin"),
        ("rows/offset.bin", "rows/count.bin"),
        ("slots/hash.bin", "rows/sum.bin"),
        ("slots/slots.bin", "cache/rows.bin"),
    ],
)
def test_swapped_files_are_noticed(copy: Path, one: str, other: str) -> None:
    a, b = copy / "g000000" / one, copy / "g000000" / other
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    with pytest.raises(CorruptStoreError):
        read_everything(copy)


def test_swapped_runs_inside_one_file_are_noticed(copy: Path) -> None:
    generation = Pack.open(copy).generations[0]
    path, size = copy / "g000000/slots/slots.bin", generation.slots_bytes(0)
    assert generation.slots_bytes(1) == size
    data = path.read_bytes()
    path.write_bytes(data[size : 2 * size] + data[:size] + data[2 * size :])
    with pytest.raises(CorruptStoreError, match="slots of batch 0"):
        generation.slots(0)


def test_a_foreign_pool_is_noticed(made: Path, copy: Path) -> None:
    store = gs.Store.open(made / "store")
    shutil.rmtree(copy / "g000000/pool")
    gs.sample(store, copy / "g000000/pool", fanouts=[3, 2], batch_size=32, seed=1)
    with pytest.raises(CorruptStoreError, match="is not the pool"):
        Pack.open(copy)


def test_a_foreign_generation_is_noticed(made: Path, copy: Path, tmp_path: Path) -> None:
    store = gs.Store.open(made / "store")
    other = gs.pack(store, tmp_path / "other", fanouts=[3, 2], batch_size=32, memory="32MiB", speeds=SPEEDS)
    shutil.rmtree(copy / "g000000")
    shutil.copytree(other.path / "g000000", copy / "g000000")
    with pytest.raises(CorruptStoreError, match="is not the generation"):
        Pack.open(copy)


def test_what_was_verified_is_not_verified_again_unless_told_to(copy: Path) -> None:
    first = Generation.open(copy / "g000000")
    always = Generation.open(copy / "g000000", verify="always")
    off = Generation.open(copy / "g000000", verify="off")
    first.slots(0)
    always.slots(0)
    with (copy / "g000000/slots/slots.bin").open("r+b") as file:
        file.write(b"\xff")
    first.slots(0)
    off.slots(0)
    with pytest.raises(CorruptStoreError):
        always.slots(0)
    with pytest.raises(ConfigError, match="verify"):
        Generation.open(copy / "g000000", verify="sometimes")


def test_runs_and_cache_are_verified_as_slots_are(copy: Path) -> None:
    first, always, off = (Generation.open(copy / "g000000", verify=verify) for verify in ("first", "always", "off"))
    good = first.read_run(0).copy()
    for name in (rows_path(0), CACHE_ROWS):
        with (copy / "g000000" / name).open("r+b") as file:
            file.write(b"\xff")
    assert not np.array_equal(first.read_run(0), good)
    assert off.read_run(0)[0, 0] == off.load_cache()[0, 0] == 0xFF
    with pytest.raises(CorruptStoreError, match=r"rows-00000\.bin: rows of batch 0 .* fail their checksum"):
        always.read_run(0)
    for checked in (first, always):
        with pytest.raises(CorruptStoreError, match=r"cache/rows\.bin: fails its checksum"):
            checked.load_cache()


@pytest.mark.parametrize(
    ("column", "at", "change"),
    [
        (SLOT_OFFSET, slice(None), PAGE),
        (SLOT_OFFSET, 1, PAGE),
        (SLOT_OFFSET, -1, PAGE),
        (ROW_COUNT, 0, -(1 << 20)),
        (ROW_COUNT, 0, 1 << 20),
        (ROW_OFFSET, 1, 8),
        (ROW_OFFSET, 1, -(1 << 30)),
        (ROW_OFFSET, -1, PAGE),
        (ROW_SHARD, 0, 1 << 10),
    ],
)
def test_an_index_that_contradicts_the_files_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch, column: str, at: Any, change: int
) -> None:
    """As one would be that was written wrong, with checksums that are right."""

    def changed(folder: Path, entry: FileEntry) -> np.ndarray:
        values = np.array(read_array(folder, entry))
        if entry.path == column:
            values[at] = values[at].astype(np.int64) + change
        return values

    monkeypatch.setattr("gnnsys.storage.generation.read_array", changed)
    with pytest.raises(CorruptStoreError, match=r"GS-STORE-007: .*index and files disagree"):
        Generation.open(made / "pack/g000000")


def test_closing_lets_go_of_the_files_that_were_opened_and_of_no_others(made: Path) -> None:
    pool = Pool.open(made / "pack/g000000/pool")
    before = psutil.Process().num_fds()
    for given in (None, pool):
        generation = Generation.open(made / "pack/g000000", pool=given)
        generation.slots(0)
        generation.pool.read(0)
        assert psutil.Process().num_fds() > before
        generation.close()
        assert psutil.Process().num_fds() == before
    pool.read(0)
    pool.close()
    assert psutil.Process().num_fds() < before


def test_deep_verification_lists_what_is_wrong(made: Path, copy: Path) -> None:
    assert Pack.open(made / "pack").verify(deep=True) == []
    for name in ("rows/rows-00001.bin", "cache/rows.bin", "slots/slots.bin"):
        with (copy / "g000000" / name).open("r+b") as file:
            file.seek(10)
            file.write(b"\xff\xee")
    problems = Pack.open(copy).verify(deep=True)
    assert len(problems) == 3
    assert all(any(name in p for p in problems) for name in ("rows-00001.bin", "cache/rows.bin", "slots.bin"))


@pytest.mark.parametrize("name", ["slots/slots.bin", "rows/rows-00001.bin"])
def test_deep_verification_finds_a_flip_in_the_gap_behind_the_last_batch(copy: Path, name: str) -> None:
    path = copy / "g000000" / name
    data = bytearray(path.read_bytes())
    assert data[-1] == 0
    data[-1] ^= 0x10
    path.write_bytes(data)
    (problem,) = Pack.open(copy).verify(deep=True)
    assert name in problem
    assert "gap" in problem


def test_the_store_of_a_pool_is_found_without_being_told(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "moved")
    assert resolve_store(tmp_path / "moved/pool").path == tmp_path / "moved/store"
    packed = gs.pack(gs.Pool.open(tmp_path / "moved/pool"), tmp_path / "again", memory="32MiB", speeds=SPEEDS)
    assert read_hint(packed.path) == "../moved/store"


def test_the_store_is_found_by_the_hint_after_both_moved(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "moved")
    pack = Pack.open(tmp_path / "moved/pack")
    assert read_hint(pack.path) == "../store"
    assert resolve_store(pack.path).path == tmp_path / "moved/store"


def test_a_moved_store_is_found_by_its_path(made: Path, copy: Path) -> None:
    with pytest.raises(InputDataError, match="is not there") as caught:
        resolve_store(copy)
    assert "--store" in caught.value.hint
    assert resolve_store(copy, made / "store").id == Pack.open(copy).store_id


def test_a_changed_graph_is_noticed_by_its_id(copy: Path, tmp_path: Path) -> None:
    edges = np.arange(5)
    other = ingest_arrays(tmp_path / "store", edges, edges, 5)
    with pytest.raises(InputDataError, match="the graph changed") as caught:
        resolve_store(copy)
    assert "--store" in caught.value.hint
    with pytest.raises(InputDataError, match="the graph changed"):
        resolve_store(copy, other)


def test_a_folder_without_hint_says_to_give_the_store(tmp_path: Path) -> None:
    with pytest.raises(InputDataError) as caught:
        resolve_store(tmp_path)
    assert "--store" in caught.value.hint


def test_a_hint_alone_names_the_store_of_a_run(made: Path, tmp_path: Path) -> None:
    store = gs.Store.open(made / "store")
    write_hint(tmp_path, store.path, store.id)
    assert resolve_store(tmp_path).id == store.id
    assert not Path(json.loads((tmp_path / "hint.json").read_text())["store"]).is_absolute()


def test_a_plan_file_carries_its_own_digest(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(plan_document({"layout": "packed", "explanation": "because"}))
    plan = read_plan(tmp_path)
    assert plan.to_json() == {"layout": "packed", "explanation": "because"}
    assert str(plan) == "because"
    (tmp_path / "plan.json").write_bytes(plan_document({"layout": "packed"}).replace(b"packed", b"direct"))
    with pytest.raises(CorruptStoreError, match=r"plan\.json"):
        read_plan(tmp_path)


def test_a_pack_can_be_read_from_a_folder_that_cannot_be_written(copy: Path) -> None:
    for path in copy.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        read_everything(copy)
        if os.geteuid() != 0:
            assert not os.access(copy / "g000000", os.W_OK)
    finally:
        for path in copy.rglob("*"):
            path.chmod(0o755)
