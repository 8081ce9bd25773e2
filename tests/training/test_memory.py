"""Memory of steps: measured without leaving a trace, and never below what a step really takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gnnsys.batch import Batch
from gnnsys.training.config import parse_config
from gnnsys.training.memory import growth_of, state_bytes, step_growth
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
    step_growth(_work(model, NodeClassification(CLASSES)), random_batch(0))
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
    step_growth(_work(Normed(), task), random_batch(0))
    assert task.seen == 0


def test_growth_counts_memory_that_is_freed_again() -> None:
    assert growth_of(lambda: np.ones(8 << 20, dtype=np.uint8).sum()) >= 8 << 20


def test_what_a_step_leaves_behind_is_what_was_reserved_for_it() -> None:
    model = Normed()
    optimizer = torch.optim.Adam(model.parameters())
    warm_up()
    model(random_batch(0)).sum().backward()
    optimizer.step()
    moments = sum(v.nbytes for s in optimizer.state.values() for n, v in s.items() if n.startswith("exp_avg"))
    held = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    grads = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert state_bytes(model) == held + grads + moments
