"""The verb itself: options checked before work, sources told apart, a full disk that leaves work to continue."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys
from gnnsys.errors import (
    ConfigError,
    DiskSpaceError,
    GnnsysError,
    InputDataError,
    MemoryBudgetError,
    StoreBusyError,
)
from gnnsys.ingestion import ArraySource, ingest
from gnnsys.storage.stage import Stage
from tests.graphs import ingest_arrays

SRC, DST = np.array([0, 1, 2]), np.array([1, 2, 0])


def test_the_front_door_is_the_same_function() -> None:
    assert gnnsys.ingest is ingest


def test_a_graph_of_one_node_is_supported(tmp_path: Path) -> None:
    store = ingest_arrays(tmp_path, np.array([0]), np.array([0]), x=np.ones((1, 1)), y=np.array([0]))
    assert (store.num_nodes, store.num_edges, store.max_degree) == (1, 1, 1)
    assert store.verify(deep=True) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"normalize_features": "rows"}, "GS-CFG-100"),
        ({"on_bad_edge": "ignore"}, "GS-CFG-100"),
        ({"on_nan": "mean"}, "GS-CFG-100"),
        ({"on_nan": "drop-node"}, "GS-CFG-100"),
        ({"split": "random"}, "GS-CFG-101"),
        ({"memory": "lots"}, "GS-CFG-001"),
    ],
)
def test_an_option_that_is_not_valid_is_refused(tmp_path: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        ingest_arrays(tmp_path, SRC, DST, **options)


def test_too_little_memory_is_refused_with_the_least(tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-101(?s:.*)At least 16.0 MiB"):
        ingest_arrays(tmp_path, SRC, DST, memory="1MiB")


@pytest.mark.usefixtures("tiny")
def test_a_component_table_beyond_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="component of every node"):
        ingest_arrays(tmp_path, SRC, DST, 10_000, memory=4000, largest_component=True)


@pytest.mark.parametrize("source", ["npy:x", "x.parquet", "synthetic:random:nodes=4", "edge:x"])
def test_an_unknown_source_is_refused_with_the_choices(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-104(?s:.*)npz:FILE, edges:FILE or ogb:NAME"):
        ingest(source, tmp_path)


def test_ends_of_different_length_are_refused() -> None:
    with pytest.raises(InputDataError, match="GS-IN-104"):
        ArraySource((np.zeros(3, dtype=int), np.zeros(2, dtype=int)))


def test_more_nodes_than_a_key_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-105"):
        ingest_arrays(tmp_path, SRC, DST, 1 << 32)


def test_a_volume_that_is_too_small_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnsys.storage.files.free_bytes", lambda path: 1000)
    with pytest.raises(DiskSpaceError, match=r"GS-DISK-001.*the Store and its scratch files needs"):
        ingest_arrays(tmp_path, SRC, DST, 1000)
    assert not (tmp_path / "graph").exists()


def test_a_second_ingest_into_one_folder_is_refused(tmp_path: Path) -> None:
    with Stage(tmp_path, "gnnsys-store", 1, inputs={}, parameters={}), pytest.raises(StoreBusyError):
        ingest_arrays(tmp_path, SRC, DST)


def test_ids_that_need_more_disk_than_there_is_are_refused_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnsys.storage.files.free_bytes", lambda path: 1_000_000)
    with pytest.raises(DiskSpaceError, match=r"GS-DISK-001.*the Store and its scratch files needs 8\.0 MiB"):
        ingest_arrays(tmp_path, np.array([0]), np.array([1_000_000 - 1]))
    assert not (tmp_path / "graph").exists()


def test_ids_that_cannot_be_numbers_of_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-125: the largest node id is 4,000,000,000 among 3 edges"):
        ingest_arrays(tmp_path, SRC, np.array([1, 2, 4_000_000_000]))
    assert not (tmp_path / "graph").exists()


def test_a_declared_number_of_nodes_may_be_mostly_isolated(tmp_path: Path) -> None:
    assert ingest_arrays(tmp_path, SRC, DST, 1_500_000).num_nodes == 1_500_000


@pytest.mark.usefixtures("tiny")
def test_a_disk_that_fills_up_anywhere_leaves_work_to_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"x": np.ones((40, 3)), "y": np.arange(40) % 3, "splits": {"train": np.arange(5)}}
    src, dst = np.random.default_rng(0).integers(0, 40, (2, 200))
    golden = ingest_arrays(tmp_path / "golden", src, dst, **arrays)
    real, fails = os.pwrite, 0
    for number in range(1000):
        left = iter(range(number))

        def filling(fd: int, data: Any, offset: int, left: Any = left) -> int:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data, offset)

        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", filling)
            try:
                ingest_arrays(out, src, dst, memory=4000, workers=1, **arrays)
                break
            except DiskSpaceError:
                fails += 1
        assert ingest_arrays(out, src, dst, memory=4000, **arrays).digest == golden.digest
    assert fails > 20


@pytest.mark.parametrize("options", [{"memory": "1KiB"}, {"memory": "much"}, {"workers": 0}, {"workers": -2}])
def test_a_refused_option_leaves_no_folder(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(GnnsysError):
        ingest_arrays(tmp_path / "s", SRC, DST, **options)
    assert not (tmp_path / "s").exists()


def test_renumbering_needs_room_for_a_second_set_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("gnnsys.ingestion.build.require_free", lambda _path, num_bytes, _what: asked.append(num_bytes))
    for folder, largest in (("a", False), ("b", True)):
        ingest_arrays(tmp_path / folder, SRC, DST, 1000, largest_component=largest)
    assert asked[3] - asked[1] == pytest.approx(1.05 * (8 * len(SRC) + 34 * 1000), abs=1)


def test_nodes_that_are_renumbered_keep_their_numbers_as_names(tmp_path: Path) -> None:
    src, dst = np.array([3, 4, 0]), np.array([4, 9, 0])
    store = ingest_arrays(tmp_path / "s", src, dst, 12, largest_component=True)
    assert store.names(range(store.num_nodes)) == ["3", "4", "9"]
    assert store.verify(deep=True) == []


def test_a_graph_that_is_one_component_needs_no_names(tmp_path: Path) -> None:
    assert not ingest_arrays(tmp_path / "s", np.array([0]), np.array([1]), 2, largest_component=True).has_names
