"""The generated graph is worth a GNN: neighbours tell what a node's own row does not."""

from pathlib import Path

import pytest

import gnnsys as gs
from gnnsys.training.run import train_from_config


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    folder = tmp_path_factory.mktemp("margin")
    source = "synthetic:powerlaw:nodes=20000,edges=200000,feat=64,classes=8,train=0.1,seed=0"
    store = gs.ingest(source, folder / "store", memory="64MiB")
    return gs.pack(store, folder / "pack", fanouts=[10, 5], batch_size=256, memory="64MiB")


def test_a_gnn_beats_an_mlp_by_twenty_points(pack: gs.Pack, tmp_path: Path) -> None:
    options = {"hidden": 64, "dropout": 0.2, "lr": 0.01, "epochs": 6, "memory": "512MiB"}
    scores = {
        model: train_from_config(pack.path, {"model": model, **options}, tmp_path / model).metrics["test"]["acc"]
        for model in ("sage", "mlp")
    }
    assert scores["sage"] > 0.85
    assert scores["sage"] - scores["mlp"] > 0.2
