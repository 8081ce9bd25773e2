"""The loop: exact resume from any step, gradients of micro-batches, early stopping, faults that stop it clearly."""

from __future__ import annotations

import copy
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError, DiskSpaceError, GnnsysError, InterruptedWorkError
from gnnsys.models.registry import build
from gnnsys.training.tasks import NodeClassification
from gnnsys.training.tensors import weights_digest
from tests.training.conftest import CLASSES, COLUMNS, MakeTrainer, random_batch


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


class KilledAfter(NodeClassification):
    """Dies when batch number `batches` of this process was worked on."""

    def __init__(self, batches: int) -> None:
        super().__init__(CLASSES)
        self._left = batches

    def after_step(self, _out: Tensor, _batch: Batch) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


def fingerprint(trainer: Any) -> tuple[Any, ...]:
    history = [(r.loss, r.bytes_read, r.bytes_planned) for r in trainer.state.history]
    return weights_digest(trainer.model), history, trainer.state.step, trainer.state.best_epoch


UNINTERRUPTED: dict[tuple[Any, ...], Any] = {}


@pytest.mark.parametrize(
    ("dropout", "micro_batches", "checkpoint_steps"), [(0.0, 1, 3), (0.5, 1, 0), (0.5, 1, 2), (0.5, 3, 1)]
)
@pytest.mark.parametrize("kill_after", range(14))
def test_a_run_killed_at_any_batch_and_continued_ends_in_the_same_weights(
    make_trainer: MakeTrainer, dropout: float, micro_batches: int, checkpoint_steps: int, kill_after: int
) -> None:
    decisive: dict[str, Any] = {"dropout": dropout, "micro_batches": micro_batches, "epochs": 2}
    options = {**decisive, "checkpoint_steps": checkpoint_steps}
    if (dropout, micro_batches) not in UNINTERRUPTED:
        whole = make_trainer("whole", **decisive)
        whole.fit()
        UNINTERRUPTED[dropout, micro_batches] = fingerprint(whole)
    with pytest.raises(Killed):
        make_trainer("cut", task=KilledAfter(kill_after), **options).fit()
    resumed = make_trainer("cut", **options)
    resumed.fit()
    assert fingerprint(resumed) == UNINTERRUPTED[dropout, micro_batches]


def test_checkpoints_bound_what_a_kill_costs(make_trainer: MakeTrainer) -> None:
    with pytest.raises(Killed):
        make_trainer("cut", task=KilledAfter(13), checkpoint_steps=2).fit()
    state = make_trainer("cut").state
    assert (state.step, state.epoch, state.batches) == (12, 1, 5)


def test_dropout_draws_differ_between_steps(make_trainer: MakeTrainer) -> None:
    outputs = []

    class Watching(NodeClassification):
        def after_step(self, out: Tensor, _batch: Batch) -> None:
            outputs.append(out)

    trainer = make_trainer(batches=[random_batch(0)] * 2, task=Watching(CLASSES), epochs=1, lr=1e-30)
    trainer.fit()
    assert not torch.equal(outputs[0], outputs[1])


def test_training_leaves_the_callers_random_numbers_alone(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(dropout=0.5)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    trainer.fit()
    assert torch.equal(torch.rand(3), expected)


def test_gradients_of_micro_batches_equal_those_of_one_big_batch(make_trainer: MakeTrainer) -> None:
    parts = [random_batch(i, seeds=2 + i) for i in range(5)]
    trainer = make_trainer(batches=parts, micro_batches=5, dropout=0.0, model=_float64_sage())
    sums = trainer._work.run(trainer.loader, iter(parts), 5, 0)
    trainer._finish_step(sums, 5)
    got = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]

    model = _float64_sage()
    out = torch.cat([model(part.x, part.blocks) for part in parts])
    y = torch.cat([part.y for part in parts if part.y is not None])
    torch.nn.functional.cross_entropy(out[y >= 0], y[y >= 0]).backward()
    expected = [p.grad for p in model.parameters()]
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def _float64_sage() -> nn.Module:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 5, "num_layers": 2, "out_channels": CLASSES}
    return Double(build("sage", **sizes).double())


class Double(nn.Module):
    """Computes in float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, blocks: Any) -> Tensor:
        return self.model(x.double(), blocks)


def test_a_step_without_labels_changes_nothing_but_is_counted(make_trainer: MakeTrainer) -> None:
    batch = random_batch(0)
    assert batch.y is not None
    trainer = make_trainer(batches=[batch.__class__(**{**vars(batch), "y": batch.y * 0 - 1})], epochs=1)
    before = weights_digest(trainer.model)
    trainer.fit()
    assert weights_digest(trainer.model) == before
    assert trainer.state.step == 1
    assert trainer.state.history[0].loss == 0.0


def test_training_stops_when_patience_runs_out_and_keeps_the_best_epoch(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(values=[0.1, 0.5, 0.5, 0.2, 0.9], epochs=5, patience=2)
    trainer.fit()
    assert len(trainer.state.history) == 4
    assert trainer.state.best_epoch == 1
    assert trainer.state.best_checkpoint == "ckpt-000014"


def test_patience_is_off_by_default(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(values=[0.5, 0.1, 0.1, 0.1, 0.1], epochs=5)
    trainer.fit()
    assert (len(trainer.state.history), trainer.state.best_epoch) == (5, 0)


def test_without_a_validation_split_the_last_epoch_is_the_best(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.fit()
    assert trainer.state.best_epoch == 2


@pytest.mark.parametrize("kill_after", [7, 13, 20, 27])
def test_patience_counts_on_after_a_resume(make_trainer: MakeTrainer, kill_after: int) -> None:
    options: dict[str, Any] = {"values": [0.1, 0.5, 0.5, 0.2, 0.9], "epochs": 5, "patience": 2}
    with pytest.raises(Killed):
        make_trainer("cut", task=KilledAfter(kill_after), **options).fit()
    trainer = make_trainer("cut", **options)
    trainer.fit()
    assert (len(trainer.state.history), trainer.state.best_epoch) == (4, 1)


def test_evaluation_may_skip_epochs_but_never_the_last(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(values=[0.1, 0.2, 0.3, 0.4, 0.5], epochs=5, eval_every=3)
    trainer.fit()
    assert [r.valid for r in trainer.state.history] == [None, None, 0.3, None, 0.5]


class Averaging(NodeClassification):
    """A loss as people write it first: the mean, and nothing else."""

    def loss(self, out: Tensor, batch: Batch) -> Any:
        return super().loss(out, batch)[0]


def test_a_loss_that_is_no_sum_and_count_is_told_what_is_expected(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-907: Averaging.loss gives \(\), expected two values"):
        make_trainer(task=Averaging(CLASSES), epochs=1).fit()


def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_dumps_the_ids(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    bad = random_batch(3)
    assert isinstance(bad.x, Tensor)
    bad.x[0, 0] = float("nan")
    trainer = make_trainer(batches=[random_batch(0), bad], epochs=1)
    with pytest.raises(GnnsysError, match=r"the loss is nan in epoch 1, step \d, batch 3"):
        trainer.fit()
    report = json.loads((tmp_path / "run" / "nan-batch.json").read_text())
    assert report["batch"] == 3
    assert report["seeds"] == bad.seeds.tolist()
    assert report["n_id"] == bad.n_id.tolist()


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights_and_dumps_the_ids(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    only = random_batch(2)
    trainer = make_trainer(batches=[only])
    next(iter(trainer.model.parameters())).register_hook(lambda grad: grad * float("inf"))
    before = weights_digest(trainer.model)
    with pytest.raises(GnnsysError, match="a gradient is not finite"):
        trainer.fit()
    assert weights_digest(trainer.model) == before
    report = json.loads((tmp_path / "run" / "nan-batch.json").read_text())
    assert (report["batch"], report["n_id"]) == (2, only.n_id.tolist())


@pytest.mark.parametrize("at_batch", [1, 7])
def test_a_stop_finishes_the_step_and_leaves_a_checkpoint_to_go_on_from(
    make_trainer: MakeTrainer, at_batch: int
) -> None:
    stop = threading.Event()

    class StopAt(NodeClassification):
        seen = 0

        def after_step(self, _out: Tensor, _batch: Batch) -> None:
            self.seen += 1
            if self.seen == at_batch:
                stop.set()

    with pytest.raises(InterruptedWorkError, match=f"after step {at_batch}"):
        make_trainer("cut", task=StopAt(CLASSES), stop=stop).fit()
    resumed = make_trainer("cut")
    assert resumed.state.step == at_batch
    resumed.fit()
    whole = make_trainer("whole")
    whole.fit()
    assert fingerprint(resumed) == fingerprint(whole)


@pytest.mark.parametrize("full_at", range(0, 14, 3))
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    pwrite, left = os.pwrite, full_at

    def full(fd: int, data: Any, offset: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskSpaceError, match=r"GS-DISK-002.*checkpoints"):
            make_trainer("cut", checkpoint_steps=4).fit()
    resumed, whole = make_trainer("cut"), make_trainer("whole")
    resumed.fit()
    whole.fit()
    assert fingerprint(resumed) == fingerprint(whole)


class Counting(NodeClassification):
    """A task with state: a tensor, a number, and a batch that it changes before the step."""

    order = "fixed"

    def __init__(self, kill_after: int = 1 << 30) -> None:
        super().__init__(CLASSES)
        self.memory, self.seen, self.kill_after = torch.zeros(1000), 0, kill_after

    def before_step(self, batch: Batch) -> Batch:
        assert isinstance(batch.x, Tensor)
        return Batch(**{**vars(batch), "x": batch.x + self.memory[batch.n_id][:, None]})

    def after_step(self, out: Tensor, batch: Batch) -> None:
        self.memory[batch.seeds] += out.mean(dim=1)
        self.seen += 1
        if self.seen > self.kill_after:
            raise Killed

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory, self.seen = state["memory"], state["seen"]


@pytest.mark.parametrize("kill_after", [0, 3, 10, 20])
def test_state_of_a_task_is_part_of_the_checkpoint(make_trainer: MakeTrainer, kill_after: int) -> None:
    whole = make_trainer("whole", task=Counting())
    whole.fit()
    with pytest.raises(Killed):
        make_trainer("cut", task=Counting(kill_after), checkpoint_steps=2).fit()
    resumed = make_trainer("cut", task=Counting())
    resumed.fit()
    assert fingerprint(resumed) == fingerprint(whole)
    assert torch.equal(resumed.task.memory, whole.task.memory)  # type: ignore[attr-defined]


def test_a_checkpoint_of_another_model_is_refused(make_trainer: MakeTrainer) -> None:
    make_trainer(epochs=1).fit()
    with pytest.raises(ConfigError, match="unexpected: layers"):
        make_trainer(model=nn.Linear(2, 2))


def test_clipping_is_that_of_torch(make_trainer: MakeTrainer) -> None:
    """One step beside a twin that calls `clip_grad_norm_`; and clipping did something."""
    batch = random_batch(0)
    trainer = make_trainer(batches=[batch], epochs=1, dropout=0.0, clip_norm=0.01, lr=0.05)
    twin = copy.deepcopy(trainer.model)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
    task = NodeClassification(CLASSES)
    loss, count = task.loss(task.outputs(twin, batch), batch)
    loss.backward()
    for parameter in twin.parameters():
        assert parameter.grad is not None
        parameter.grad /= count
    assert torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.01) > 0.01
    optimizer.step()
    trainer.fit()
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), twin.parameters(), strict=True))
