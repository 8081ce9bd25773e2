"""Training on a GPU: the same twice, what the CPU computes but for rounding, and a run that either can go on from."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.errors import InterruptedWorkError
from gnnsys.models.registry import NAMES
from tests.graphs import ingest_arrays
from tests.training.conftest import StopAfter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NODES, COLUMNS, CLASSES = 400, 24, 4
Train = Callable[..., gs.Run]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    """Four communities that features and edges tell apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, NODES)
    src, dst = rng.integers(0, NODES, (2, 9000))
    kept = (y[src] == y[dst]) | (rng.random(9000) < 0.2)
    x = (rng.normal(size=(NODES, COLUMNS)) + np.eye(CLASSES, COLUMNS)[y]).astype(np.float32)
    order = rng.permutation(NODES)
    splits = {"train": order[:200], "valid": order[200:300], "test": order[300:]}
    return ingest_arrays(tmp_path_factory.mktemp("gpu") / "store", src[kept], dst[kept], NODES, x=x, y=y, splits=splits)


@pytest.fixture(scope="module")
def pack(store: gs.Store) -> gs.Pack:
    return gs.pack(store, store.path.parent / "pack", fanouts=[5, 4], batch_size=50, memory="64MiB", layout="packed")


@pytest.fixture
def train(tmp_path: Path, pack: gs.Pack) -> Train:
    """A network by name into a folder of this test; three epochs, lr 0.01."""

    def run(folder: str, name: str = "sage", *, dropout: float = 0.5, stop: Any = None, **options: Any) -> gs.Run:
        sizes = {"in_channels": COLUMNS, "hidden_channels": 16, "num_layers": 2, "out_channels": CLASSES}
        model = gs.build(name, **sizes, dropout=dropout, seed=3)
        task = gs.NodeClassification(CLASSES)
        options = {"epochs": 3, "lr": 0.01, "device": "cuda", **options}
        return gs.train(model, pack, task=task, out=tmp_path / folder, stop=stop, **options)

    return run


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_two_runs_have_the_same_weights(train: Train, name: str, precision: str) -> None:
    one, two = (train(folder, name, precision=precision) for folder in ("one", "two"))
    assert one.result["weights_digest"] == two.result["weights_digest"]


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_the_cpu(train: Train, name: str) -> None:
    here, there = (train(device, name, device=device, dropout=0.0) for device in ("cpu", "cuda"))
    assert there.result["losses"] == pytest.approx(here.result["losses"], rel=1e-3)
    assert there.result["weights_digest"] != here.result["weights_digest"]  # or it did not run there


@pytest.mark.parametrize("options", [{}, {"micro_batches": 2}, {"rows": "memory"}, {"rows": "direct"}])
def test_weights_do_not_depend_on_where_rows_come_from(train: Train, options: dict[str, Any]) -> None:
    plain = train("plain", micro_batches=options.get("micro_batches", 1))
    assert train("other", workers=1, prefetch=1, **options).result["weights_digest"] == plain.result["weights_digest"]


@pytest.mark.parametrize("looks", [2, 5])
def test_a_stopped_run_goes_on_to_the_same_weights(train: Train, looks: int) -> None:
    with pytest.raises(InterruptedWorkError):
        train("cut", stop=StopAfter(looks), checkpoint_steps=2)
    resumed, whole = train("cut", checkpoint_steps=2), train("whole", checkpoint_steps=2)
    assert resumed.result["resumed_from"].startswith("ckpt-")
    for key in ("weights_digest", "losses", "metrics", "steps"):
        assert resumed.result[key] == whole.result[key]


def test_a_run_is_evaluated_and_predicted_on_either_device(train: Train, tmp_path: Path) -> None:
    run = train("run")
    assert all(parameter.device.type == "cpu" for parameter in run.load_model().parameters())
    outputs = {}
    for device in ("cpu", "cuda"):
        found = run.evaluate("test", device=device)["metrics"]["acc"]
        assert found == pytest.approx(run.metrics["test"]["acc"], abs=0.011)  # a node of a hundred near a tie
        run.predict(tmp_path / f"{device}.csv", what="outputs", device=device)
        with (tmp_path / f"{device}.csv").open(newline="") as file:
            outputs[device] = np.array([row[1:] for row in csv.reader(file)][1:], dtype=float)
    np.testing.assert_allclose(outputs["cuda"], outputs["cpu"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", ["pre-aggregated", "direct"])
def test_other_layouts_train_there_too(store: gs.Store, train: Train, tmp_path: Path, layout: str) -> None:
    options = {"fanouts": [5, 4], "batch_size": 50, "memory": "64MiB", "layout": layout}
    made = gs.pack(store, tmp_path / "pack", aggregate="mean" if layout == "pre-aggregated" else None, **options)
    sizes = {"in_channels": COLUMNS, "hidden_channels": 16, "num_layers": 2, "out_channels": CLASSES}
    losses = {}
    for device in ("cpu", "cuda"):
        model, task = gs.build("sage", **sizes, seed=3), gs.NodeClassification(CLASSES)
        run = gs.train(model, made, task=task, out=tmp_path / device, epochs=2, lr=0.01, device=device)
        losses[device] = run.result["losses"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_chunks_of_the_whole_graph_train_there_too(store: gs.Store, tmp_path: Path) -> None:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 16, "num_layers": 4, "out_channels": CLASSES}
    losses = {}
    for device in ("cpu", "cuda"):
        model, task = gs.build("gcnii", **sizes, seed=3), gs.NodeClassification(CLASSES)
        run = gs.train(model, store, task=task, out=tmp_path / device, epochs=3, lr=0.01, device=device, chunks=4)
        losses[device] = run.result["losses"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
