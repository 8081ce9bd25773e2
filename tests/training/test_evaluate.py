"""Evaluation says what was done, with what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gnnsys as gs
from gnnsys.batch import Batch
from gnnsys.budget import Budget
from gnnsys.loading.loader import Loader
from gnnsys.models.registry import build
from gnnsys.samplers.seeds import Seeds
from gnnsys.storage.store import Store
from gnnsys.training import evaluate as module
from gnnsys.training.evaluate import EvaluationPlan, evaluate
from gnnsys.training.inference import Inferred
from gnnsys.training.metrics import Accuracy
from tests.graphs import ingest_arrays

NODES = 40
SPLITS = {"train": np.arange(8), "valid": np.arange(8, 12), "test": np.arange(12, 20)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, NODES, (2, 4 * NODES))
    x = rng.normal(size=(NODES, 3)).astype(np.float32)
    return ingest_arrays(tmp_path / "store", src, dst, NODES, x=x, y=np.arange(NODES) % 2, splits=SPLITS)


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., EvaluationPlan]:
    def make(**options: Any) -> EvaluationPlan:
        return EvaluationPlan(budget=Budget(1 << 30), scratch=tmp_path, fanouts=[2, 2], batch_size=4, **options)

    return make


class Pairs:
    """A link task: is there an edge, from the first column of the outputs."""

    def __init__(self) -> None:
        self.metric = Accuracy()

    def seeds(self, store: Store, split: str) -> Seeds:
        nodes = store.split(split)
        return Seeds.links(np.stack([nodes, nodes[::-1]], axis=1), name=split)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        assert batch.pair_label is not None
        return torch.zeros(len(batch.pair_label), 2)

    def loss(self, out: Tensor, batch: Batch) -> tuple[Tensor, int]:
        return out.sum(), len(out)

    def score(self, out: Tensor, batch: Batch) -> None:
        assert batch.pair_label is not None
        self.metric.update(out, batch.pair_label.long())


@pytest.mark.parametrize("sampled", ["valid", "test"])
def test_one_split_that_had_to_be_sampled_is_enough_to_say_so(
    store: Store, plan: Callable[..., EvaluationPlan], monkeypatch: pytest.MonkeyPatch, sampled: str
) -> None:
    def loader(store: Store, seeds: Seeds, _plan: EvaluationPlan) -> tuple[Loader, str]:
        how = "sampled" if seeds.name == sampled else "full-neighbour"
        return Loader(store, seeds=seeds, fanouts=[2, 2], batch_size=4, order="fixed"), how

    monkeypatch.setattr(module, "_loader", loader)
    found = evaluate(nn.Identity(), Pairs(), store, ["valid", "test"], plan())
    assert found.how == "sampled"


def test_full_neighbourhoods_of_all_splits_are_said_to_be_full(
    store: Store, plan: Callable[..., EvaluationPlan]
) -> None:
    assert evaluate(nn.Identity(), Pairs(), store, ["valid", "test"], plan()).how == "full-neighbour"


def test_the_last_resort_samples_with_the_seed_of_the_run(
    store: Store, plan: Callable[..., EvaluationPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def infer(*_: Any, nodes: np.ndarray, **options: Any) -> Inferred:
        given.update(options)
        return Inferred(np.zeros((len(nodes), 2), dtype=np.float32), "sampled")

    monkeypatch.setattr(module, "infer", infer)
    model = build("sage", in_channels=3, hidden_channels=4, num_layers=2, out_channels=2)
    evaluate(model, gs.NodeClassification(2), store, ["test"], plan(seed=7))
    assert given["seed"] == 7
    assert given["budget"].left == (1 << 30) - 2 * SPLITS["test"].nbytes
