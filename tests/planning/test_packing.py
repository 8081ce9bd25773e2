"""`pack`: one call from a Store or a Pool to rows in reading order; repeating it continues or does nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError, DiskSpaceError, InputDataError, StoreBusyError
from gnnsys.planning import packing
from gnnsys.planning.calibrate import Speeds
from gnnsys.storage import placing
from gnnsys.storage.lock import WriterLock
from gnnsys.storage.pack import Pack
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays

SAMPLING: dict[str, Any] = {"fanouts": [4, 3], "batch_size": 32}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_store: Callable[..., Store]) -> Store:
    return make_store(tmp_path_factory.mktemp("pack") / "store")


@pytest.fixture
def pack(store: Store, speeds: Speeds, tmp_path: Path) -> Callable[..., Pack]:
    """`pack(name, **options)` from the Store, in 16 MiB, speeds known."""

    def make(name: str = "pack", **options: Any) -> Pack:
        return gs.pack(store, tmp_path / name, **{**SAMPLING, "memory": "16MiB", "speeds": speeds, **options})

    return make


def features(store: Store) -> np.ndarray:
    return np.fromfile(store.path / "tables/x.bin", dtype=np.uint8).reshape(store.num_nodes, -1)


def test_rows_come_out_as_they_went_in(pack: Callable[..., Pack], store: Store) -> None:
    generation, x = pack().generations[0], features(store)
    cache = generation.load_cache()
    for k in range(generation.pool.num_batches):
        rows = np.concatenate([cache, generation.read_run(k)])[generation.slots(k).astype(np.int64)]
        assert np.array_equal(rows, x[generation.pool.ids(k)])


def test_packing_a_store_and_packing_its_pool_give_the_same_pack(
    pack: Callable[..., Pack], store: Store, speeds: Speeds, tmp_path: Path
) -> None:
    pool = gs.sample(store, tmp_path / "pool", **SAMPLING)
    from_pool = gs.pack(str(pool.path), tmp_path / "from-pool", store=store, memory="16MiB", speeds=speeds)
    from_store = pack()
    by_path = gs.pack(store.path, tmp_path / "by-path", memory="16MiB", speeds=speeds, **SAMPLING)
    assert by_path.digest == from_store.digest
    assert (from_pool.id, from_pool.digest) == (from_store.id, from_store.digest)
    assert from_pool.pool.digest == pool.digest


def test_files_of_a_pool_are_linked_and_copied_where_they_cannot_be(
    store: Store, speeds: Speeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = gs.sample(store, tmp_path / "pool", **SAMPLING)
    options: dict[str, Any] = {"store": store, "memory": "16MiB", "speeds": speeds}
    linked = gs.pack(pool, tmp_path / "linked", **options)
    blob = "g000000/pool/shards/blobs-00000.bin"
    assert (linked.path / blob).samefile(pool.path / "shards/blobs-00000.bin")

    def across_volumes(*_arguments: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(packing.os, "link", across_volumes)
    copied = gs.pack(pool, tmp_path / "copied", **options)
    assert not (copied.path / blob).samefile(pool.path / "shards/blobs-00000.bin")
    assert copied.digest == linked.digest


def test_repeating_a_finished_pack_reads_no_batch_and_writes_nothing(
    pack: Callable[..., Pack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}
    monkeypatch.setattr(gs.Pool, "ids", None)
    assert pack().digest == first.digest
    assert before == {p: p.stat().st_mtime_ns for p in before}


class StoppedError(Exception):
    """Raised from a progress report to stop the work there."""


def test_a_pack_stopped_after_any_report_continues_to_the_same_digests(
    pack: Callable[..., Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "UNIT_BYTES", 1)
    reports: list[str] = []
    whole = pack("whole", progress=lambda stage, *_: reports.append(stage))
    assert {"sample", "count", "plan", "cache", "place", "write"} == set(reports)
    for nth in {0, *(reports.index(s) for s in set(reports)), *range(5, len(reports), 7), len(reports) - 1}:
        calls = iter(range(nth))

        def progress(_stage: str, _done: float, _total: float, calls: Any = calls) -> None:
            if next(calls, None) is None:
                raise StoppedError

        with pytest.raises(StoppedError):
            pack(f"at-{nth}", progress=progress)
        again = pack(f"at-{nth}")
        assert (again.id, again.digest, again.pool.digest) == (whole.id, whole.digest, whole.pool.digest)


def test_the_digest_does_not_depend_on_workers(pack: Callable[..., Pack]) -> None:
    assert len({pack(f"{workers}", workers=workers).digest for workers in (1, 2, 4)}) == 1


def test_equal_plans_packed_in_different_memory_give_the_same_digest(
    store: Store, speeds: Speeds, tmp_path: Path
) -> None:
    pool = gs.sample(store, tmp_path / "pool", **SAMPLING)
    plan = gs.plan(pool, store, memory="16MiB", layout="packed", speeds=speeds)
    made = {
        gs.pack(pool, tmp_path / memory, store=store, plan=plan, memory=memory).digest
        for memory in ("1MiB", "16MiB", "1GiB")
    }
    assert len(made) == 1


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"fanouts": [4, 2]}, r"fanouts was \[4, 3\], now \[4, 2\]"),
        ({"batch_size": 30}, "batch_size was 32, now 30"),
        ({"layout": "direct", "memory": "64MiB"}, "layout was 'packed', now 'direct'"),
    ],
)
def test_another_plan_on_the_same_folder_is_refused_with_the_difference(
    pack: Callable[..., Pack], change: dict[str, Any], difference: str
) -> None:
    first = pack()
    with pytest.raises(ConfigError, match=difference):
        pack(**change)
    assert pack().digest == first.digest


def test_memory_that_would_give_another_cache_is_refused(pack: Callable[..., Pack]) -> None:
    first = pack()
    least = next(c["memory_bytes"] for c in first.plan["candidates"] if c["layout"] == "packed")
    with pytest.raises(ConfigError, match=f"cache_rows was {first.plan['cache_rows']}, now "):
        pack(memory=least)


def test_another_graph_on_the_same_folder_is_refused(pack: Callable[..., Pack], tmp_path: Path, speeds: Speeds) -> None:
    pack()
    edges, x = np.arange(50), np.zeros((50, 2), dtype=np.float32)
    other = ingest_arrays(tmp_path / "other", edges, edges, 50, x=x, splits={"train": edges})
    with pytest.raises(ConfigError, match="store was"):
        gs.pack(other, tmp_path / "pack", **SAMPLING, memory="16MiB", speeds=speeds)


def test_a_second_writer_is_refused(pack: Callable[..., Pack], tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with WriterLock(tmp_path / "pack"), pytest.raises(StoreBusyError):
        pack()


def test_a_folder_that_holds_something_else_is_left_alone(pack: Callable[..., Pack], tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "thesis.tex").write_text("x")
    with pytest.raises(InputDataError, match="not empty"):
        pack()
    assert [p.name for p in (tmp_path / "pack").iterdir()] == ["thesis.tex"]


def test_a_folder_with_another_pool_is_refused(store: Store, speeds: Speeds, tmp_path: Path) -> None:
    one = gs.sample(store, tmp_path / "one", **SAMPLING)
    two = gs.sample(store, tmp_path / "two", **SAMPLING, seed=1)
    gs.pack(one, tmp_path / "pack", store=store, memory="16MiB", speeds=speeds)
    with pytest.raises(ConfigError, match="holds the pool"):
        gs.pack(two, tmp_path / "pack", store=store, memory="16MiB", speeds=speeds)


def test_what_does_not_belong_together_is_refused(store: Store, speeds: Speeds, tmp_path: Path) -> None:
    pool = gs.sample(store, tmp_path / "pool", **SAMPLING)
    plan = gs.plan(pool, store, memory="16MiB", layout="packed", speeds=speeds)
    other = gs.sample(store, tmp_path / "other", **SAMPLING, seed=1)
    for source, options, message in (
        (store, {}, "needs fanouts"),
        (pool, {"fanouts": [3]}, "sampled already"),
        (store, {"fanouts": [3], "plan": plan}, "belongs to a pool"),
        (other, {"plan": plan, "store": store}, "the plan is for pool"),
    ):
        with pytest.raises(ConfigError, match=message):
            gs.pack(source, tmp_path / "pack", memory="16MiB", **options)


def test_an_estimate_cannot_be_packed(store: Store, speeds: Speeds, tmp_path: Path) -> None:
    from gnnsys.planning.plan import estimate

    pool = gs.sample(store, tmp_path / "pool", **SAMPLING)
    guess = estimate(store, **SAMPLING, memory="16MiB", speeds=speeds)
    with pytest.raises(ConfigError, match="estimated"):
        gs.pack(pool, tmp_path / "pack", plan=guess, store=store, memory="16MiB")


def test_a_full_volume_is_noticed_before_the_rows_are_written(
    pack: Callable[..., Pack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _num_bytes: int, what: str) -> None:
        raise DiskSpaceError("GS-DISK-001", f"{what} needs more")

    monkeypatch.setattr(packing, "require_free", full)
    with pytest.raises(DiskSpaceError):
        pack()
    assert not (tmp_path / "pack/g000000/slots").exists()
    monkeypatch.undo()
    assert pack().digest == pack("other").digest


def test_temporary_files_of_a_killed_run_are_removed(pack: Callable[..., Pack], tmp_path: Path) -> None:
    def stop(stage: str, _done: float, _total: float) -> None:
        if stage == "write":
            raise StoppedError

    with pytest.raises(StoppedError):
        pack(progress=stop)
    for folder in ("", "g000000", "g000000/slots", "g000000/cache", "g000000/.work"):
        (tmp_path / "pack" / folder / ".x.tmp.1.0123456789abcdef").touch()
    pack()
    assert list(tmp_path.rglob(".*.tmp.*")) == []


def test_a_direct_pack_is_a_pool_with_a_plan(pack: Callable[..., Pack]) -> None:
    made = pack(layout="direct", memory="64MiB")
    assert made.generations[0].layout == "direct"
    assert made.plan["layout"] == "direct"
    assert sorted(p.name for p in (made.path / "g000000").iterdir() if p.suffix != ".lock" and p.is_dir()) == ["pool"]


def test_the_store_may_move_between_two_runs(pack: Callable[..., Pack], store: Store, tmp_path: Path) -> None:
    made = pack()
    shutil.copytree(store.path, tmp_path / "moved")
    again = gs.pack(gs.Store.open(tmp_path / "moved"), made.path, **SAMPLING, memory="16MiB")
    assert again.digest == made.digest


def test_one_link_pool_with_a_fixed_order_is_packed_like_any_other(
    store: Store, speeds: Speeds, tmp_path: Path
) -> None:
    pairs = np.random.default_rng(0).integers(0, store.num_nodes, (100, 2))
    seeds = gs.Seeds.links(pairs, negatives=1, order="fixed")
    made = gs.pack(store, tmp_path / "pack", seeds=seeds, fanouts=[3], batch_size=16, memory="16MiB", speeds=speeds)
    assert made.pool.order == "fixed"
    assert made.plan["order"] == "fixed"
    assert made.verify(deep=True) == []
