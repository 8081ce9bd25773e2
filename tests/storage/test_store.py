"""Store: what it hands out is what went in, and damage is named at first touch."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import ConfigError, CorruptStoreError, GnnsysError, InputDataError
from gnnsys.storage.manifest import FileEntry, Manifest, read_manifest, write_manifest
from gnnsys.storage.store import FORMAT, VERSION, Store, id_dtype, split_path
from gnnsys.storage.writer import array_entry, write_array
from tests.graphs import ingest_arrays

N, E = 30, 200


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, N, (2, E))
    x = rng.normal(size=(N, 5)).astype(np.float16)
    y = rng.integers(-1, 3, N)
    return {
        "src": src,
        "dst": dst,
        "x": x,
        "y": y,
        "splits": {"train": np.arange(9, -1, -1), "valid": np.arange(20, 30)},
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return ingest_arrays(tmp_path / "s", num_nodes=N, **_arrays())


def test_in_edges_of_every_node_come_back_sorted(store: Store) -> None:
    given = _arrays()
    graph = store.graph
    for v in range(N):
        expected = sorted(given["src"][given["dst"] == v])
        assert graph.indices[graph.indptr[v] : graph.indptr[v + 1]].tolist() == expected


def test_labels_splits_and_rows_come_back(store: Store) -> None:
    given = _arrays()
    labels = store.labels()
    assert labels is not None
    assert np.array_equal(labels, given["y"])
    assert store.split("train").tolist() == list(range(10))
    assert store.split("train").dtype == np.int64
    assert np.array_equal(store.table().read(np.arange(N)), given["x"])


def test_counts_describe_the_graph(store: Store) -> None:
    assert (store.num_nodes, store.num_edges, store.num_classes) == (N, E, 3)
    assert store.max_degree == np.bincount(_arrays()["dst"]).max()
    assert (store.table_names, store.split_names) == (["x"], ["train", "valid"])
    assert (store.table_dtype(), store.table_columns(), store.row_bytes()) == ("F16", 5, 10)


def test_a_store_without_labels_says_none(tmp_path: Path) -> None:
    store = ingest_arrays(tmp_path, np.array([0]), np.array([1]), 2)
    assert (store.labels(), store.num_classes, store.table_names, store.split_names) == (None, 0, [], [])


@pytest.mark.parametrize(("nodes", "dtype"), [(0, "i4"), ((1 << 31) - 1, "i4"), (1 << 31, "i8")])
def test_ids_are_int32_below_two_to_the_31(nodes: int, dtype: str) -> None:
    assert id_dtype(nodes) == np.dtype(dtype)


def test_an_unknown_split_is_refused_with_the_choices(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-020.*'tset'; there are: train, valid"):
        store.split("tset")


def test_an_unknown_table_is_refused_with_the_choices(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-021.*'z'; there are: x"):
        store.row_bytes("z")


def test_opening_reads_only_the_manifest(store: Store) -> None:
    for path in ("graph/indices.bin", "tables/x.bin", "labels/y.bin"):
        (store.path / path).unlink()
    assert Store.open(store.path).num_edges == E


def _touch(store: Store) -> list[Callable[[], Any]]:
    return [lambda: store.graph, store.labels, lambda: store.split("train"), lambda: store.table().read(np.arange(N))]


@pytest.mark.parametrize(
    ("path", "touch"),
    [
        ("graph/indptr.bin", 0),
        ("graph/indices.bin", 0),
        ("labels/y.bin", 1),
        ("splits/train.bin", 2),
        ("tables/x.bin", 3),
    ],
)
def test_damage_is_named_at_first_touch(store: Store, path: str, touch: int) -> None:
    file = store.path / path
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for bad, code in ((flipped, "GS-STORE-004"), (good[:-1], "GS-STORE-003"), (good + b"\0", "GS-STORE-003")):
        file.write_bytes(bad)
        with pytest.raises(CorruptStoreError, match=rf"{code}.*{path}"):
            _touch(Store.open(store.path))[touch]()
        assert any(path in problem for problem in store.verify(deep=True))
    file.unlink()
    with pytest.raises(CorruptStoreError, match=rf"GS-STORE-002.*{path}"):
        _touch(Store.open(store.path))[touch]()


def test_files_swapped_between_equal_shapes_are_found(store: Store) -> None:
    train, valid = store.path / "splits/train.bin", store.path / "splits/valid.bin"
    one, two = train.read_bytes(), valid.read_bytes()
    train.write_bytes(two)
    valid.write_bytes(one)
    with pytest.raises(CorruptStoreError, match="GS-STORE-004"):
        store.split("train")


def test_a_good_store_has_no_problems(store: Store) -> None:
    assert store.verify() == store.verify(deep=True) == []


def test_a_store_is_readable_with_numpy_and_json_alone(store: Store) -> None:
    manifest = json.loads((store.path / "manifest.json").read_text())
    x = next(f for f in manifest["files"] if f["path"] == "tables/x.bin")
    rows = np.fromfile(store.path / "tables/x.bin", dtype="<f2").reshape(x["shape"])
    assert np.array_equal(rows, _arrays()["x"])


def _rewritten(store: Store, path: str, change: Callable[[np.ndarray], Any]) -> Store:
    """A store whose numbers make no sense although every checksum is right."""
    manifest = read_manifest(store.path, FORMAT, VERSION)
    entry = manifest.entry(path)
    array = np.fromfile(store.path / path, dtype={"I64": "<i8", "I32": "<i4"}[entry.dtype])
    change(array)
    array.tofile(store.path / path)
    new = array_entry(path, array, entry.role)
    return _with_entry(store, manifest, new)


def _with_entry(store: Store, manifest: Manifest, new: FileEntry) -> Store:
    files = tuple(new if f.path == new.path else f for f in manifest.files)
    write_manifest(store.path, Manifest(**{**manifest.__dict__, "files": files}))
    return Store.open(store.path)


def _set(index: int, value: int) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[index] = value

    return change


@pytest.mark.parametrize(
    ("path", "change", "problem"),
    [
        ("graph/indptr.bin", _set(0, 1), "runs from 1 to 200"),
        ("graph/indptr.bin", _set(-1, 199), "runs from 0 to 199"),
        ("graph/indptr.bin", _set(5, 190), "decreases after node 5"),
        ("graph/indices.bin", _set(7, N), "edge 7 comes from node 30"),
        ("graph/indices.bin", _set(0, -1), "edge 0 comes from node -1"),
        ("graph/indices.bin", lambda a: a.__setitem__(slice(None), a[::-1].copy()), "not ascending"),
        ("labels/y.bin", _set(4, 3), "node 4 has label 3"),
        ("labels/y.bin", _set(4, -2), "node 4 has label -2"),
        ("splits/train.bin", _set(0, 5), "not ascending"),
        ("splits/train.bin", _set(-1, 25), "node 25 is in another"),
        ("splits/valid.bin", _set(-1, 30), "not ascending within"),
    ],
)
def test_numbers_that_make_no_sense_are_found(
    store: Store, path: str, change: Callable[[np.ndarray], None], problem: str
) -> None:
    problems = " ".join(_rewritten(store, path, change).verify(deep=True))
    assert re.search(problem, problems)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_edges_are_checked_across_blocks(store: Store, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnsys.storage.store_checks._BLOCK", block)
    assert store.verify(deep=True) == []
    swapped = _rewritten(store, "graph/indices.bin", lambda a: a.__setitem__(slice(None), a[::-1].copy()))
    assert "not ascending" in " ".join(swapped.verify(deep=True))


@pytest.mark.parametrize("counts", [{"nodes": N + 1}, {"edges": E - 1}, {"splits": ["gone"]}, {"nodes": "many"}])
def test_counts_that_contradict_the_files_are_refused(store: Store, counts: dict[str, Any]) -> None:
    manifest = read_manifest(store.path, FORMAT, VERSION)
    write_manifest(store.path, Manifest(**{**manifest.__dict__, "counts": {**manifest.counts, **counts}}))
    with pytest.raises(CorruptStoreError, match="GS-STORE-001"):
        Store.open(store.path)


def test_a_manifest_without_counts_is_refused(store: Store) -> None:
    manifest = read_manifest(store.path, FORMAT, VERSION)
    write_manifest(store.path, Manifest(**{**manifest.__dict__, "counts": {}}))
    with pytest.raises(CorruptStoreError, match="GS-STORE-001"):
        Store.open(store.path)


def test_a_folder_without_a_store_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="no store there"):
        Store.open(tmp_path)


def test_every_problem_with_a_store_is_a_gnnsys_error(store: Store) -> None:
    (store.path / "manifest.json").write_text("{}")
    with pytest.raises(GnnsysError):
        Store.open(store.path)


def test_nodes_shared_by_two_splits_of_one_version_are_found(tmp_path: Path) -> None:
    versions = {"train.0": [1, 2], "train.1": [2, 3], "valid.0": [2, 5], "valid.1": [1, 6]}
    made = ingest_arrays(tmp_path / "s", np.array([0]), np.array([1]), N)
    files = [*made.manifest.files]
    files += [write_array(made.path, split_path(n), np.array(v, dtype=np.int32), "split") for n, v in versions.items()]
    counts = {**made.manifest.counts, "splits": list(versions)}
    write_manifest(made.path, Manifest(**{**made.manifest.__dict__, "files": tuple(files), "counts": counts}))
    (problem,) = Store.open(made.path).verify()
    assert "valid.0.bin: node 2 is in another split too" in problem


def test_labels_of_a_type_that_the_format_does_not_know_are_refused(store: Store) -> None:
    manifest = read_manifest(store.path, FORMAT, VERSION)
    with pytest.raises(CorruptStoreError, match="has dtype U64"):
        _with_entry(store, manifest, FileEntry(**{**manifest.entry("labels/y.bin").__dict__, "dtype": "U64"}))
