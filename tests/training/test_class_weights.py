"""Class weights: the loss is torch's weighted cross-entropy of the whole step, however it is cut into micro-batches."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import gnnsys as gs
from gnnsys.errors import ConfigError, InputDataError
from gnnsys.training.tasks import NodeClassification
from tests.graphs import ingest_arrays
from tests.training.test_trainer import CLASSES, MakeTrainer, random_batch

WEIGHTS = [0.1, 2.0, 0.0, 1.5][:CLASSES]


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_step_is_that_of_torch(micro_batches: int, make_trainer: MakeTrainer) -> None:
    batches = [random_batch(i) for i in range(micro_batches)]
    task = NodeClassification(CLASSES, class_weights=WEIGHTS)
    trainer = make_trainer(task=task, batches=batches, epochs=1, dropout=0.0, lr=0.05, micro_batches=micro_batches)
    twin = copy.deepcopy(trainer.model)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
    out = torch.cat([task.outputs(twin, batch) for batch in batches])
    y = torch.cat([batch.y for batch in batches])
    loss = cross_entropy(out, y, weight=torch.tensor(WEIGHTS), ignore_index=-1)
    loss.backward()
    optimizer.step()
    trainer.fit()
    assert trainer.state.history[0].loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for ours, theirs in zip(trainer.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_balanced_weights_are_those_of_sklearn(tmp_path: Path) -> None:
    y = np.array([0, 0, 0, 1, 1, 2, -1, 2, 2, 2])
    store = ingest_arrays(tmp_path / "s", np.arange(10), np.arange(10), y=y, splits={"train": np.arange(7)})
    assert gs.balanced_weights(store) == pytest.approx([6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1)])


def test_a_class_without_a_node_to_train_on_counts_nothing(tmp_path: Path) -> None:
    y = np.array([0, 0, 2, 1])
    store = ingest_arrays(tmp_path / "s", np.arange(4), np.arange(4), y=y, splits={"train": [0, 1, 2]})
    assert gs.balanced_weights(store) == pytest.approx([0.75, 0.0, 1.5])


def test_the_nodes_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    y = np.array([0, 0, 1, 1, 1, 1])
    store = ingest_arrays(tmp_path / "s", np.arange(6), np.arange(6), y=y, splits={"train": [0, 1]})
    assert gs.balanced_weights(store, np.array([1, 2, 3, 4])) == pytest.approx([2.0, 2 / 3])
    with pytest.raises(InputDataError, match="100"):
        gs.balanced_weights(store, np.array([1, 100]))


@pytest.mark.parametrize(
    "weights", [[1.0], [-1.0] * CLASSES, [float("nan")] * CLASSES, [0.0] * CLASSES, ["a", 1], [[1], [1, 2]]]
)
def test_what_is_no_weight_is_refused(weights: Any) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-950"):
        NodeClassification(CLASSES, class_weights=weights)


def test_a_task_that_should_count_classes_says_who_does() -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-954: class_weights is 'balanced'"):
        NodeClassification(CLASSES, class_weights="balanced")  # type: ignore[arg-type]


def test_weights_are_part_of_what_a_run_is() -> None:
    plain, weighted = (
        NodeClassification(CLASSES).identity(),
        NodeClassification(CLASSES, class_weights=WEIGHTS).identity(),
    )
    assert plain.items() < weighted.items()


def test_options_that_belong_to_the_task_are_refused_beside_one(tmp_path: Path) -> None:
    source = "synthetic:powerlaw:nodes=200,edges=900,feat=4,classes=2,train=0.2"
    model = gs.build("sage", in_channels=4, hidden_channels=4, num_layers=1, out_channels=2)
    with pytest.raises(ConfigError, match=r"GS-CFG-952: class_weights: the task has its own"):
        gs.train(
            model,
            gs.Loader(gs.ingest(source, tmp_path / "s"), fanouts=[2], batch_size=16),
            task=gs.NodeClassification(2),
            out=tmp_path / "run",
            class_weights="balanced",
        )
