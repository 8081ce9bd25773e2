"""Label propagation: PyG's numbers, and the same ones whatever memory and threads there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.budget import peak_growth
from gnnsys.errors import ConfigError, MemoryBudgetError
from gnnsys.training.memory import OVERHEAD_BYTES, trim
from tests.graphs import ingest_arrays

N, CLASSES = 300, 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    """Directed, with loops, parallel edges, nodes that nothing reaches, and nodes without a label."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, N, 1500), rng.integers(0, N - 20, 1500)
    y = rng.integers(-1, CLASSES, N)
    order = rng.permutation(N)
    splits = {"train": order[:60], "valid": order[60:100], "test": order[100:]}
    return ingest_arrays(tmp_path_factory.mktemp("lp") / "store", src, dst, N, y=y, splits=splits)


def of_pyg(store: gs.Store, layers: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, C) of torch_geometric, and whether the first class is ahead by more than rounding (N,)."""
    models = pytest.importorskip("torch_geometric.nn.models")
    graph, labels = store.graph, store.labels()
    assert labels is not None
    dst = np.repeat(np.arange(store.num_nodes), np.diff(graph.indptr))
    edges = torch.from_numpy(np.stack([np.asarray(graph.indices, dtype=np.int64), dst]))
    train = store.split("train")
    mask = torch.zeros(store.num_nodes, dtype=torch.bool)
    mask[train[labels[train] >= 0]] = True
    y = torch.from_numpy(np.maximum(labels, 0))
    one_hot = torch.nn.functional.one_hot(y, store.num_classes).float()
    scores = models.LabelPropagation(layers, alpha)(one_hot, edges, mask=mask).numpy()
    highest = np.sort(scores, axis=1)
    return scores, (highest[:, -1] == 0) | (highest[:, -1] - highest[:, -2] > 1e-6)


@pytest.mark.parametrize(("layers", "alpha"), [(1, 0.5), (3, 0.9), (50, 0.99), (4, 1.0), (2, 0.0)])
def test_classes_and_accuracies_are_those_of_pyg(store: gs.Store, layers: int, alpha: float) -> None:
    scores, clear = of_pyg(store, layers, alpha)
    found = gs.label_propagation(store, layers=layers, alpha=alpha)
    assert clear.mean() > 0.5
    assert np.array_equal(found.classes[clear], scores.argmax(axis=1)[clear])
    labels = store.labels()
    assert labels is not None
    for split, metrics in found.metrics.items():
        ids = [node for node in store.split(split) if labels[node] >= 0]
        assert metrics["acc"] == np.mean([found.classes[node] == labels[node] for node in ids])


def test_labels_of_other_splits_are_not_seen(store: gs.Store, tmp_path: Path) -> None:
    graph, labels = store.graph, np.array(store.labels())
    hidden = np.setdiff1d(np.arange(N), store.split("train"))
    labels[hidden] = (labels[hidden] + 1) % CLASSES
    dst = np.repeat(np.arange(N), np.diff(graph.indptr))
    splits = {name: store.split(name) for name in store.split_names}
    other = ingest_arrays(tmp_path / "other", np.array(graph.indices), dst, N, y=labels, splits=splits)
    assert np.array_equal(gs.label_propagation(other).classes, gs.label_propagation(store).classes)


def test_neither_memory_nor_threads_change_a_class(store: gs.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for one class, for two and for all; pieces of some dozen nodes."""
    monkeypatch.setattr("gnnsys.training.label_propagation._PIECE", 37)
    whole = gs.label_propagation(store, layers=5, workers=1)
    for classes, passes in ((1, 7), (2, 4), (3, 3), (CLASSES, 1)):
        told = mock.Mock()
        memory = OVERHEAD_BYTES + (26 + 8 * classes) * N
        part = gs.label_propagation(store, layers=5, memory=memory, workers=3, progress=told)
        assert np.array_equal(part.classes, whole.classes)
        assert told.mock_calls == [mock.call("propagate", k, 5 * passes) for k in range(1, 5 * passes + 1)]
    with pytest.raises(MemoryBudgetError, match="scores of one class"):
        gs.label_propagation(store, memory=OVERHEAD_BYTES + 33 * N)


def test_it_grows_by_no_more_than_it_was_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes, classes = 400_000, 5
    y = rng.integers(0, classes, nodes)
    splits = {"train": np.arange(0, nodes, 2), "test": np.arange(1, nodes, 2)}
    src, dst = rng.integers(0, nodes, (2, 800_000))
    graph = ingest_arrays(tmp_path / "store", src, dst, nodes, y=y, splits=splits)
    memory = OVERHEAD_BYTES + (26 + 2 * 8) * nodes
    gs.label_propagation(graph, layers=1, memory=memory)  # code that runs for the first time is no growth
    trim()
    assert peak_growth(lambda: gs.label_propagation(graph, layers=2, memory=memory)) <= memory


@pytest.mark.parametrize("options", [{"layers": 0}, {"alpha": 1.1}, {"alpha": float("nan")}])
def test_numbers_out_of_range_are_refused(store: gs.Store, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        gs.label_propagation(store, **options)
    assert caught.value.code == "GS-CFG-955"


def test_cora_is_learned_from_edges_alone(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    store = gs.ingest(f"npz:{data_file('static/planetoid-cora/cora.npz')}", tmp_path / "cora")
    found = gs.label_propagation(store)
    scores, clear = of_pyg(store, 50, 0.9)
    assert np.array_equal(found.classes[clear], scores.argmax(axis=1)[clear])
    assert found.metrics["test"]["acc"] > 0.65
