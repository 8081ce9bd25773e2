"""Rows and labels: bit for bit as given, in any layout and block size; bad values named."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError, InputDataError
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays
from tests.ingestion.ogb_folders import NODES, papers

pytestmark = pytest.mark.usefixtures("tiny")

N, F = 60, 5
NONE = np.empty(0, dtype=np.int64)


def _ingest(folder: Path, x: Any = None, y: Any = None, **options: Any) -> Store:
    return ingest_arrays(folder, NONE, NONE, x=x, y=y, **{"memory": 4000, **options})


def _stored(store: Store) -> np.ndarray:
    return store.table().read(np.arange(store.num_nodes))


def _rows(dtype: str = "f4") -> np.ndarray:
    return (np.random.default_rng(0).random((N, F)) * 100).astype(dtype)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i1"])
def test_rows_keep_their_type_and_bits(tmp_path: Path, dtype: str) -> None:
    stored = _stored(_ingest(tmp_path, _rows(dtype)))
    assert stored.dtype == np.dtype(dtype)
    assert stored.tobytes() == _rows(dtype).tobytes()


@pytest.mark.parametrize("columns", [0, 1, 3, 1025])
def test_rows_of_any_width(tmp_path: Path, columns: int) -> None:
    x = np.random.default_rng(0).normal(size=(N, columns)).astype(np.float32)
    store = _ingest(tmp_path, x)
    assert store.table_columns() == columns
    assert (store.path / "tables/x.bin").read_bytes() == x.tobytes()


def test_negative_zero_and_subnormals_survive(tmp_path: Path) -> None:
    x = np.array([[-0.0, 1e-45, -1e-45, 3.4e38]], dtype=np.float32)
    assert _stored(_ingest(tmp_path, x)).tobytes() == x.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(">f4"),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1][::-1],
    ],
    ids=["big-endian", "fortran", "strided", "reversed twice"],
)
def test_arrays_of_any_layout_are_stored_alike(tmp_path: Path, change: Any) -> None:
    x = change(_rows())
    x.flags.writeable = False
    assert (_ingest(tmp_path, x).path / "tables/x.bin").read_bytes() == _rows().tobytes()


def test_booleans_become_bytes(tmp_path: Path) -> None:
    x = _rows() > 50
    assert np.array_equal(_stored(_ingest(tmp_path, x)), x.astype(np.uint8))


@pytest.mark.parametrize("dtype", ["i8", "i4", "u2", "c8"])
def test_types_that_are_not_stored_are_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-121.*expected float16, float32"):
        _ingest(tmp_path, _rows(dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_bad_values_are_counted_and_the_first_row_named(tmp_path: Path, value: float, dtype: str) -> None:
    x = _rows(dtype)
    x[[17, 17, 44], [0, 3, 1]] = value
    with pytest.raises(InputDataError, match=r"GS-IN-120: table x: 2 rows hold .*the first is row 17"):
        _ingest(tmp_path, x)


def _function(folder: Path, x: np.ndarray) -> Any:
    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(x), 7):
            time.sleep(1e-3)  # long enough for another thread to come in
            yield x[start : start + 7]

    return gs.ArraySource((NONE, NONE), x=blocks)


def _archive(folder: Path, x: np.ndarray) -> Any:
    papers(folder / "ogbn_papers100M", x)
    return f"ogb:ogbn-papers100M:{folder}"


@pytest.mark.parametrize("source", [_function, _archive])
def test_the_first_bad_row_of_what_is_read_once_is_named(tmp_path: Path, source: Any) -> None:
    """By several threads and many times over: the thread that reads is somewhere else when a block is found bad."""
    x = np.ones((NODES, 64), dtype=np.float32)
    x[[17, 18, 44], [0, 3, 1]] = np.nan
    given = source(tmp_path, x)
    for attempt in range(20):
        with pytest.raises(InputDataError, match=r"GS-IN-120: table x: \d rows? of .* the first is row 17"):
            gs.ingest(given, tmp_path / str(attempt), memory=12_000, workers=3)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("memory", [500, "4GiB"])
def test_bad_values_become_zero_when_asked_to_and_their_rows_are_counted(
    tmp_path: Path, dtype: str, memory: Any
) -> None:
    x = _rows(dtype)
    x[[17, 17, 44, 59], [0, 3, 1, 4]] = [np.nan, np.inf, -np.inf, np.nan]
    store = _ingest(tmp_path, x, on_nan="zero", memory=memory)
    assert np.array_equal(_stored(store), np.where(np.isfinite(x), x, 0))
    assert store.manifest.counts["zeroed_rows"] == 3


def test_rows_are_normalised_after_bad_values_became_zero(tmp_path: Path) -> None:
    x = np.array([[np.nan, 1.0, 3.0]], dtype=np.float32)
    assert _stored(_ingest(tmp_path, x, on_nan="zero", normalize_features="row")).tolist() == [[0, 0.25, 0.75]]


@pytest.mark.parametrize("option", [{"normalize_features": "row"}, {"on_nan": "zero"}])
def test_changes_of_features_that_are_not_there_are_refused(tmp_path: Path, option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-109.*the source has no features"):
        _ingest(tmp_path, y=np.zeros(N, dtype=int), **option)


def test_sums_that_overflow_are_not_called_bad(tmp_path: Path) -> None:
    x = np.full((N, F), 3e38, dtype=np.float32)
    assert np.array_equal(_stored(_ingest(tmp_path, x)), x)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1"])
def test_normalised_rows_are_float32_and_sum_to_one(tmp_path: Path, dtype: str) -> None:
    x = _rows(dtype)
    x[9] = 0
    stored = _stored(_ingest(tmp_path, x, normalize_features="row"))
    total = x.astype(np.float64).sum(axis=1, keepdims=True)
    assert stored.dtype == np.float32
    # One division and one rounding to float32 after a sum of five doubles.
    assert np.allclose(stored, x / np.where(total == 0, 1, total), rtol=1e-6, atol=0)


@pytest.mark.parametrize("normalize", ["none", "row"])
def test_bytes_do_not_depend_on_memory_or_workers(tmp_path: Path, normalize: str) -> None:
    made = [
        _ingest(
            tmp_path / f"{memory}-{workers}", _rows("f8"), memory=memory, workers=workers, normalize_features=normalize
        )
        for memory in (500, 4000, "4GiB")
        for workers in (1, 3)
    ]
    assert len({store.digest for store in made}) == 1


def test_only_rows_of_the_largest_component_are_kept(tmp_path: Path) -> None:
    src, dst = np.array([10, 20, 50]), np.array([20, 50, 51])
    y = np.arange(N) % 4
    store = ingest_arrays(tmp_path, src, dst, x=_rows(), y=y, largest_component=True, memory=700)
    assert np.array_equal(_stored(store), _rows()[[10, 20, 50, 51]])
    assert np.array_equal(store.labels(), y[[10, 20, 50, 51]])


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", ">i4", "f4", "f8"])
def test_labels_of_any_number_type_become_int64(tmp_path: Path, dtype: str) -> None:
    y = (np.arange(N) % 7).astype(dtype)
    store = _ingest(tmp_path, y=y)
    assert np.array_equal(store.labels(), np.arange(N) % 7)
    assert store.num_classes == 7


def test_nan_in_float_labels_means_unlabelled(tmp_path: Path) -> None:
    y = np.array([0.0, np.nan, 2.0])
    labels = _ingest(tmp_path, y=y).labels()
    assert labels is not None
    assert labels.tolist() == [0, -1, 2]


@pytest.mark.parametrize(("label", "code"), [(-2, "GS-IN-130"), (1 << 40, "GS-IN-130"), (1.5, "GS-IN-131")])
def test_an_impossible_label_is_named(tmp_path: Path, label: float, code: str) -> None:
    y = np.zeros(N)
    y[33] = label
    with pytest.raises(InputDataError, match=f"{code}: node 33 has label"):
        _ingest(tmp_path, y=y)


def test_one_class_and_no_labelled_node_are_supported(tmp_path: Path) -> None:
    assert _ingest(tmp_path / "one", y=np.zeros(N, dtype=int)).num_classes == 1
    assert _ingest(tmp_path / "none", y=np.full(N, -1)).num_classes == 0


@pytest.mark.parametrize("y", [np.zeros((N, 0), dtype=int), np.full(N, "a"), np.zeros(N, dtype=complex)])
def test_labels_that_are_no_numbers_are_refused(tmp_path: Path, y: np.ndarray) -> None:
    with pytest.raises(InputDataError, match="GS-IN-132"):
        _ingest(tmp_path, y=y)


def test_rows_that_are_not_a_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-123"):
        _ingest(tmp_path, x=np.zeros((N, 2, 2)))
