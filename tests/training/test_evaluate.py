"""Evaluation says what was done, with what it was given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gnnsys as gs
from gnnsys.batch import Batch
from gnnsys.budget import Budget, peak_growth
from gnnsys.errors import GnnsysError, MemoryBudgetError
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


class Overflowing(nn.Module):
    """Outputs of two classes; of node 13 they are not finite."""

    def forward(self, batch: Batch) -> Tensor:
        out = torch.zeros(len(batch.n_id), 2)
        out[batch.n_id == 13] = torch.inf
        return out


def test_outputs_that_are_not_finite_are_not_scored(store: Store, plan: Callable[..., EvaluationPlan]) -> None:
    assert evaluate(Overflowing(), gs.NodeClassification(2), store, ["valid"], plan()).counts == {"valid": 4}
    with pytest.raises(GnnsysError, match=r"GS-TRAIN-010: 1 of 8 outputs for nodes of test"):
        evaluate(Overflowing(), gs.NodeClassification(2), store, ["test"], plan())


def test_what_a_ranking_metric_keeps_is_part_of_the_budget(tmp_path: Path) -> None:
    """20,000 nodes with 50 answers each: 11 MB of scores, held twice while they are ranked."""
    nodes, answers = 20_000, 50
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (nodes, answers)).astype(np.float32)
    splits = {"train": np.arange(10), "test": np.arange(10, nodes)}
    x = rng.normal(size=(nodes, 4)).astype(np.float32)
    source = gs.ArraySource(np.zeros((2, 0), dtype=np.int64), x=x, y=y, splits=splits, num_nodes=nodes)
    store = gs.ingest(source, tmp_path / "store", memory="64MiB")
    task, model = gs.MultilabelClassification(answers), build("mlp", **SIZES, out_channels=answers)
    for budget, fits in ((8 << 20, False), (64 << 20, True)):
        given = EvaluationPlan(budget=Budget(budget), scratch=tmp_path, fanouts=[0], batch_size=100)
        with nullcontext() if fits else pytest.raises(MemoryBudgetError, match="what the metric keeps"):
            grown = peak_growth(partial(evaluate, model, task, store, ["test"], given))
    assert grown <= 64 << 20


SIZES = {"in_channels": 4, "hidden_channels": 4, "num_layers": 1}
