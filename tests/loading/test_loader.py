"""A Loader delivers the same batches from every source and layout, ahead of time, and stops cleanly."""

from __future__ import annotations

import gc
import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.loading.loader import Loader
from gnnsys.loading.maker import BatchMaker
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.direct import DirectFile
from gnnsys.storage.pack import Pack
from gnnsys.storage.tables import empty_rows
from tests.loading.conftest import BATCH, FANOUTS, SEED, World, make_store, same, tensors

Check = Callable[[], None]


class LoaderContract:
    """Every way of loading must pass these; subclass and provide `open`."""

    def open(self, world: World, **options: Any) -> Loader:
        raise NotImplementedError

    def test_rows_labels_and_nodes_are_those_of_the_store(self, world: World) -> None:
        with self.open(world) as loader:
            for batch in loader:
                n_id = batch.n_id.numpy()
                assert isinstance(batch.x, torch.Tensor)
                assert batch.y is not None
                assert batch.x.numpy().tobytes() == world.x[n_id].tobytes()
                assert np.array_equal(batch.seeds.numpy(), n_id[: batch.num_nodes[0]])
                assert np.array_equal(batch.y.numpy(), world.y[batch.seeds.numpy()])

    def test_batches_are_those_that_the_sampler_draws(self, world: World) -> None:
        with self.open(world) as loader:
            for batch, drawn in zip(loader, world.oracle(), strict=True):
                assert batch.index == drawn.index
                _assert_topology(batch, drawn)

    def test_edge_ids_are_where_the_edges_stand_in_the_topology(self, world: World) -> None:
        graph = world.store.graph
        with self.open(world, edge_ids=True) as loader, self.open(world) as usual:
            for batch, without in zip(loader, usual, strict=True):
                assert batch.e_id is not None
                assert without.e_id is None
                source, destination = batch.n_id[batch.edge_index].numpy()
                e_id = batch.e_id.numpy()
                assert np.array_equal(graph.indices[e_id], source)
                assert ((graph.indptr[destination] <= e_id) & (e_id < graph.indptr[destination + 1])).all()
                assert len(np.unique(e_id)) == len(e_id)
                for block in batch.sampled_blocks:
                    assert block.e_id is not None
                    assert torch.equal(block.e_id, batch.e_id[: block.num_edges])

    def test_every_tensor_starts_on_a_cache_line(self, world: World) -> None:
        with self.open(world, edge_ids=True) as loader:
            for batch in loader:
                assert [name for name, t in tensors(batch).items() if t.data_ptr() % 64] == []

    @pytest.mark.parametrize(("prefetch", "workers"), [(1, 1), (1, 4), (5, 1), (3, 3), (50, 4)])
    def test_threads_and_depth_change_nothing(self, world: World, prefetch: int, workers: int) -> None:
        with self.open(world) as usual, self.open(world, prefetch=prefetch, workers=workers) as other:
            assert all(same(a, b) for a, b in zip(usual, other, strict=True))

    def test_the_second_epoch_differs_in_order_and_not_in_content(self, world: World) -> None:
        with self.open(world) as loader:
            first = list(loader)
            second = list(loader)
        assert [b.index for b in first] != [b.index for b in second]
        by_index = {b.index: b for b in second}
        assert len(by_index) == len(first) == len(loader)
        assert all(same(a, by_index[a.index]) for a in first)

    def test_a_position_taken_after_any_batch_continues_with_the_next(self, world: World) -> None:
        with self.open(world) as loader, self.open(world) as resumed:
            whole = list(loader)
            loader.set_epoch(0)
            positions = [loader.state_dict()]
            positions += [loader.state_dict() for _ in loader]
            for done, state in enumerate(positions):
                resumed.load_state_dict(json.loads(json.dumps(state)))
                rest = list(resumed)
                assert len(rest) == len(whole) - done
                assert all(same(a, b) for a, b in zip(whole[done:], rest, strict=True))

    def test_a_position_of_a_later_epoch_is_kept(self, world: World) -> None:
        with self.open(world) as loader, self.open(world) as resumed:
            list(loader)
            batches = iter(loader)
            next(batches)
            resumed.load_state_dict(loader.state_dict())
            assert [b.index for b in resumed] == [b.index for b in batches]

    def test_leaving_a_loop_keeps_the_place_and_set_epoch_goes_back(self, world: World) -> None:
        with self.open(world) as loader:
            order = [b.index for b in loader]
            loader.set_epoch(0)
            for batch in loader:
                assert batch.index == order[0]
                break
            assert [b.index for b in loader] == order[1:]
            loader.set_epoch(0)
            assert [b.index for b in loader] == order

    def test_bytes_read_are_those_planned(self, world: World) -> None:
        with self.open(world) as loader:
            for epoch in range(2):
                planned = loader.planned_bytes(epoch)
                assert sum(b.io["bytes_read"] for b in loader) == planned
            assert loader.stats()["bytes_read"] == 2 * planned
            assert loader.stats()["batches"] == 2 * len(loader)

    def test_upcoming_names_the_nodes_of_the_next_batches_at_every_place(self, world: World) -> None:
        with self.open(world) as loader:
            expected = [b.n_id.numpy() for b in loader]
            loader.set_epoch(0)
            _assert_ids(loader.upcoming(100), expected)
            for done, _ in enumerate(loader, start=1):
                _assert_ids(loader.upcoming(3), expected[done : done + 3])
                _assert_ids(loader.upcoming(1), expected[done : done + 1])

    @pytest.mark.parametrize("world_size", [2, 3])
    def test_ranks_share_an_epoch_between_them(self, world: World, world_size: int) -> None:
        with self.open(world) as alone:
            whole = list(alone)
        ranks = []
        for rank in range(world_size):
            with self.open(world, rank=rank, world_size=world_size) as loader:
                ranks.append(list(loader))
                assert len(ranks[-1]) == len(loader)
        for rank, batches in enumerate(ranks):
            assert all(same(a, b) for a, b in zip(whole[rank::world_size], batches, strict=True))

    def test_inner_hops_are_a_prefix_of_the_whole(self, world: World) -> None:
        for hops in range(len(FANOUTS) + 1):
            with self.open(world) as whole, self.open(world, hops=hops) as inner:
                for a, b in zip(whole, inner, strict=True):
                    assert b.num_nodes == a.num_nodes[: hops + 1]
                    assert len(b.blocks) == hops
                    assert isinstance(a.x, torch.Tensor) and isinstance(b.x, torch.Tensor)
                    assert torch.equal(b.x, a.x[: b.num_nodes[-1]])
                    for one, other in zip(a.blocks[len(FANOUTS) - hops :], b.blocks, strict=True):
                        assert torch.equal(one.indptr, other.indptr)
                        assert torch.equal(one.indices, other.indices)
                        assert torch.equal(one.degree, other.degree)

    def test_what_is_not_wanted_is_not_there(self, world: World) -> None:
        with self.open(world, with_x=False, with_y=False) as loader:
            for batch in loader:
                assert batch.x is None
                assert batch.y is None

    def test_batches_fit_the_bounds(self, world: World) -> None:
        with self.open(world) as loader:
            bound = loader.max_batch_bytes()
            for batch in loader:
                storages = {
                    t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(batch).values()
                }
                assert sum(storages.values()) <= bound
            assert loader.memory_bytes(prefetch=1, workers=1) >= 2 * bound
            assert loader.memory_bytes(prefetch=4) > loader.memory_bytes(prefetch=2)

    def test_the_largest_batch_is_made_without_moving(self, world: World, no_threads_left: Check) -> None:
        with self.open(world) as loader:
            largest = loader.largest_batch()
            before = loader.state_dict()
            batches = {b.index: b for b in loader}
            assert before["next"] == 0
            assert same(largest, batches[largest.index])
            assert len(largest.n_id) == max(len(batch.n_id) for batch in batches.values())
        no_threads_left()

    def test_no_thread_is_left_behind_however_it_ends(self, world: World, no_threads_left: Check) -> None:
        loader = self.open(world)
        list(loader)
        if loader.stats()["checksum_bytes"] == 0:
            no_threads_left()  # the epoch is over; only a direct table keeps its readers until close
        for _ in loader:
            break
        batches = iter(loader)
        next(batches)
        loader.close()
        loader.close()
        no_threads_left()

    def test_a_forgotten_loader_leaves_no_thread(self, world: World, no_threads_left: Check) -> None:
        loader = self.open(world)
        batches = iter(loader)
        next(batches)
        del loader, batches
        gc.collect()
        no_threads_left()

    @pytest.mark.parametrize("kind", [InputDataError, OSError])
    def test_an_error_in_a_thread_reaches_the_loop_and_names_the_batch(
        self, world: World, no_threads_left: Check, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
    ) -> None:
        with self.open(world, prefetch=3) as loader:
            order = [b.index for b in loader]
            loader.set_epoch(0)
            _fail_at(loader, order[2], kind, monkeypatch)
            seen = []
            with pytest.raises(kind) as caught:
                seen += [b.index for b in _noting(loader, seen)]
            assert seen == order[:2]
            assert f"batch {order[2]}" in str(caught.value) + " ".join(getattr(caught.value, "__notes__", []))
            monkeypatch.undo()
            assert [b.index for b in loader] == order[2:]
        no_threads_left()

    def test_an_interrupted_wait_loses_no_batch(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        with self.open(world) as loader:
            order = [b.index for b in loader]
            loader.set_epoch(0)
            batches = iter(loader)
            seen = [next(batches).index]
            ahead = loader._ahead
            assert ahead is not None
            _, future = ahead._flying[0]
            with monkeypatch.context() as patch:
                patch.setattr(future, "result", _interrupt)
                with pytest.raises(KeyboardInterrupt):
                    next(batches)
            assert seen + [b.index for b in loader] == order

    def test_positions_of_other_loaders_are_refused(self, world: World) -> None:
        with self.open(world) as loader:
            state = loader.state_dict()
            for key, value in (("seed", 1), ("source", "another"), ("world_size", 2), ("shuffle", False), ("next", 99)):
                with pytest.raises(ConfigError, match="GS-CFG-407") as error:
                    loader.load_state_dict({**state, key: value})
                assert str(value) in str(error.value)
            with pytest.raises(ConfigError, match="GS-CFG-407"):
                loader.load_state_dict({})

    def test_a_closed_loader_says_so(self, world: World) -> None:
        loader = self.open(world)
        loader.close()
        for use in (lambda: next(iter(loader)), lambda: loader.upcoming(1), lambda: loader.set_epoch(0)):
            with pytest.raises(ConfigError, match="GS-CFG-405"):
                use()

    def test_a_loop_whose_loader_was_moved_is_an_error_and_not_a_short_epoch(self, world: World) -> None:
        with self.open(world) as loader:
            batches = iter(loader)
            next(batches)
            loader.set_epoch(3)
            with pytest.raises(ConfigError, match="GS-CFG-408"):
                next(batches)
            assert loader.state_dict()["epoch"] == 3
            assert len(list(loader)) == len(loader)


class TestPacked(LoaderContract):
    def open(self, world: World, **options: Any) -> Loader:
        return Loader(world.packed, **options)

    def test_no_file_of_the_store_is_needed(self, world: World) -> None:
        with Loader(world.packed, store="/nowhere") as loader:
            assert len(list(loader)) == len(loader)


class TestPackedFromItsFolder(LoaderContract):
    def open(self, world: World, **options: Any) -> Loader:
        return Loader(str(world.packed.path), **options)


class TestDirectPack(LoaderContract):
    def open(self, world: World, **options: Any) -> Loader:
        return Loader(world.direct, **options)


class TestDirectRowsOfAPackedPack(LoaderContract):
    def open(self, world: World, **options: Any) -> Loader:
        return Loader(world.packed, rows="direct", **options)


class TestMappedRows(LoaderContract):
    def open(self, world: World, **options: Any) -> Loader:
        return Loader(world.pool, store=world.store, **options)


class TestRowsInMemory(LoaderContract):
    def open(self, world: World, **options: Any) -> Loader:
        return Loader(world.packed.path, rows="memory", store=world.store.path, verify="always", **options)


class TestOnline(LoaderContract):
    """Sampled from the Store as it is read; every epoch repeats the first pass."""

    def open(self, world: World, **options: Any) -> Loader:
        return _online(world, resample=False, **options)


def _online(world: World, seed: int = 0, **options: Any) -> Loader:
    """The seed of the pool decides who is in a batch; the order of batches follows seed 0 as elsewhere here."""
    loader = Loader(world.store, fanouts=FANOUTS, batch_size=BATCH, seed=SEED, **options)
    loader._order["seed"] = seed
    return loader


def _assert_topology(batch: Batch, drawn: PoolBatch) -> None:
    assert batch.num_nodes == tuple(drawn.num_nodes)
    assert np.array_equal(batch.n_id, drawn.ids)
    assert np.array_equal(batch.degree, drawn.degree)
    for depth, block in enumerate(reversed(batch.blocks), start=1):
        stop = drawn.num_nodes[depth - 1]
        assert np.array_equal(block.indptr, drawn.indptr[: stop + 1])
        assert np.array_equal(block.indices, drawn.indices[: drawn.indptr[stop]])
        assert np.array_equal(block.degree, drawn.degree[: drawn.num_nodes[depth]])


def _assert_ids(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected)
    assert all(a.dtype == np.int64 and np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def _fail_at(loader: Loader, index: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader._maker.source
    draw = source.draw

    def failing(epoch: int, k: int, scratch: Any) -> PoolBatch:
        if k == index:
            raise kind("GS-IN-499", "no such thing") if kind is InputDataError else kind("no such thing")
        return draw(epoch, k, scratch)

    monkeypatch.setattr(source, "draw", failing)


def _noting(loader: Loader, seen: list[int]) -> list[Batch]:
    for batch in loader:
        seen.append(batch.index)
    return []


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_every_epoch_of_a_store_is_sampled_anew_unless_told_otherwise(world: World) -> None:
    with _online(world) as loader:
        first = {b.index: b for b in loader}
        second = {b.index: b for b in loader}
        assert {b.pool_index for b in second.values()} == {1}
        assert not any(same(first[k], second[k]) for k in first)
        seeds = [np.sort(np.concatenate([b.seeds for b in e.values()])) for e in (first, second)]
        assert np.array_equal(*seeds)
        loader.set_epoch(1)
        assert all(same(b, second[b.index]) for b in loader)


def test_online_batches_are_planned_as_they_are_drawn(world: World) -> None:
    with _online(world, rows="direct") as loader:
        for epoch in range(2):
            read = sum(b.io["bytes_read"] for b in loader)
            assert loader.planned_bytes(epoch) == read > 0


def test_reads_of_a_pack_are_the_bytes_that_the_process_asked_for(world: World) -> None:
    """The kernel's own count of bytes handed to read calls, which no code of ours keeps."""

    def asked() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])  # rchar

    pack = Pack.open(world.packed.path)
    with Loader(pack) as loader:
        planned = loader.planned_bytes(0)
        before = asked()
        list(loader)
        spent = asked() - before
    assert planned <= spent < planned + 4096


def test_bytes_read_are_counted_where_the_disk_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read = DirectFile.read
    monkeypatch.setattr(DirectFile, "read", lambda file, out, offset: read(file, out, offset) + 4096)
    with Loader(world.packed) as loader:
        planned, counted = loader.planned_bytes(0), sum(b.io["bytes_read"] for b in loader)
    blobs_slots_and_runs = 3 * len(loader)
    assert planned < counted <= planned + 4096 * blobs_slots_and_runs


def test_two_loaders_each_read_only_their_own_hops(world: World) -> None:
    with Loader(world.packed, with_y=False) as outer, Loader(world.packed, hops=1, with_x=False) as inner:
        for a, b in zip(outer, inner, strict=True):
            assert (a.index, a.y, b.x) == (b.index, None, None)
            assert torch.equal(a.blocks[-1].indices, b.blocks[0].indices)
            assert b.io["bytes_read"] < a.io["bytes_read"]
        assert sum([outer.stats()["bytes_read"], inner.stats()["bytes_read"]]) == outer.planned_bytes(
            0
        ) + inner.planned_bytes(0)


def test_pairs_and_times_come_in_their_fixed_order_in_every_epoch(events: Pack) -> None:
    with Loader(events) as loader:
        for _ in range(2):
            t = torch.cat([batch.t for batch in loader if batch.t is not None])
            label = torch.cat([batch.pair_label for batch in loader if batch.pair_label is not None])
            loader.set_epoch(0)
            assert torch.equal(t[label == 1], torch.arange(100) * 10)
            assert int((label == 0).sum()) == 100


def test_shuffling_what_is_in_time_order_is_refused(events: Pack) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-410"):
        Loader(events, shuffle=True)


def test_a_shuffled_pool_can_be_read_in_pool_order(world: World) -> None:
    with Loader(world.pool, store=world.store, shuffle=False) as loader:
        assert [b.index for b in loader] == list(range(len(loader)))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"rows": "tape"}, "GS-CFG-403"),
        ({"verify": "sometimes"}, "GS-CFG-402"),
        ({"hops": 3}, "GS-CFG-401"),
        ({"hops": -1}, "GS-CFG-401"),
        ({"prefetch": 0}, "GS-CFG-412"),
        ({"workers": 0}, "GS-CFG-412"),
        ({"rank": 2, "world_size": 2}, "GS-CFG-412"),
        ({"fanouts": [1]}, "GS-CFG-409"),
        ({"tables": ("x", "z")}, "GS-IN-406"),
    ],
)
def test_options_that_do_not_fit_are_refused(world: World, options: dict[str, Any], code: str) -> None:
    with pytest.raises((ConfigError, InputDataError), match=code):
        Loader(world.packed, **options)


def test_packed_rows_are_refused_where_there_are_none(world: World) -> None:
    for source in (world.direct, world.pool):
        with pytest.raises(ConfigError, match="GS-CFG-404"):
            Loader(source, rows="packed", store=world.store)
    with pytest.raises(ConfigError, match="GS-CFG-409"):
        Loader(world.store)


def test_a_gpu_that_is_not_there_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="GS-CFG-411"):
        Loader(world.packed, device="cuda")


def test_batches_in_page_locked_memory_are_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # what it does, but for the lock
    monkeypatch.setattr("gnnsys.loading.maker.empty_rows", lambda *shape, pin: empty_rows(*shape))
    with Loader(world.packed) as plain, Loader(world.packed) as pinned:
        pinned._maker = BatchMaker(pinned._maker.source, pinned._maker.rows, pin=True)
        assert all(same(a, b) for a, b in zip(pinned, plain, strict=True))
        assert pinned.stats().keys() == plain.stats().keys()
        assert pinned.stats()["bytes_read"] == plain.stats()["bytes_read"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rows", ["auto", "memory", "direct"])
def test_batches_on_a_gpu_are_the_same(world: World, rows: str) -> None:
    with Loader(world.packed, rows=rows) as here, Loader(world.packed, rows=rows, device="cuda") as there:
        assert all(same(a.to("cpu"), b) for a, b in zip(there, here, strict=True))


def test_a_folder_that_holds_nothing_of_ours_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=str(tmp_path)):
        Loader(tmp_path)


def test_a_store_without_features_loads_without_rows_and_says_so_otherwise(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", None)
    with pytest.raises(InputDataError, match=r"GS-IN-406.*no table 'x'"):
        Loader(store, fanouts=FANOUTS)
    with Loader(store, fanouts=FANOUTS, with_x=False, batch_size=64) as loader:
        assert all(batch.x is None for batch in loader)


def test_another_store_than_the_pack_was_made_from_is_refused(world: World, tmp_path: Path) -> None:
    other = make_store(tmp_path / "store", world.x[:, :4].copy())
    with pytest.raises(InputDataError, match="GS-IN-301"):
        Loader(world.packed, rows="mapped", store=other)


def _use_in_child(loader: Loader, queue: Any) -> None:
    try:
        next(iter(loader))
    except ConfigError as error:
        queue.put(error.code)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_loader_used_after_a_fork_says_so(world: World) -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    with Loader(world.packed) as loader:
        child = fork.Process(target=_use_in_child, args=(loader, queue))
        child.start()
        child.join(20)
        assert queue.get() == "GS-CFG-406"


def test_a_flipped_bit_in_a_run_names_file_and_batch(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.packed.path, tmp_path / "pack")
    path = tmp_path / "pack/g000000/rows/rows-00000.bin"
    data = bytearray(path.read_bytes())
    data[0] ^= 4
    path.write_bytes(data)
    with Loader(tmp_path / "pack", shuffle=False) as loader, pytest.raises(CorruptStoreError) as error:
        list(loader)
    assert "batch 0: " in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("verify", ["off", "first"])
def test_a_slot_outside_cache_and_run_is_an_error_and_no_read_beyond_them(
    world: World, tmp_path: Path, verify: Any
) -> None:
    shutil.copytree(world.packed.path, tmp_path / "pack")
    path = tmp_path / "pack/g000000/slots/slots.bin"
    with Loader(tmp_path / "pack", verify=verify, shuffle=False, with_y=False) as loader:
        if verify == "first":
            assert list(loader)
        with path.open("r+b") as file:
            file.write((4_000_000).to_bytes(4, "little"))
        with pytest.raises(CorruptStoreError, match=r"batch 0: .*slots\.bin"):
            list(loader)
