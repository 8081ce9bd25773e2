"""A pool holds what the sampler makes, with the same bytes for any number of threads, interruptions or budget."""

from __future__ import annotations

import errno
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import ConfigError, CorruptStoreError, DiskSpaceError, InputDataError, MemoryBudgetError
from gnnsys.samplers import sample as sample_module
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.sample import sample
from gnnsys.samplers.seeds import Seeds, as_seeds
from gnnsys.samplers.tree import TreeSampler
from gnnsys.storage import pool_writer
from gnnsys.storage.pool import Pool
from gnnsys.storage.pool_writer import PoolWriter

FIELDS = ("num_nodes", "ids", "degree", "indptr", "indices", "labels", "pairs", "pair_label", "t")
EVENTS = Seeds.links(
    np.random.default_rng(0).integers(0, 190, (40, 2)), negatives=2, t=np.arange(40), order="fixed", exclude="self"
)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of 2 batches or so and shards of 3: a small pool has several of both."""
    small = partial(PoolWriter, unit_bytes=60_000, shard_bytes=100_000)
    monkeypatch.setattr(sample_module, "PoolWriter", small)


def assert_holds(pool: Pool, store: Any, seeds: Any, fanouts: list[int], batch_size: int) -> None:
    """Every batch read back is, array by array and type by type, the batch that was sampled."""
    batches = seed_batches(as_seeds(store, seeds), batch_size, 0)
    sampler = TreeSampler(store.graph, fanouts, seed=0, labels=store.labels())
    assert len(batches) == pool.num_batches
    for k, asked in enumerate(batches):
        made, read = sampler.sample(asked), pool.read(k)
        for name in FIELDS:
            expected, found = getattr(made, name), getattr(read, name)
            assert type(expected) is type(found), name
            if expected is not None:
                assert expected.dtype == found.dtype, name
                assert np.array_equal(expected, found), name


@pytest.mark.parametrize("fanouts", [[5, 3], [-1], [0, 4], [300, 2], [], [3, -1, 0, 2]])
def test_a_pool_holds_the_sampled_batches(random_store: Any, tmp_path: Path, fanouts: list[int]) -> None:
    pool = sample(random_store, tmp_path, fanouts=fanouts, batch_size=32)
    assert_holds(pool, random_store, "train", fanouts, 32)


@pytest.mark.parametrize("seeds", [EVENTS, Seeds.links([[1, 2], [3, 4]], negatives=0), Seeds.nodes([7])])
def test_pools_of_pairs_events_and_one_node_hold_the_sampled_batches(
    random_store: Any, tmp_path: Path, seeds: Seeds
) -> None:
    pool = sample(random_store, tmp_path, seeds=seeds, fanouts=[4, 2], batch_size=16)
    assert_holds(pool, random_store, seeds, [4, 2], 16)


def test_a_pool_without_labels_has_none(store_of: Any, tmp_path: Path) -> None:
    pool = sample(store_of([(0, 1)], 2), tmp_path, seeds=[0, 1], fanouts=[1])
    assert pool.read(0).labels is None


def test_a_graph_with_64_bit_ids_gives_the_same_pool(store_of: Any, tmp_path: Path) -> None:
    wide, narrow = (store_of([(0, 1), (2, 1)], 3, id_dtype=np.dtype(kind)) for kind in (np.int64, np.int32))
    pool = sample(wide, tmp_path / "wide", seeds=[1, 0], fanouts=[-1], batch_size=1)
    assert_holds(pool, wide, [1, 0], [-1], 1)
    assert pool.digest == sample(narrow, tmp_path / "narrow", seeds=[1, 0], fanouts=[-1], batch_size=1).digest


def test_counts_above_255_survive(store_of: Any, tmp_path: Path) -> None:
    store = store_of([(s, 0) for s in range(1, 1000)], 1000)
    pool = sample(store, tmp_path, seeds=[0], fanouts=[700])
    assert np.diff(pool.read(0).indptr).tolist() == [700]


@pytest.mark.parametrize("num_nodes", [1 << 16, (1 << 16) + 1])
def test_a_new_source_takes_one_bit(store_of: Any, tmp_path: Path, num_nodes: int) -> None:
    src = np.arange(1, num_nodes)
    store = store_of(np.stack([src, np.zeros_like(src)], axis=1), num_nodes)
    pool = sample(store, tmp_path, seeds=[0], fanouts=[-1])
    batch = pool.read(0)
    assert batch.ids[batch.indices].tolist() == src.tolist()
    count, flags = 8 + 8, -(-len(src) // 64) * 8 + 8  # every source is new, so none has a number on disk
    assert pool.bytes[0, 3] == count + flags


@pytest.mark.parametrize("seeds", ["train", EVENTS])
def test_the_bytes_do_not_depend_on_the_number_of_workers(random_store: Any, tmp_path: Path, seeds: Any) -> None:
    pools = [
        sample(random_store, tmp_path / str(n), seeds=seeds, fanouts=[6, 4], batch_size=5, workers=n) for n in (1, 2, 4)
    ]
    assert len({p.digest for p in pools}) == 1


def test_the_bytes_do_not_depend_on_the_budget(random_store: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"fanouts": [6, 4], "batch_size": 5, "workers": 4}
    tight = sample(random_store, tmp_path / "tight", memory="2MiB", **options)
    assert tight.digest == sample(random_store, tmp_path / "wide", **options).digest


def test_never_more_batches_are_in_flight_than_fit(
    random_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    done: list[int] = []
    ahead: list[int] = []
    encode = sample_module.encode

    def counting(*args: Any) -> Any:
        made.append(1)
        ahead.append(len(made) - len(done))
        return encode(*args)

    monkeypatch.setattr(sample_module, "encode", counting)
    monkeypatch.setattr(sample_module, "working_bytes", lambda _nodes, _edges: 1 << 20)
    sample(
        random_store,
        tmp_path,
        fanouts=[6, 4],
        batch_size=5,
        workers=8,
        memory=3 << 20,
        progress=lambda _stage, batches, _total: done.append(1) if batches else None,
    )
    # 3 MiB hold two batches of 1.25 MiB.
    assert max(ahead) == 2


def test_a_budget_below_one_batch_is_refused_and_the_work_can_go_on_with_more(
    random_store: Any, tmp_path: Path
) -> None:
    with pytest.raises(MemoryBudgetError, match="a batch"):
        sample(random_store, tmp_path / "a", fanouts=[6, 4], memory=300_000)
    more = sample(random_store, tmp_path / "a", fanouts=[6, 4])
    assert more.digest == sample(random_store, tmp_path / "b", fanouts=[6, 4]).digest


class KilledError(Exception):
    """Stands for a process that ends here."""


def dying_at(call: int) -> Any:
    calls = iter(range(call))

    def progress(_stage: str, _done: float, _total: float) -> None:
        if next(calls, None) is None:
            raise KilledError

    return progress


@pytest.mark.usefixtures("small_units")
def test_interrupted_anywhere_and_continued_gives_the_same_bytes(random_store: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"fanouts": [6, 4], "batch_size": 10, "workers": 2}
    whole = sample(random_store, tmp_path / "whole", **options)
    assert (whole.num_batches, len({*whole.shard})) == (10, 3)
    for call in range(11):
        out = tmp_path / str(call)
        with pytest.raises(KilledError):
            sample(random_store, out, progress=dying_at(call), **options)
        assert sample(random_store, out, **options).digest == whole.digest


@pytest.mark.usefixtures("small_units")
def test_interrupted_again_and_again_it_still_ends_with_the_same_bytes(random_store: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"fanouts": [6, 4], "batch_size": 10}
    whole = sample(random_store, tmp_path / "whole", **options)
    kills = 0
    while kills < 50:
        try:
            pool = sample(random_store, tmp_path / "torn", progress=dying_at(3), workers=1 + kills % 3, **options)
            break
        except KilledError:
            kills += 1
    assert kills > 2
    assert pool.digest == whole.digest


@pytest.mark.usefixtures("small_units")
def test_finished_units_are_not_sampled_again(
    random_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KilledError):
        sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10, progress=dying_at(9))
    seen: list[float] = []
    sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10, progress=lambda _s, done, _t: seen.append(done))
    assert seen[0] >= 6
    monkeypatch.setattr(sample_module, "TreeSampler", None)
    assert sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10).num_batches == 10


@pytest.mark.usefixtures("small_units")
def test_a_full_disk_is_one_clear_error_and_the_work_continues(
    random_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"fanouts": [6, 4], "batch_size": 10}
    whole = sample(random_store, tmp_path / "whole", **options)
    write, calls = pool_writer.write_all, iter(range(5))

    def full(fd: int, data: np.ndarray, offset: int) -> None:
        if next(calls, None) is None:
            write(fd, data[:5000], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data, offset)

    monkeypatch.setattr(pool_writer, "write_all", full)
    with pytest.raises(DiskSpaceError, match="blobs-0000"):
        sample(random_store, tmp_path / "torn", **options)
    monkeypatch.setattr(pool_writer, "write_all", write)
    assert sample(random_store, tmp_path / "torn", **options).digest == whole.digest


def test_a_pool_that_cannot_fit_on_the_disk_is_refused_after_the_first_batch(
    random_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnsys.storage.files.free_bytes", lambda _path: 100_000)
    with pytest.raises(DiskSpaceError, match="the pool needs"):
        sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10)


def invert(data: bytes) -> bytes:
    return bytes(255 - byte for byte in data)


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("shards/blobs-00002.bin", lambda data: data[:4096]),
        ("shards/blobs-00002.bin", invert),
        ("shards/blobs-00000.bin", lambda data: data[:-1]),
        (".work/index.bin", invert),
        (".work/index.bin", lambda data: data[:-8]),
    ],
)
def test_damage_to_finished_units_is_found_before_continuing(
    random_store: Any, tmp_path: Path, name: str, damage: Any
) -> None:
    with pytest.raises(KilledError):
        sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10, progress=dying_at(9))
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(CorruptStoreError):
        sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10)


@pytest.mark.usefixtures("small_units")
def test_a_missing_shard_is_found_before_continuing(random_store: Any, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10, progress=dying_at(9))
    (tmp_path / "shards/blobs-00000.bin").unlink()
    with pytest.raises(CorruptStoreError, match=r"blobs-00000.bin: the file is missing"):
        sample(random_store, tmp_path, fanouts=[6, 4], batch_size=10)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"seeds": [5, 500]}, InputDataError),
        ({"seeds": [5, 5]}, InputDataError),
        ({"seeds": []}, InputDataError),
        ({"fanouts": [-3]}, ConfigError),
        ({"batch_size": 0}, ConfigError),
        ({"seed": -1}, ConfigError),
        ({"workers": 0}, ConfigError),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_is_written(
    random_store: Any, tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        sample(random_store, tmp_path / "pool", **{"fanouts": [2], **options})
    assert not (tmp_path / "pool").exists()


def test_an_empty_split_is_refused_with_a_clear_message(store_of: Any, tmp_path: Path) -> None:
    store = store_of([(0, 1)], 2, splits={"train": np.empty(0, dtype=np.int64)})
    with pytest.raises(InputDataError, match="train: there are no seeds"):
        sample(store, tmp_path, fanouts=[2])


def test_other_options_in_the_same_folder_are_refused_with_the_difference(random_store: Any, tmp_path: Path) -> None:
    sample(random_store, tmp_path, fanouts=[2])
    with pytest.raises(ConfigError, match=r"fanouts was \[2\], now \[3\]"):
        sample(random_store, tmp_path, fanouts=[3])


def test_an_error_of_a_worker_reaches_the_caller(random_store: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sample_module, "encode", broken)
    with pytest.raises(ZeroDivisionError):
        sample(random_store, tmp_path, fanouts=[2])


def test_counts_of_the_manifest_are_sums_over_the_batches(random_store: Any, tmp_path: Path) -> None:
    pool = sample(random_store, tmp_path, fanouts=[6, 4], batch_size=30)
    batches = [pool.read(k) for k in range(pool.num_batches)]
    assert pool.manifest.counts == {
        "batches": 4,
        "hops": 2,
        "seeds": 100,
        "nodes": sum(len(b.ids) for b in batches),
        "edges": sum(len(b.indices) for b in batches),
        "max_nodes": max(len(b.ids) for b in batches),
        "max_edges": max(len(b.indices) for b in batches),
        "id_bits": 8,  # 199
        "degree_bits": 6,  # at most 59
        "bytes": sum(f.stat().st_size for f in (tmp_path / "shards").iterdir()),
    }


def test_the_manifest_says_how_the_pool_was_made(random_store: Any, tmp_path: Path) -> None:
    pool = sample(random_store, tmp_path, seeds=EVENTS, fanouts=[3], batch_size=8, seed=5, pool_index=2)
    assert pool.manifest.inputs == {"store": random_store.id}
    assert pool.manifest.parameters == {
        "seeds": EVENTS.digest,
        "fanouts": [3],
        "batch_size": 8,
        "seed": 5,
        "pool_index": 2,
        "order": "fixed",
        "weights": None,
        "replace": False,
        "pairs": {"negatives": 2, "exclude": "self"},
    }


def test_order_given_to_sample_wins_over_that_of_the_seeds(random_store: Any, tmp_path: Path) -> None:
    pool = sample(random_store, tmp_path, fanouts=[], batch_size=60, order="fixed")
    assert (pool.order, pool.read(0).ids.tolist()) == ("fixed", list(range(0, 120, 2)))


def test_a_batch_beyond_the_budget_is_refused_before_its_edges_are_fetched(store_of: Any, tmp_path: Path) -> None:
    store = store_of([(source, 0) for source in range(300_000)], 300_000)
    tracemalloc.start()
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-002: a batch needs .*300,000 edges"):
        sample(store, tmp_path, seeds=[0], fanouts=[-1], memory="4MiB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_the_order_of_the_seeds_is_counted_before_it_is_made(random_store: Any, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="the order of the seeds needs"):
        sample(random_store, tmp_path / "p", fanouts=[2], memory="1KiB")
    assert not (tmp_path / "p").exists()
