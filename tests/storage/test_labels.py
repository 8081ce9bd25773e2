"""Label matrices: from the source into Store, Pool, Packs and batches of every layout, and refused where they are not
what their kind says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.storage.labels import known, labels_where
from tests.graphs import ingest_arrays

N, T = 60, 3


def matrix(kind: str = "multilabel") -> np.ndarray:
    """A third of the values unknown, and every value of nodes 7 and 8."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (N, T)) if kind == "multilabel" else rng.normal(size=(N, T))
    out = np.where(rng.random((N, T)) < 0.3, np.nan, values)
    out[7:9] = np.nan
    return out


def make(folder: Path, y: np.ndarray, **options: Any) -> gs.Store:
    rng = np.random.default_rng(1)
    splits = {"train": np.arange(0, N, 2), "valid": np.arange(1, N, 2)}
    x = rng.normal(size=(N, 4)).astype(np.float32)
    return ingest_arrays(folder, *rng.integers(0, N, (2, 300)), N, x=x, y=y, splits=splits, **options)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_a_matrix_comes_back_as_float32_with_its_kind(tmp_path: Path, kind: str) -> None:
    store = make(tmp_path, matrix(kind), label_kind=kind)
    assert (store.label_kind, store.num_outputs, store.num_classes) == (kind, T, 0)
    labels = store.labels()
    assert labels is not None
    assert labels.dtype == np.float32
    assert np.array_equal(labels, matrix(kind).astype(np.float32), equal_nan=True)
    assert store.verify(deep=True) == []


def test_several_columns_are_multilabel_unless_told_otherwise(tmp_path: Path) -> None:
    assert make(tmp_path, matrix()).label_kind == "multilabel"


def test_one_column_may_be_a_matrix_too(tmp_path: Path) -> None:
    store = make(tmp_path, matrix("regression")[:, :1], label_kind="regression")
    labels = store.labels()
    assert labels is not None
    assert labels.shape == (N, 1)


@pytest.mark.parametrize("dtype", ["i1", ">i8", "f2", "f8", "?"])
def test_yes_or_no_answers_of_any_number_type_are_read(tmp_path: Path, dtype: str) -> None:
    y = np.nan_to_num(matrix()).astype(dtype)
    labels = make(tmp_path, y).labels()
    assert np.array_equal(labels, y.astype(np.float32))


def test_minus_one_is_unlabelled_in_integers(tmp_path: Path) -> None:
    y = np.nan_to_num(matrix(), nan=-1).astype(np.int64)
    labels = make(tmp_path, y).labels()
    assert np.array_equal(labels, matrix().astype(np.float32), equal_nan=True)


def test_a_class_column_has_the_id_it_had_whether_its_kind_is_said_or_not(tmp_path: Path) -> None:
    y = np.arange(N) % 3
    made = [make(tmp_path / str(kind), y, label_kind=kind) for kind in (None, "class")]
    assert made[0].digest == made[1].digest
    assert "labels" not in made[0].manifest.counts
    assert made[0].label_kind == "class"


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (2.0, None, "node 31 has label 2.0 in column 1, expected 0, 1"),
        (np.inf, "regression", "node 31 has label inf in column 1, expected a finite"),
        (1e39, "regression", "in column 1, expected a finite float32"),
    ],
)
def test_a_value_that_the_kind_does_not_have_is_named(tmp_path: Path, value: float, kind: Any, message: str) -> None:
    y = matrix()
    y[31, 1] = value
    with pytest.raises(InputDataError, match=f"GS-IN-150: .*{message}"):
        make(tmp_path, y, label_kind=kind)


def test_numbers_given_as_classes_are_refused_with_the_word_for_them(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"(?s)GS-IN-131.*--label-kind regression"):
        make(tmp_path, matrix("regression")[:, 0])


def test_several_columns_cannot_be_classes(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-132: labels: 3 columns"):
        make(tmp_path, matrix(), label_kind="class")


def test_an_unknown_kind_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-901.*multilabel"):
        make(tmp_path, matrix(), label_kind="multi-label")


def test_a_split_without_any_known_value_is_refused(tmp_path: Path) -> None:
    y = matrix()
    y[1::2] = np.nan
    with pytest.raises(InputDataError, match="GS-IN-144: no node of split valid"):
        make(tmp_path, y)


def test_splits_per_class_need_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-102.*3 columns"):
        make(tmp_path, matrix(), split="per-class:2/2")


def test_bytes_of_a_matrix_do_not_depend_on_memory_or_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnsys.ingestion.build.MIN_MEMORY", 1)
    options = [(2000, 1), (8000, 3), ("4GiB", 2)]
    made = [make(tmp_path / str(m), matrix(), memory=m, workers=w) for m, w in options]
    assert len({store.digest for store in made}) == 1


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize("layout", ["packed", "direct", "pre-aggregated", "pool", "store"])
def test_every_layout_delivers_the_labels_of_the_seeds(tmp_path: Path, kind: str, layout: str) -> None:
    store = make(tmp_path / "store", matrix(kind), label_kind=kind)
    options: dict[str, Any] = {"seeds": "train", "fanouts": [3, 2], "batch_size": 7}
    if layout == "store":
        loader = gs.Loader(store, **options)
    elif layout == "pool":
        loader = gs.Loader(gs.sample(store, tmp_path / "pool", **options))
    else:
        aggregate = "mean" if layout == "pre-aggregated" else None
        loader = gs.Loader(gs.pack(store, tmp_path / "pack", layout=layout, aggregate=aggregate, **options))
    seen = []
    with loader:
        for batch in loader:
            assert batch.y is not None
            expected = matrix(kind).astype(np.float32)[batch.seeds.numpy()]
            assert np.array_equal(batch.y.numpy(), expected, equal_nan=True)
            seen += batch.seeds.tolist()
    assert sorted(seen) == list(range(0, N, 2))


def test_a_pool_of_classes_does_not_mention_columns(tmp_path: Path) -> None:
    store = make(tmp_path / "store", np.arange(N) % 3)
    pool = gs.sample(store, tmp_path / "pool", seeds="train", fanouts=[2])
    assert "label_columns" not in pool.manifest.counts


def test_a_pool_that_claims_other_columns_is_refused(tmp_path: Path) -> None:
    gs.sample(make(tmp_path / "store", matrix()), tmp_path / "pool", seeds="train", fanouts=[2])
    file = tmp_path / "pool" / "manifest.json"
    content = json.loads(file.read_text())
    content["counts"]["label_columns"] = 2
    file.write_text(json.dumps(content))
    with pytest.raises(CorruptStoreError):
        gs.Pool.open(tmp_path / "pool")


def test_a_flipped_value_is_found(tmp_path: Path) -> None:
    store = make(tmp_path, matrix())
    path = tmp_path / "labels" / "y.bin"
    data = bytearray(path.read_bytes())
    data[5] ^= 64
    path.write_bytes(data)
    assert any("y.bin" in problem for problem in store.verify(deep=True))
    with pytest.raises(CorruptStoreError, match=r"y\.bin"):
        gs.Store.open(tmp_path).labels()


def test_known_nodes_have_any_value_and_hidden_ones_none() -> None:
    classes, values = np.array([1, -1, 0]), np.array([[np.nan, 1], [np.nan, np.nan], [0, 1]], dtype=np.float32)
    assert known(classes).tolist() == known(values).tolist() == [True, False, True]
    shown, nodes = np.array([True, False]), np.array([2, 0])
    assert labels_where(classes, nodes, shown).tolist() == [0, -1]
    assert np.array_equal(labels_where(values, nodes, shown), [[0, 1], [np.nan, np.nan]], equal_nan=True)
