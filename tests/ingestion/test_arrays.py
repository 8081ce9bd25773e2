"""ArraySource: the same Store from arrays, tensors, mapped files and functions that yield blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.errors import InputDataError
from gnnsys.storage.store import Store

N, F = 300, 5
RNG = np.random.default_rng(0)
EDGES = RNG.integers(0, N, (2, 900))
X = RNG.standard_normal((N, F)).astype(np.float32)
Y = RNG.integers(0, 3, N)
TRAIN = np.sort(RNG.permutation(N)[:40])


def contents(store: Store) -> dict[str, str]:
    """Digests by file; those of checksums depend on what the Store was made from."""
    return {entry.path: entry.digest for entry in store.manifest.files if entry.path.endswith(".bin")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    source = gs.ArraySource(EDGES, x=X, y=Y, splits={"train": TRAIN})
    store = gs.ingest(source, tmp_path_factory.mktemp("expected") / "store")
    assert np.array_equal(store.table().read(np.arange(N)), X)
    return contents(store)


def mapped(folder: Path, array: np.ndarray) -> np.ndarray:
    np.save(folder / "array.npy", array)
    return np.load(folder / "array.npy", mmap_mode="r")


@pytest.mark.parametrize("how", ["tensors", "a mapped file", "a pair", "a mask", "blocks", "blocks of tensors"])
def test_whatever_holds_the_values_the_store_is_the_same(how: str, tmp_path: Path, expected: dict[str, str]) -> None:
    mask = np.isin(np.arange(N), TRAIN)
    given: dict[str, Any] = {"edge_index": EDGES, "x": X, "y": Y, "splits": {"train": TRAIN}}
    given |= {
        "tensors": {"edge_index": torch.from_numpy(EDGES), "x": torch.from_numpy(X), "y": torch.from_numpy(Y)},
        "a mapped file": {"x": mapped(tmp_path, X)},
        "a pair": {"edge_index": (EDGES[0].astype(np.int32), EDGES[1].tolist())},
        "a mask": {"splits": {"train": torch.from_numpy(mask)}},
        "blocks": {"x": lambda: (X[a : a + 7] for a in range(0, N, 7))},
        "blocks of tensors": {"x": lambda: map(torch.from_numpy, np.split(X, [0, 1, 250]))},
    }[how]
    assert contents(gs.ingest(gs.ArraySource(**given), tmp_path / "store")) == expected


@pytest.mark.usefixtures("tiny")
def test_blocks_continue_where_a_kill_left_them(tmp_path: Path, expected: dict[str, str]) -> None:
    calls = []

    def blocks() -> Iterator[np.ndarray]:
        calls.append(len(calls))
        for start in range(0, N, 7):
            if len(calls) == 2 and start > 200:
                raise KeyboardInterrupt
            yield X[start : start + 7]

    def source() -> gs.ArraySource:
        return gs.ArraySource(EDGES, N, x=blocks, y=Y, splits={"train": TRAIN})

    begun = source()
    calls.clear()
    calls.append(0)
    with pytest.raises(KeyboardInterrupt):
        gs.ingest(begun, tmp_path / "store")
    assert contents(gs.ingest(source(), tmp_path / "store")) == expected


def test_how_blocks_are_cut_is_no_other_input(tmp_path: Path) -> None:
    cuts = [lambda step=step: (X[a : a + step] for a in range(0, N, step)) for step in (1, 64, N)]
    assert len({gs.ingest(gs.ArraySource(EDGES, x=cut), tmp_path / str(i)).id for i, cut in enumerate(cuts)}) == 1


def test_blocks_that_change_are_noticed(tmp_path: Path) -> None:
    count = iter(range(9))
    source = gs.ArraySource(EDGES, x=lambda: [X + next(count)])
    with pytest.raises(InputDataError, match=r"GS-IN-171.*other rows when it is called again"):
        gs.ingest(source, tmp_path / "store")
    lengths = iter([N, N - 1])
    with pytest.raises(InputDataError, match="GS-IN-171"):
        gs.ingest(gs.ArraySource(EDGES, x=lambda: [X[: next(lengths)]]), tmp_path / "other")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"edge_index": EDGES[0]}, "GS-IN-104"),
        ({"edge_index": EDGES[:, :0].T}, "GS-IN-104"),
        ({"edge_index": (EDGES[0], EDGES[1][:5])}, "GS-IN-104"),
        ({"edge_index": EDGES.astype(float)}, "GS-IN-104"),
        ({"x": X[:, 0]}, "GS-IN-123"),
        ({"x": iter([X])}, "GS-IN-172"),
        ({"x": list}, "GS-IN-170"),
        ({"x": lambda: [X[0]]}, "GS-IN-170"),
        ({"x": lambda: [X, X[:, :2]]}, "GS-IN-170"),
        ({"x": lambda: [X, X.astype(np.float64)]}, "GS-IN-170"),
        ({"splits": {"train": np.zeros(N - 1, dtype=bool)}}, "GS-IN-173"),
        ({"splits": {"train": 3}}, "GS-IN-147"),
        ({"splits": {"train": None}}, "GS-IN-147"),
        ({"splits": 5}, "GS-IN-178: splits is a int"),
        ({"splits": [TRAIN]}, "GS-IN-178"),
        ({"splits": TRAIN}, "GS-IN-178"),
        ({"x": lambda: [X[1:]]}, f"GS-IN-122: x has {N - 1} rows, num_nodes is {N}"),
        ({"x": lambda: [X[1:]], "y": Y, "num_nodes": None}, f"GS-IN-122: y has {N} rows, x has {N - 1}"),
        ({"y": np.array([None] * N)}, "GS-IN-111"),
        ({"y": np.array(3)}, "GS-IN-176"),
        ({"num_nodes": 2.5}, "GS-IN-176"),
        ({"num_nodes": -1}, "GS-IN-176"),
        ({"edge_index": None}, "GS-IN-104"),
        ({"x": [[1.0], [1.0, 2.0]]}, "GS-IN-176"),
        ({"x": torch.eye(3).to_sparse()}, "GS-IN-176"),
        ({"x": lambda: None}, "GS-IN-170"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(given: dict[str, Any], code: str) -> None:
    with pytest.raises(InputDataError, match=code):
        gs.ArraySource(**{"edge_index": EDGES, "num_nodes": N, **given})


def test_too_few_rows_are_not_blamed_on_an_edge_alone(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"(?s)GS-IN-102.*that of the rows \(x\)"):
        gs.ingest(gs.ArraySource(EDGES, x=lambda: [X[:9]]), tmp_path / "store")


def test_a_name_of_a_split_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-146: split 5"):
        gs.ingest(gs.ArraySource(EDGES, N, splits={5: TRAIN}), tmp_path / "store")


def test_blocks_that_change_where_no_row_is_kept_are_noticed(tmp_path: Path) -> None:
    """The largest component is the first nodes; the others are isolated."""
    ring, made = (np.arange(20), np.roll(np.arange(20), 1)), iter(range(9))

    def changing() -> Iterator[np.ndarray]:
        yield X[:100]
        yield X[100:] + next(made)

    kept = gs.ingest(gs.ArraySource(ring, x=lambda: [X]), tmp_path / "kept", largest_component=True)
    assert np.array_equal(kept.table().read(np.arange(20)), X[:20])
    with pytest.raises(InputDataError, match="GS-IN-171"):
        gs.ingest(gs.ArraySource(ring, x=changing), tmp_path / "store", largest_component=True)
