"""bfloat16 products: as accurate on real data, the same twice, and float32 wherever sums and weights are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gnnsys as gs
from gnnsys.models.aggregate import aggregate
from gnnsys.models.registry import NAMES, build
from tests.training.conftest import CLASSES, COLUMNS, MakeTrainer


@pytest.fixture(scope="module")
def cora(tmp_path_factory: pytest.TempPathFactory, data_file: Callable[[str], Path]) -> gs.Store:
    source = f"npz:{data_file('static/planetoid-cora/cora.npz')}"
    return gs.ingest(source, tmp_path_factory.mktemp("cora") / "store", normalize_features="row")


def train(store: gs.Store, out: Path, precision: str, seed: int = 0) -> gs.Run:
    sizes = {"in_channels": store.table_columns(), "hidden_channels": 64, "out_channels": store.num_classes}
    model = gs.build("gcn", num_layers=2, dropout=0.5, seed=seed, **sizes)
    loader = gs.Loader(store, fanouts=[-1, -1], batch_size=140, seed=seed)
    task = gs.NodeClassification(store.num_classes)
    options = {"epochs": 60, "lr": 0.01, "weight_decay": 5e-4, "seed": seed, "precision": precision}
    return gs.train(model, loader, task=task, out=out, eval_every=10, **options)


def test_accuracy_on_real_data_is_that_of_float32(cora: gs.Store, tmp_path: Path) -> None:
    means = {}
    for precision in ("f32", "bf16"):
        runs = [train(cora, tmp_path / f"{precision}{seed}", precision, seed) for seed in (0, 1)]
        means[precision] = sum(run.metrics["test"]["acc"] for run in runs) / 2
    assert means["f32"] > 0.79  # 60 epochs; 200 give 81 to 82 %
    assert means["bf16"] > means["f32"] - 0.01  # 1,000 test nodes: one standard deviation of a mean is 0.9 points


def test_two_runs_are_equal_and_differ_from_float32(cora: gs.Store, tmp_path: Path) -> None:
    one, two, other = (train(cora, tmp_path / str(i), p) for i, p in enumerate(("bf16", "bf16", "f32")))
    assert one.result["weights_digest"] == two.result["weights_digest"] != other.result["weights_digest"]


@pytest.mark.parametrize("name", NAMES)
def test_every_network_trains_near_float32(name: str, make_trainer: MakeTrainer) -> None:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 8, "num_layers": 2, "out_channels": CLASSES}
    losses = {}
    for precision in ("f32", "bf16"):
        trainer = make_trainer(precision, model=build(name, **sizes), precision=precision, lr=0.01)
        losses[precision] = [record.loss for record in trainer.fit().history]
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert losses["bf16"] != losses["f32"]
    assert losses["bf16"] == pytest.approx(losses["f32"], rel=2**-5)  # a product has 8 bits, some errors add up


@pytest.mark.parametrize("how", ["sum", "mean", "gcn"])
def test_short_floats_are_summed_in_float32(how: str) -> None:
    """4,096 ones and a half: bfloat16 sums would stop growing at 256."""
    count = 4096
    block = gs.Block(
        indptr=torch.tensor([0, count], dtype=torch.int32),
        indices=torch.arange(1, count + 1, dtype=torch.int32),
        degree=torch.tensor([count, *[0] * count], dtype=torch.int32),
    )
    h = torch.full((count + 1, 3), 1.5, dtype=torch.bfloat16)
    expected = aggregate(block, h.double(), how)
    torch.testing.assert_close(aggregate(block, h, how).double(), expected, rtol=2**-8, atol=0)
