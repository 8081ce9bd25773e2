"""One start of a run: fit into the memory given, go on from the newest checkpoint, train, score, write the result."""

from __future__ import annotations

import os
import platform
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnnsys.budget import GrowthMeter, give_back_freed_blocks
from gnnsys.errors import ConfigError, InterruptedWorkError
from gnnsys.loading.loader import Loader
from gnnsys.models.fold import refuse_folded
from gnnsys.progress import Progress, silent
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import atomic_write
from gnnsys.storage.hint import write_hint
from gnnsys.storage.lock import WriterLock
from gnnsys.storage.store import Store
from gnnsys.training.checkpoint import Checkpoints
from gnnsys.training.config import TrainConfig, config_digest
from gnnsys.training.evaluate import Evaluation, EvaluationPlan, evaluate
from gnnsys.training.events import EventLog
from gnnsys.training.folder import (
    BEST,
    FINAL,
    RESULT,
    Resume,
    read_result,
    refuse_foreign,
    refuse_other,
    start_run,
    write_json,
)
from gnnsys.training.memory import trim
from gnnsys.training.shares import share_memory
from gnnsys.training.state import TrainState
from gnnsys.training.tasks import Task
from gnnsys.training.tensors import encode, read_weights, weights_digest
from gnnsys.training.trainer import Trainer
from gnnsys.training.warmup import warm_up


@dataclass(kw_only=True)
class Job:
    """What to train, on what, and how it is described in `config.json`."""

    config: TrainConfig
    task: Task
    store: Store | None
    """For evaluation; without it the last epoch counts as the best."""
    decisive: Mapping[str, Any]
    """What decides the weights."""
    hints: Mapping[str, Any]
    """Paths, kept for `Run.evaluate`."""
    make_model: Callable[[], nn.Module]
    make_loader: Callable[[torch.device], Loader]
    own_loader: bool = True
    """The loader is made here: its read-ahead may be chosen, and it is closed at the end."""
    model: nn.Module | None = field(default=None, init=False)
    """The trained model, with the final weights."""


@contextmanager
def measured(out: Path) -> Iterator[GrowthMeter]:
    """Warm up and measure growth from here on; a finished run needs no warm-up."""
    give_back_freed_blocks()
    if not (out / RESULT).exists():
        warm_up()
        trim()
    with GrowthMeter() as meter:
        yield meter


def execute(
    job: Job,
    out: Path,
    meter: GrowthMeter,
    *,
    resume: Resume = "auto",
    stop: threading.Event | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train `job` in folder `out` and return its result; a finished run returns the result that it has.

    Raises:
        ConfigError: the folder holds another run, or any under `resume="never"`.
        StoreBusyError: another process trains there.
        MemoryBudgetError: a step, the loader or an evaluation does not fit into the memory given.
        InterruptedWorkError: `stop` was set.
    """
    refuse_foreign(out)
    with WriterLock(out), _torch_threads(job.config.threads):
        refuse_other(out, job.decisive, resume)
        if (finished := read_result(out)) is not None:
            return finished
        return _Session(job, out, meter, stop, progress).run()


@contextmanager
def _ending(events: EventLog) -> Iterator[None]:
    """Say in the events how the block ended."""
    try:
        yield
    except InterruptedWorkError:
        events.write("run_end", status="interrupted")
        raise
    except Exception as error:
        events.write("error", code=getattr(error, "code", type(error).__name__), msg=str(error))
        events.write("run_end", status="failed")
        raise
    events.write("run_end", status="finished")


def _host(device: torch.device) -> dict[str, Any]:
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cores": os.cpu_count(), "ram": ram, "gpu": gpu, "threads": torch.get_num_threads()}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


class _Session:
    """The steps of `execute` that share folder, events and model."""

    def __init__(
        self,
        job: Job,
        out: Path,
        meter: GrowthMeter,
        stop: threading.Event | None,
        progress: Progress,
    ) -> None:
        self._job, self._out, self._meter = job, out, meter
        self._stop, self._progress = stop, progress
        self._config = job.config
        self._device = choose_device(job.config.device)
        self._checkpoints = Checkpoints(out / "checkpoints", config_digest(job.decisive))
        self._how = "none"

    def run(self) -> dict[str, Any]:
        """Everything that may be refused comes first: a try that fails there leaves no run behind."""
        job = self._job
        job.model = model = job.make_model().to(self._device)
        loader = job.make_loader(self._device)
        with closing(loader) if job.own_loader else nullcontext():
            if loader.aggregate is not None:
                refuse_folded(model, loader.aggregate)
            task, own = job.task, job.own_loader
            self._budget = share_memory(model, task, loader, self._config, self._device, resize=own)
            self._begin()
            with _ending(self._events):
                state, resumed_from = self._train(model, loader)
                result = self._finish(model, state, resumed_from)
                write_json(self._out / RESULT, result)
        return result

    def _begin(self) -> None:
        """The folder holds this run from now on."""
        job = self._job
        rest = {**job.hints, "options": job.config.model_dump(mode="json"), "threads": torch.get_num_threads()}
        document = start_run(self._out, job.decisive, {**rest, "versions": _versions()})
        self._threads_before = int(document["threads"])
        if job.store is not None:
            write_hint(self._out, job.store.path, job.store.id)
        self._events = EventLog(self._out / "events.jsonl", self._out.name)

    def _train(self, model: nn.Module, loader: Loader) -> tuple[TrainState, str | None]:
        """From the newest checkpoint, whose name is returned too, to the end."""
        trainer = self._trainer(model, loader)
        resumed_from = self._restore(trainer)
        self._events.write(
            "run_start",
            config_digest=config_digest(self._job.decisive),
            dataset_digest=self._job.store.digest if self._job.store else None,
            resumed_from=resumed_from,
            argv=sys.argv,
            versions=_versions(),
            host=_host(self._device),
            read_ahead={"prefetch": loader.prefetch, "workers": loader.workers},
        )
        return trainer.fit(), resumed_from

    def _trainer(self, model: nn.Module, loader: Loader) -> Trainer:
        return Trainer(
            model,
            self._job.task,
            loader,
            self._config,
            folder=self._out,
            checkpoints=self._checkpoints,
            events=self._events,
            device=self._device,
            evaluate=lambda: self._validate(model),
            stop=self._stop,
            progress=self._progress,
        )

    def _restore(self, trainer: Trainer) -> str | None:
        """Continue from the newest good checkpoint; returns its name."""
        found, problems = self._checkpoints.load_latest()
        for problem in problems:
            self._warn("GS-STORE-008", f"a checkpoint was passed over: {problem}")
        if found is None:
            return None
        if self._threads_before != torch.get_num_threads():
            self._warn(
                "GS-CFG-522",
                f"this run was started with {self._threads_before} threads and goes on with "
                f"{torch.get_num_threads()}: the last bits of the weights may differ (--threads)",
            )
        trainer.restore(found, self._out / "checkpoints" / found.name)
        return found.name

    def _warn(self, code: str, message: str) -> None:
        self._events.write("warning", code=code, msg=message)
        warnings.warn(f"{code}: {message}", RuntimeWarning, stacklevel=2)

    def _validate(self, model: nn.Module) -> float | None:
        store, task = self._job.store, self._job.task
        if store is None or "valid" not in store.split_names or not hasattr(task, "metric"):
            return None
        found = self._evaluate(model, ["valid"])
        return found.metrics["valid"][task.metric.name]

    def _evaluate(self, model: nn.Module, splits: list[str]) -> Evaluation:
        assert self._job.store is not None
        trim()
        options = self._config
        plan = EvaluationPlan(
            budget=self._budget,
            scratch=self._out,
            fanouts=options.fanouts or (),
            batch_size=options.batch_size or 1024,
            seed=options.seed,
            progress=self._progress,
        )
        found = evaluate(model, self._job.task, self._job.store, splits, plan)
        self._how = found.how
        for split, metrics in found.metrics.items():
            self._events.write("eval", split=split, metrics=metrics, n=found.counts[split])
        trim()
        return found

    def _finish(self, model: nn.Module, state: TrainState, resumed_from: str | None) -> dict[str, Any]:
        """Write both sets of weights and score the best ones on every split."""
        final_digest = weights_digest(model)
        files = {
            FINAL: self._write(FINAL, model.state_dict()),
            BEST: self._write(BEST, self._checkpoints.load(state.best_checkpoint).tensors["model"]),
        }
        model.zero_grad(set_to_none=True)
        read_weights(model, self._out / BEST, files[BEST])
        metrics = self._final_metrics(model)
        read_weights(model, self._out / FINAL, files[FINAL])
        return {
            "run": str(self._out),
            "metrics": metrics,
            "evaluation": self._how,
            "best_epoch": state.best_epoch,
            "epochs": len(state.history),
            "losses": [record.loss for record in state.history],
            "valid": [record.valid for record in state.history],
            "epoch_s": [round(record.seconds, 4) for record in state.history],
            "bytes_read": [record.bytes_read for record in state.history],
            "bytes_planned": [record.bytes_planned for record in state.history],
            "weights_digest": final_digest,
            "files": files,
            "steps": state.step,
            "budget_bytes": self._config.memory,
            "peak_growth_bytes": self._meter.peak_growth,
            "baseline_bytes": self._meter.baseline,
            "device": str(self._device),
            "threads": torch.get_num_threads(),
            "resumed_from": resumed_from,
        }

    def _write(self, name: str, weights: Mapping[str, Tensor]) -> str:
        """Write a file of weights; returns its digest."""
        data = encode(weights)
        atomic_write(self._out / name, data)
        return digest(data)

    def _final_metrics(self, model: nn.Module) -> dict[str, dict[str, float]]:
        if self._job.store is None or not hasattr(self._job.task, "metric"):
            return {}
        return self._evaluate(model, self._job.store.split_names).metrics


def choose_device(name: str) -> torch.device:
    """The device of an option: `auto` is CUDA where there is one.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise ConfigError("GS-CFG-523", f"--device {name}: torch sees no CUDA device", hint="Use --device cpu.")
    return torch.device(name)


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """torch with `count` threads, as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
