"""Training on a Store whose edges have weights: drawn by them where that is asked for, and said where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.batch import Block
from gnnsys.budget import Budget
from gnnsys.errors import ConfigError
from gnnsys.samplers.batches import SeedBatch
from gnnsys.samplers.draws import Weighted
from gnnsys.samplers.tree import TreeSampler
from gnnsys.training.inference import infer
from gnnsys.training.run import train_from_config

NODES, CLASSES = 120, 3
OPTIONS: dict[str, Any] = {"hidden": 8, "epochs": 2, "dropout": 0.0, "threads": 1, "fanouts": [3], "batch_size": 40}
UNUSED = "GS-CFG-975.*change nothing here"


def source(**more: Any) -> gs.ArraySource:
    rng = np.random.default_rng(0)
    splits = {"train": np.arange(80), "valid": np.arange(80, 100), "test": np.arange(100, NODES)}
    x, y = rng.normal(size=(NODES, 5)).astype(np.float32), rng.integers(0, CLASSES, NODES)
    return gs.ArraySource(rng.integers(0, NODES, (2, 2000)), x=x, y=y, splits=splits, **more)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    weights = np.random.default_rng(1).exponential(size=2000)
    return gs.ingest(source(edge_weight=weights), tmp_path_factory.mktemp("weighted") / "store")


def test_neighbours_are_drawn_as_a_loader_with_these_weights_draws_them(store: gs.Store, tmp_path: Path) -> None:
    by_name = train_from_config(store.path, {**OPTIONS, "weighted": True}, tmp_path / "name")
    sizes = {"in_channels": 5, "hidden_channels": 8, "num_layers": 1, "out_channels": CLASSES}
    with gs.Loader(store, fanouts=[3], batch_size=40, weights=store.edge_weights()) as loader:
        options = {"epochs": 2, "threads": 1}
        model, task = gs.build("sage", **sizes, dropout=0.0, seed=0), gs.NodeClassification(CLASSES)
        own = gs.train(model, loader, task=task, out=tmp_path / "own", **options)
    assert by_name.result["weights_digest"] == own.result["weights_digest"]
    with pytest.warns(RuntimeWarning, match=UNUSED):
        uniform = train_from_config(store.path, OPTIONS, tmp_path / "uniform")
    assert uniform.result["weights_digest"] != by_name.result["weights_digest"]


def test_a_pack_drawn_uniformly_says_that_weights_change_nothing(store: gs.Store, tmp_path: Path) -> None:
    options = {"hidden": 8, "epochs": 1}
    drawn = {"fanouts": [3], "batch_size": 40, "memory": "64MiB"}
    uniform = gs.pack(store, tmp_path / "uniform", **drawn)
    weighted = gs.pack(store, tmp_path / "weighted", weights=store.edge_weights(), **drawn)
    with pytest.warns(RuntimeWarning, match=UNUSED):
        train_from_config(uniform.path, options, tmp_path / "run1")
    train_from_config(weighted.path, options, tmp_path / "run2")  # a warning would be an error
    with pytest.raises(ConfigError, match=r"GS-CFG-508.*sampled already"):
        train_from_config(weighted.path, {**options, "weighted": True}, tmp_path / "run3")


def test_weights_that_are_not_there_or_mean_nothing_are_refused(store: gs.Store, tmp_path: Path) -> None:
    plain = gs.ingest(source(), tmp_path / "plain")
    with pytest.raises(ConfigError, match="GS-CFG-973"):
        train_from_config(plain.path, {**OPTIONS, "weighted": True}, tmp_path / "run1")
    with pytest.raises(ConfigError, match=r"GS-CFG-832.*weighted"):
        train_from_config(store.path, {"chunks": 2, "weighted": True}, tmp_path / "run2")
    with gs.Loader(store, fanouts=[3], batch_size=40) as loader, pytest.raises(ConfigError, match="GS-CFG-508"):
        model, task = (
            gs.build("mlp", in_channels=5, hidden_channels=8, num_layers=1, out_channels=3),
            gs.NodeClassification(3),
        )
        gs.train(model, loader, task=task, out=tmp_path / "run3", weighted=True)


@pytest.mark.parametrize("name", ["sage", "gcn", "gat"])
@pytest.mark.parametrize("memory", [1 << 28, (4 << 20) + (24 << 10)])
def test_what_is_drawn_for_a_node_depends_on_no_other_node(
    store: gs.Store, tmp_path: Path, name: str, memory: int
) -> None:
    """Against every node alone in every layer, drawn by a sampler of one hop."""
    model = gs.build(name, in_channels=5, hidden_channels=8, num_layers=2, out_channels=CLASSES, seed=0).eval()
    weights, fanouts, seed = store.edge_weights(), [2, 3], 7
    options = {"fanouts": fanouts, "scratch": tmp_path, "seed": seed, "weights": weights}
    assert weights is not None
    h = torch.from_numpy(store.table("x").read(np.arange(NODES)))
    for number, (layer, fanout) in enumerate(zip(model.layers, fanouts[::-1], strict=True)):  # type: ignore[arg-type]
        sampler = TreeSampler(store.graph, [fanout], seed=seed, pool_index=number, draw=Weighted(weights))
        alone = []
        for node in range(NODES):
            drawn = sampler.sample(SeedBatch(index=0, ids=np.array([node])))
            arrays = {what: torch.from_numpy(getattr(drawn, what)) for what in ("indptr", "indices", "degree")}
            alone.append(layer(h[drawn.ids], Block(**arrays)).detach())
        h = torch.cat(alone)
    for nodes in (np.arange(NODES), np.array([5]), np.array([90, 3, 90])):
        found = infer(model, store, nodes=nodes, budget=Budget(memory), **options)
        assert found.how == "sampled"
        torch.testing.assert_close(torch.from_numpy(np.array(found.outputs)), h[nodes])


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    """Neighbours tell the class; ten times as many edges of weight 0 say anything."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, NODES)
    src, dst = rng.integers(0, NODES, (2, 3000))
    kept = y[src] == y[dst]
    noise = rng.integers(0, NODES, (2, 10 * int(kept.sum())))
    weight = np.concatenate([np.ones(int(kept.sum())), np.zeros(noise.shape[1])])
    x = (rng.normal(size=(NODES, 5)) + 2 * np.eye(CLASSES, 5)[y]).astype(np.float32)
    splits = {"train": np.arange(80), "valid": np.arange(80, 100), "test": np.arange(100, NODES)}
    edges = (np.concatenate([src[kept], noise[0]]), np.concatenate([dst[kept], noise[1]]))
    source = gs.ArraySource(edges, x=x, y=y, splits=splits, edge_weight=weight)
    return gs.ingest(source, tmp_path_factory.mktemp("noisy") / "store")


@pytest.mark.parametrize("how", ["store", "pack", "loader"])
def test_scores_are_of_neighbours_drawn_as_in_training(noisy: gs.Store, tmp_path: Path, how: str) -> None:
    weights, drawn = noisy.edge_weights(), {"fanouts": [-1], "batch_size": 40}
    options = {"epochs": 20, "lr": 0.02, "threads": 1}
    source: Any = noisy
    if how == "pack":
        source = gs.pack(noisy, tmp_path / "pack", weights=weights, memory="64MiB", **drawn)
    elif how == "loader":
        source = gs.Loader(noisy, weights=weights, **drawn)
    else:
        options |= {"weighted": True, **drawn}
    model = gs.build("sage", in_channels=5, hidden_channels=8, num_layers=1, out_channels=CLASSES, seed=0)
    run = gs.train(model, source, task=gs.NodeClassification(CLASSES), out=tmp_path / "run", **options)
    if how == "loader":
        source.close()
    assert run.result["evaluation"] == "sampled"
    assert run.metrics["test"]["acc"] > 0.95
    again = gs.Run.open(run.path)
    assert again.evaluate("test")["metrics"] == run.metrics["test"]
    again.predict(tmp_path / "p.npy", split="test")
    labels = noisy.labels()
    assert labels is not None
    assert np.mean(np.load(tmp_path / "p.npy") == labels[noisy.split("test")]) == pytest.approx(
        run.metrics["test"]["acc"]
    )
