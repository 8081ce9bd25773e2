"""Memory of steps: measured without leaving a trace, and never below what a step really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gnnsys as gs
from gnnsys.batch import Batch
from gnnsys.budget import GrowthMeter
from gnnsys.training.config import parse_config
from gnnsys.training.memory import FreedBlocks, growth_of, state_bytes, step_growth
from gnnsys.training.step import StepWork
from gnnsys.training.tasks import NodeClassification
from gnnsys.training.tensors import weights_digest
from gnnsys.training.warmup import warm_up
from tests.training.conftest import CLASSES, COLUMNS, random_batch


class Normed(nn.Module):
    """A network with buffers that every forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.lin = nn.BatchNorm1d(COLUMNS), nn.Linear(COLUMNS, CLASSES)

    def forward(self, batch: Batch) -> torch.Tensor:
        assert isinstance(batch.x, torch.Tensor)
        return self.lin(self.norm(batch.x))


def _work(model: nn.Module, task: NodeClassification) -> StepWork:
    return StepWork(model, task, parse_config({}), torch.device("cpu"))


def test_a_measured_step_leaves_weights_buffers_gradients_and_mode_as_they_were() -> None:
    model = Normed().eval()
    before = weights_digest(model)
    step_growth(_work(model, NodeClassification(CLASSES)), random_batch(0), GrowthMeter())
    assert weights_digest(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


class Counting(NodeClassification):
    """A task with state that every batch moves."""

    seen = 0

    def before_step(self, batch: Batch) -> Batch:
        self.seen += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


def test_a_measured_step_leaves_the_state_of_the_task_as_it_was() -> None:
    task = Counting(CLASSES)
    step_growth(_work(Normed(), task), random_batch(0), GrowthMeter())
    assert task.seen == 0


def test_growth_counts_memory_that_is_freed_again() -> None:
    assert growth_of(lambda: np.ones(8 << 20, dtype=np.uint8).sum()) >= 8 << 20


def test_what_a_step_leaves_behind_is_what_was_reserved_for_it() -> None:
    model = Normed()
    optimizer = torch.optim.Adam(model.parameters())
    warm_up(torch.device("cpu"))
    model(random_batch(0)).sum().backward()
    optimizer.step()
    moments = sum(v.nbytes for s in optimizer.state.values() for n, v in s.items() if n.startswith("exp_avg"))
    held = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    grads = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert state_bytes(model) == held + grads + moments


class Meter:
    baseline = 1000


@pytest.mark.parametrize(
    ("left", "grown", "expected"),
    [
        (99, 0, []),  # no room for twice a step: blocks go back as they are freed
        (100, 400, ["keep"]),
        (100, 401, ["keep", "trim"]),  # what was left behind and a step would not fit together
    ],
)
def test_freed_blocks_are_kept_only_where_a_step_fits_beside_them(
    monkeypatch: pytest.MonkeyPatch, left: int, grown: int, expected: list[str]
) -> None:
    done: list[str] = []
    monkeypatch.setattr("gnnsys.training.memory.keep_freed_blocks", lambda: done.append("keep"))
    monkeypatch.setattr("gnnsys.training.memory.trim", lambda: done.append("trim"))
    monkeypatch.setattr("gnnsys.training.memory.counted_bytes", lambda: 1000 + grown)
    meter: Any = Meter()
    FreedBlocks(meter, limit=500, needed=100, left=left).before_step()
    assert done == expected


def test_a_run_with_room_to_spare_stays_inside_its_memory(tmp_path: Path) -> None:
    """In a process of its own, so that nothing before it counts."""
    store = tmp_path / "store"
    gs.ingest("synthetic:powerlaw:nodes=20000,edges=100000,feat=32,classes=4,train=0.3", store, memory="64MiB")
    options = ["--model", "gcnii", "--layers", "8", "--hidden", "32", "--chunks", "4", "--epochs", "12"]
    command = [sys.executable, "-m", "gnnsys", "train", str(store), "--out", str(tmp_path / "run"), *options]
    told = subprocess.run([*command, "--memory", "256MiB", "--json"], capture_output=True, text=True, check=True)
    result = json.loads(told.stdout)
    assert result["peak_growth_bytes"] <= 256 << 20
