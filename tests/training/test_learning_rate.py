"""Learning rates are those of torch's schedulers, and a function of the step alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from gnnsys.errors import ConfigError, InterruptedWorkError
from gnnsys.training.config import parse_config
from gnnsys.training.learning_rate import lr_factor
from tests.training.test_trainer import MakeTrainer, fingerprint

STEPS = 40


def torch_rates(schedule: str, warmup: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    left = STEPS - warmup
    after: LRScheduler = {
        "constant": lambda: ConstantLR(optimizer, factor=1.0),
        "linear": lambda: LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=left),
        "cosine": lambda: CosineAnnealingLR(optimizer, T_max=left),
    }[schedule]()
    both = after
    if warmup:
        rising = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        both = SequentialLR(optimizer, [rising, after], milestones=[warmup])
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    return found


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_are_those_of_torch(schedule: Any, warmup: int) -> None:
    found = [lr_factor(schedule, step, STEPS, warmup) for step in range(STEPS)]
    assert found == pytest.approx(torch_rates(schedule, warmup), abs=1e-9)


def test_a_rate_that_would_never_be_reached_is_refused() -> None:
    with pytest.raises(ConfigError, match="GS-CFG-953"):
        parse_config({"epochs": 2, "warmup_epochs": 2})


def test_every_step_of_a_run_has_its_rate(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(epochs=3, lr=0.1, lr_schedule="cosine", warmup_epochs=1, micro_batches=2)
    rates: list[float] = []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.fit()
    per_epoch = len(rates) // 3
    assert rates == [0.1 * lr_factor("cosine", step, 3 * per_epoch, per_epoch) for step in range(3 * per_epoch)]
    assert len(set(rates)) > 2


def test_a_run_that_was_stopped_goes_on_with_the_same_rates(make_trainer: MakeTrainer) -> None:
    options: dict[str, Any] = {"epochs": 3, "lr": 0.1, "lr_schedule": "linear", "warmup_epochs": 1}
    whole = make_trainer("whole", **options)
    whole.fit()
    cut = make_trainer("cut", **options)
    cut.optimizer.register_step_post_hook(lambda *_: cut._stop.set() if cut.state.step == 4 else None)
    with pytest.raises(InterruptedWorkError):
        cut.fit()
    resumed = make_trainer("cut", **options)
    assert 0 < resumed.state.step < whole.state.step
    resumed.fit()
    assert fingerprint(resumed) == fingerprint(whole)
