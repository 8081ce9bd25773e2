"""The training loop: batches in, steps out, checkpoints in between; one path for every task, model and loader."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from gnnsys.batch import Batch
from gnnsys.errors import GnnsysError, InterruptedWorkError
from gnnsys.pipeline.ranks import Alone, Ranks
from gnnsys.progress import Progress, silent
from gnnsys.storage.files import atomic_write
from gnnsys.training.checkpoint import Checkpoint, Checkpoints
from gnnsys.training.config import TrainConfig
from gnnsys.training.drift import look_at
from gnnsys.training.events import Events
from gnnsys.training.feed import Feed
from gnnsys.training.learning_rate import lr_factor
from gnnsys.training.memory import FreedBlocks
from gnnsys.training.state import THREAD_STAGES, EpochRecord, TrainState
from gnnsys.training.step import StepSums, StepWork
from gnnsys.training.tensors import assign_weights, join_optimizer, merge_optimizers, split_optimizer

CHECKPOINT_EVERY_S = 300.0
_LOG_EVERY_STEPS = 50


class Trainer:
    """Trains what `work` has of a model from where `state` stands to the end of the last epoch.

    All ranks of a pipeline run the same loop: what they decide on (losses, stopping, checkpoints) is added up after
    every step.

    Args:
        work: the layers of this rank and the task.
        folder: of the run; checkpoints go to `folder/checkpoints`.
        evaluate: the metric on `valid` of the model as it is, or None where there is nothing to evaluate on; all
            ranks call it together.
        growth: bytes that this process grew by at most since it was asked last.
        freed: told before every step.
        stop: checked after every step; once set, a checkpoint is written and InterruptedWorkError raised.
    """

    def __init__(
        self,
        work: StepWork,
        loader: Feed,
        config: TrainConfig,
        *,
        folder: Path,
        checkpoints: Checkpoints,
        events: Events,
        evaluate: Callable[[], float | None],
        growth: Callable[[], int] = lambda: 0,
        freed: FreedBlocks | None = None,
        ranks: Ranks | None = None,
        stop: threading.Event | None = None,
        progress: Progress = silent,
    ) -> None:
        self.model, self.task, self.loader, self.config = work.model, work.task, loader, config
        self.state = TrainState()
        self.optimizer = make_optimizer(self.model, config)
        self._work, self._ranks = work, ranks or Alone()
        self._folder, self._checkpoints, self._events = folder, checkpoints, events
        self._evaluate, self._progress, self._freed, self._growth = evaluate, progress, freed, growth
        self._stop = stop or threading.Event()
        self._mark = self._saved_at = time.monotonic()
        self._per_epoch = int(self._ranks.sum([len(loader) if self._ranks.stage == 0 else 0])[0])
        self._stopping = self._saving = False

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

    def wants(self, group: str) -> bool:
        """Whether `restore` needs that group of a checkpoint's tensors."""
        return group in ("model", "optimizer", "task") or group in self._work.lasting()

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go back to where `checkpoint` was written.

        Raises:
            ConfigError: it holds another model's weights.
        """
        assign_weights(self.model, self._own(checkpoint.tensors["model"]), path)
        values = checkpoint.state
        tensors = checkpoint.tensors["optimizer"]
        self.optimizer.load_state_dict(join_optimizer(tensors, values["optimizer"], self._names()))
        self._work.restore(checkpoint.tensors)
        self.state = TrainState.from_json(values["train"])
        if hasattr(self.task, "load_state_dict"):
            self.task.load_state_dict({**checkpoint.tensors.get("task", {}), **values["task"]})
        # All ranks read the same source: the first one checks it, the others have other hops of it.
        place = {key: values["loader"][key] for key in ("epoch", "next")}
        self.loader.load_state_dict(values["loader"] if self._ranks.is_first else {**self.loader.state_dict(), **place})

    def _train_epoch(self) -> None:
        state = self.state
        self.model.train()
        self._mark = time.monotonic()
        batches = self._batches()
        while state.batches < self._per_epoch:
            count = min(self.config.micro_batches, self._per_epoch - state.batches)
            self.optimizer.zero_grad(set_to_none=True)
            if self._freed is not None:
                self._freed.before_step()
            sums = self._work.run(self.loader, batches, count, state.step)
            self._finish_step(sums, count)
            self._between_steps(sums)

    def _batches(self) -> Iterator[Batch]:
        """What is left of the epoch."""
        if self.state.batches == 0:
            self.loader.set_epoch(self.state.epoch)
        return iter(self.loader)

    def _finish_step(self, sums: StepSums, batches: int) -> None:
        """Agree with the other ranks, divide by the number of losses, take the optimizer's step and count it."""
        state = self.state
        self._progress("train", state.epoch + (state.batches + batches) / self._per_epoch, self.config.epochs)
        loss, count, seeds, edges, bytes_read, bad, stopping, saving = self._ranks.sum(
            [
                *(sums.loss, sums.count, sums.seeds, sums.edges, sums.bytes_read),
                *(sums.problem is not None, self._stop.is_set(), self._is_time_to_save()),
            ]
        )
        if bad:
            self._refuse_nan(sums.problem)
        self._stopping, self._saving = bool(stopping), bool(saving)
        self._ranks.sum_gradients(self.model.parameters())
        if count:
            for grad in self._gradients():
                grad.div_(count)
            self._clip()
            self._set_lr()
            self.optimizer.step()
        sums.loss, sums.count = loss, count
        state.step += 1
        state.batches += batches
        state.loss_sum += loss
        state.count += count
        state.seeds += int(seeds)
        state.edges += int(edges)
        state.bytes_read += int(bytes_read)
        for stage in ("wait_s", *THREAD_STAGES):
            setattr(state, stage, getattr(state, stage) + getattr(sums, stage))
        sums.wall_s = self._tick()

    def _set_lr(self) -> None:
        config, per_epoch = self.config, -(-self._per_epoch // self.config.micro_batches)
        steps, warmup = config.epochs * per_epoch, config.warmup_epochs * per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * lr_factor(config.lr_schedule, self.state.step, steps, warmup)

    def _clip(self) -> None:
        """Scale gradients down to `clip_norm`, by the norm over all stages: that of the norms of every parameter, in
        the order of the layers, so that it has the same bits for any number of stages."""
        if self.config.clip_norm is None:
            return
        own = [float(norm) for norm in torch._foreach_norm(self._gradients())] if self._gradients() else []
        of_all = self._ranks.gather(own if self._ranks.replica == 0 else [])  # replicas have equal gradients
        norm = torch.linalg.vector_norm(torch.tensor([value for part in of_all for value in part]))
        clip_grads_with_norm_(self.model.parameters(), self.config.clip_norm, norm)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def _is_time_to_save(self) -> bool:
        """The first rank's clock decides for all."""
        return self._ranks.is_first and time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S

    def _between_steps(self, sums: StepSums) -> None:
        """Events and, inside an epoch, checkpoints; at its end `_end_epoch` writes one."""
        state = self.state
        if state.step % _LOG_EVERY_STEPS == 1 or self._stopping:
            lr = self.optimizer.param_groups[0]["lr"]
            self._events.write("step", step=state.step, epoch=state.epoch, lr=lr, **sums.to_event())
        if sums.drift is not None:
            state.drifts.append(sums.drift)
            self._events.write("drift", **asdict(sums.drift), relative=sums.drift.relative)
            look_at(state.drifts, speak=self._ranks.is_first)
        if state.batches == self._per_epoch:
            return
        every = self.config.checkpoint_steps
        due = every and state.step % every == 0
        if due or self._stopping or self._saving:
            self.checkpoint()
        self._raise_when_stopped()

    def _end_epoch(self) -> None:
        state = self.state
        record = EpochRecord(
            loss=state.loss_sum / (state.count or 1),
            seconds=state.seconds,
            bytes_read=state.bytes_read,
            bytes_planned=int(self._ranks.sum([self.loader.planned_bytes(state.epoch)])[0]),
        )
        spent = {"wall_s": state.seconds, "wait_s": state.wait_s, "compute_s": state.seconds - state.wait_s}
        spent |= {stage: getattr(state, stage) for stage in THREAD_STAGES}
        rates = spent | {
            f"{what}_per_s": round(getattr(state, what) / max(state.seconds, 1e-9), 1) for what in ("seeds", "edges")
        }
        self.loader.set_epoch(state.epoch + 1)  # lets go of this epoch's buffers: evaluation needs the room
        due = (state.epoch + 1) % self.config.eval_every == 0 or state.epoch + 1 == self.config.epochs
        started = time.monotonic()
        record.valid = self._evaluate() if due else None
        rates |= {"eval_s": time.monotonic() - started, "lr": self.optimizer.param_groups[0]["lr"]}
        epoch = state.epoch
        state.end_epoch(record)
        self._note_best(epoch)
        rates["growth_bytes"] = self._growth()
        self._events.write("epoch", epoch=epoch, loss=record.loss, metrics=self._metrics(record), **rates)
        self._stopping = bool(self._ranks.sum([self._stop.is_set()])[0])
        every = self.config.checkpoint_steps
        due = due or bool(every and state.step % every == 0)
        if due or self._saving or self._stopping or self.config.chunks is None:
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
        """Write a checkpoint of this moment, between two steps; all ranks together."""
        started = time.monotonic()
        tensors, rest = split_optimizer(self.optimizer.state_dict(), self._names())
        parts: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict(), "optimizer": tensors}
        task_tensors, task_values = _task_state(self.task)
        if task_tensors:
            parts["task"] = task_tensors
        parts |= self._work.lasting()
        state = {
            "train": self.state.to_json(),
            "optimizer": merge_optimizers(self._ranks.gather(rest)),
            "task": task_values,
            "loader": self.loader.state_dict(),
        }
        path = self._checkpoints.commit(
            Checkpoint(step=self.state.step, tensors=parts, state=state), best=self.state.best_checkpoint
        )
        self._saved_at = time.monotonic()
        wall_ms = round(1000 * (self._saved_at - started), 1)
        self._events.write("checkpoint", path=path.name, step=self.state.step, wall_ms=wall_ms)

    def _names(self) -> list[str]:
        return [name for name, _ in self.model.named_parameters()]

    def _own(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Of the weights of all stages those of this one; all when there is no other, so that strangers are seen."""
        if self._ranks.num_stages == 1:
            return weights
        return {name: tensor for name, tensor in weights.items() if name in self.model.state_dict()}

    def _tick(self) -> float:
        """Count the seconds since the last call, or the start of the epoch, and return them."""
        passed = time.monotonic() - self._mark
        self.state.seconds += passed
        self._mark += passed
        return passed

    def _raise_when_stopped(self) -> None:
        if self._stopping:
            raise InterruptedWorkError(
                "GS-TRAIN-002",
                f"stopped after step {self.state.step} (epoch {self.state.epoch + 1}); a checkpoint was written",
                hint="Repeat the same command to continue.",
            )

    def _refuse_nan(self, problem: tuple[str, Batch] | None) -> None:
        state = self.state
        if problem is None:
            error = GnnsysError("GS-TRAIN-001", f"a value is not finite on another rank, in step {state.step}")
            error.everywhere = True
            raise error
        what, batch = problem
        report = {
            "problem": what,
            "epoch": state.epoch,
            "step": state.step,
            "batch": batch.index,
            "seeds": batch.seeds.tolist(),
            "n_id": batch.n_id.tolist(),
        }
        atomic_write(self._folder / "nan-batch.json", json.dumps(report).encode())
        raise GnnsysError(
            "GS-TRAIN-001",
            f"{what} in epoch {state.epoch + 1}, step {state.step}, batch {batch.index} "
            f"(ids in {self._folder / 'nan-batch.json'})",
            hint="Lower --lr, or look for extreme values in the features of these nodes.",
        )


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam over all parameters; a stage may have none."""
    return torch.optim.Adam([{"params": list(model.parameters())}], lr=config.lr, weight_decay=config.weight_decay)


def _task_state(task: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = dict(task.state_dict()) if hasattr(task, "state_dict") else {}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}
