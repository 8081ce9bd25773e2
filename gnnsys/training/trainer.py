"""The training loop: batches in, steps out, checkpoints in between; one path for every task, model and loader."""

from __future__ import annotations

import inspect
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gnnsys.batch import Batch
from gnnsys.errors import GnnsysError, InterruptedWorkError
from gnnsys.keys import derive
from gnnsys.models.randomness import random_from
from gnnsys.progress import Progress, silent
from gnnsys.storage.files import atomic_write
from gnnsys.training.checkpoint import Checkpoint, Checkpoints
from gnnsys.training.config import TrainConfig
from gnnsys.training.events import EventLog
from gnnsys.training.state import EpochRecord, TrainState
from gnnsys.training.tasks import Task
from gnnsys.training.tensors import assign_weights, join_optimizer, split_optimizer

if TYPE_CHECKING:
    from gnnsys.loading.loader import Loader

CHECKPOINT_EVERY_S = 300.0
_LOG_EVERY_STEPS = 50


@dataclass
class _Sums:
    """What the batches of one step add up to."""

    loss: float = 0.0
    count: int = 0
    seeds: int = 0
    nodes: int = 0
    edges: int = 0
    bytes_read: int = 0
    wait_s: float = 0.0
    read_s: float = 0.0
    wall_s: float = 0.0
    batch: int = -1
    """Number of the last one."""

    def add(self, batch: Batch) -> None:
        self.seeds += batch.batch_size
        self.nodes += len(batch.n_id)
        self.edges += batch.blocks[0].num_edges if batch.blocks else 0
        self.bytes_read += int(batch.io.get("bytes_read", 0))
        self.wait_s += batch.io.get("wait_s", 0.0)
        self.read_s += batch.io.get("read_s", 0.0)
        self.batch = batch.index

    def to_event(self) -> dict[str, Any]:
        """`io_ms` passes in the loader's threads, the rest of `wall_ms` is either waiting for them or computing."""
        times = {"wall": self.wall_s, "wait": self.wait_s, "io": self.read_s, "compute": self.wall_s - self.wait_s}
        rounded = {f"{name}_ms": round(1000 * seconds, 3) for name, seconds in times.items()}
        loss = self.loss / max(self.count, 1)
        return {"loss": loss, "batch": self.batch, "nodes": self.nodes, "edges": self.edges, **rounded}


class Trainer:
    """Trains `model` from where `state` stands to the end of the last epoch.

    The random numbers of a micro-batch come from (seed, step, micro-batch) alone, so a run that was cut anywhere and
    continued ends in the same weights.

    Args:
        folder: of the run; checkpoints go to `folder/checkpoints`.
        evaluate: the metric on `valid` of the model as it is, or None where there is nothing to evaluate on.
        stop: checked after every step; once set, a checkpoint is written and InterruptedWorkError raised.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        loader: Loader,
        config: TrainConfig,
        *,
        folder: Path,
        checkpoints: Checkpoints,
        events: EventLog,
        device: torch.device,
        evaluate: Callable[[], float | None],
        stop: threading.Event | None = None,
        progress: Progress = silent,
    ) -> None:
        self.model, self.task, self.loader, self.config = model, task, loader, config
        self.state = TrainState()
        self.optimizer = make_optimizer(model, config)
        self._folder, self._checkpoints, self._events = folder, checkpoints, events
        self._device, self._evaluate, self._progress = device, evaluate, progress
        self._stop = stop or threading.Event()
        self._outputs = keyed_outputs(task, config.precision)
        self._mark = self._saved_at = time.monotonic()
        self._sums = _Sums()

    def fit(self) -> TrainState:
        """Train to the end; returns the final state.

        Raises:
            GnnsysError: a loss or gradient is not finite.
            InterruptedWorkError: `stop` was set; a checkpoint holds everything so far.
        """
        while self.state.epoch < self.config.epochs and not self._out_of_patience():
            self._train_epoch()
            self._end_epoch()
        return self.state

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go back to where `checkpoint` was written.

        Raises:
            ConfigError: it holds another model's weights.
        """
        assign_weights(self.model, checkpoint.tensors["model"], path)
        values = checkpoint.state
        self.optimizer.load_state_dict(join_optimizer(checkpoint.tensors["optimizer"], values["optimizer"]))
        self.state = TrainState.from_json(values["train"])
        if hasattr(self.task, "load_state_dict"):
            self.task.load_state_dict({**checkpoint.tensors.get("task", {}), **values["task"]})
        self.loader.load_state_dict(values["loader"])

    def _train_epoch(self) -> None:
        size, number = self.config.micro_batches, self.state.batches
        self.model.train()
        self._mark = time.monotonic()
        for batch in self._batches():
            if number % size == 0:
                self._start_step()
            self._accumulate(batch, number % size)
            del batch  # or it would be held while the next one is awaited
            number += 1
            if number % size == 0 or number == len(self.loader):
                self._finish_step(number)
                self._between_steps()

    def _batches(self) -> Iterator[Batch]:
        """What is left of the epoch."""
        if self.state.batches == 0:
            self.loader.set_epoch(self.state.epoch)
        return iter(self.loader) if self.state.batches < len(self.loader) else iter(())

    def _start_step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._sums = _Sums()

    def _accumulate(self, batch: Batch, micro: int) -> None:
        """Add the gradients of one batch, not yet divided by the count of the step."""
        key = (self.config.seed, self.state.step, micro)
        self._sums.add(batch)
        batch = self._before(batch.to(self._device))
        with random_from(derive(*key), self._device):
            out = self._outputs(self.model, batch, key)
            loss, count = self.task.loss(out, batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                self._refuse_nan(f"the loss is {value}", batch)
            loss.backward()
        if not all(bool(torch.isfinite(grad).all()) for grad in self._gradients()):
            self._refuse_nan("a gradient is not finite", batch)
        self._sums.loss += value
        self._sums.count += int(count)
        if hasattr(self.task, "after_step"):
            self.task.after_step(out.detach(), batch)

    def _finish_step(self, batches: int) -> None:
        """Divide by the number of losses, take the optimizer's step and count it."""
        state, sums = self.state, self._sums
        if sums.count:
            for grad in self._gradients():
                grad.div_(sums.count)
            self.optimizer.step()
        state.step += 1
        state.batches = batches
        state.loss_sum += sums.loss
        state.count += sums.count
        state.seeds += sums.seeds
        state.edges += sums.edges
        state.bytes_read += sums.bytes_read
        sums.wall_s = self._tick()

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def _between_steps(self) -> None:
        """Events, progress and, inside an epoch, checkpoints; at its end `_end_epoch` writes one."""
        state = self.state
        self._progress("train", state.epoch + state.batches / len(self.loader), self.config.epochs)
        if state.step % _LOG_EVERY_STEPS == 1 or self._stop.is_set():
            lr = self.optimizer.param_groups[0]["lr"]
            self._events.write("step", step=state.step, epoch=state.epoch, lr=lr, **self._sums.to_event())
        if state.batches == len(self.loader):
            return
        every = self.config.checkpoint_steps
        due = every and state.step % every == 0
        if due or self._stop.is_set() or time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self.checkpoint()
        self._raise_when_stopped()

    def _end_epoch(self) -> None:
        state = self.state
        record = EpochRecord(
            loss=state.loss_sum / max(state.count, 1),
            seconds=state.seconds,
            bytes_read=state.bytes_read,
            bytes_planned=self.loader.planned_bytes(state.epoch),
        )
        rates = {"wall_s": state.seconds} | {
            f"{what}_per_s": round(getattr(state, what) / max(state.seconds, 1e-9), 1) for what in ("seeds", "edges")
        }
        self.loader.set_epoch(state.epoch + 1)  # lets go of this epoch's buffers: evaluation needs the room
        due = (state.epoch + 1) % self.config.eval_every == 0 or state.epoch + 1 == self.config.epochs
        record.valid = self._evaluate() if due else None
        epoch = state.epoch
        state.end_epoch(record)
        self._note_best(epoch)
        self._events.write("epoch", epoch=epoch, loss=record.loss, metrics=self._metrics(record), **rates)
        self.checkpoint()
        self._raise_when_stopped()

    def _metrics(self, record: EpochRecord) -> dict[str, dict[str, float]]:
        return {} if record.valid is None else {"valid": {self.task.metric.name: record.valid}}

    def _note_best(self, epoch: int) -> None:
        """Keep the first epoch with the best value; without values the last epoch counts as best."""
        state, value = self.state, self.state.history[epoch].valid
        best = state.best_value
        better = best is None or (value is not None and (value > best) == self._higher_is_better() and value != best)
        if better:
            state.best_epoch, state.best_checkpoint, state.bad_evaluations = epoch, f"ckpt-{state.step:06d}", 0
        elif value is not None:
            state.bad_evaluations += 1

    def _higher_is_better(self) -> bool:
        return self.task.metric.higher_is_better

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.state.bad_evaluations

    def checkpoint(self) -> None:
        """Write a checkpoint of this moment, between two steps."""
        started = time.monotonic()
        tensors, rest = split_optimizer(self.optimizer.state_dict())
        parts: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict(), "optimizer": tensors}
        task_tensors, task_values = _task_state(self.task)
        if task_tensors:
            parts["task"] = task_tensors
        state = {
            "train": self.state.to_json(),
            "optimizer": rest,
            "task": task_values,
            "loader": self.loader.state_dict(),
        }
        path = self._checkpoints.commit(
            Checkpoint(step=self.state.step, tensors=parts, state=state), best=self.state.best_checkpoint
        )
        self._saved_at = time.monotonic()
        wall_ms = round(1000 * (self._saved_at - started), 1)
        self._events.write("checkpoint", path=path.name, step=self.state.step, wall_ms=wall_ms)

    def _tick(self) -> float:
        """Count the seconds since the last call, or the start of the epoch, and return them."""
        passed = time.monotonic() - self._mark
        self.state.seconds += passed
        self._mark += passed
        return passed

    def _before(self, batch: Batch) -> Batch:
        replaced = self.task.before_step(batch) if hasattr(self.task, "before_step") else None
        return batch if replaced is None else replaced

    def _raise_when_stopped(self) -> None:
        if self._stop.is_set():
            raise InterruptedWorkError(
                "GS-TRAIN-002",
                f"stopped after step {self.state.step} (epoch {self.state.epoch}); a checkpoint was written",
                hint="Repeat the same command to continue.",
            )

    def _refuse_nan(self, what: str, batch: Batch) -> None:
        state, number = self.state, batch.index
        report = {
            "problem": what,
            "epoch": state.epoch,
            "step": state.step,
            "batch": number,
            "seeds": batch.seeds.tolist(),
            "n_id": batch.n_id.tolist(),
        }
        atomic_write(self._folder / "nan-batch.json", json.dumps(report).encode())
        raise GnnsysError(
            "GS-TRAIN-001",
            f"{what} in epoch {state.epoch}, step {state.step}, batch {number} "
            f"(ids in {self._folder / 'nan-batch.json'})",
            hint="Lower --lr, or look for extreme values in the features of these nodes.",
        )


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam over all parameters."""
    return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def keyed_outputs(task: Task, precision: str) -> Callable[[nn.Module, Batch, tuple[int, ...]], Tensor]:
    """`task.outputs` as a function of (model, batch, key), for tasks that take the key and for those that do not, with
    dense products in that precision; outputs are float32 again."""
    outputs: Any = task.outputs
    takes_key = "key" in inspect.signature(outputs).parameters

    def call(model: nn.Module, batch: Batch, key: tuple[int, ...]) -> Tensor:
        out: Tensor = outputs(model, batch, key=key) if takes_key else outputs(model, batch)
        return out

    def call_in_bf16(model: nn.Module, batch: Batch, key: tuple[int, ...]) -> Tensor:
        with torch.autocast(batch.seeds.device.type, torch.bfloat16):
            return call(model, batch, key).float()

    return call_in_bf16 if precision == "bf16" else call


def _task_state(task: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = dict(task.state_dict()) if hasattr(task, "state_dict") else {}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}
