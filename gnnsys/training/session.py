"""One start of a run: fit into the memory given, go on from the newest checkpoint, train, score, write the result."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnsys.budget import GrowthMeter, counted_bytes, give_back_freed_blocks
from gnnsys.errors import ConfigError, InterruptedWorkError
from gnnsys.models.fold import layers_of, refuse_folded
from gnnsys.pipeline.ranks import Ranks, local_device, world
from gnnsys.progress import Progress, silent
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import atomic_write
from gnnsys.storage.hint import write_hint
from gnnsys.storage.lock import WriterLock
from gnnsys.training.checkpoint import Checkpoints
from gnnsys.training.chunk_feed import ChunkFeed
from gnnsys.training.chunk_work import ChunkWork
from gnnsys.training.config import TrainConfig, config_digest
from gnnsys.training.evaluate import Evaluation, EvaluationPlan, evaluate
from gnnsys.training.events import EventLog, Events, NoEvents
from gnnsys.training.feed import Feed
from gnnsys.training.folder import (
    BEST,
    FINAL,
    RESULT,
    RUN_FILE,
    Resume,
    read_result,
    refuse_foreign,
    refuse_other,
    start_run,
    write_json,
)
from gnnsys.training.host import choose_device, host_facts, torch_threads, versions
from gnnsys.training.job import Job
from gnnsys.training.memory import room_on_gpu, trim
from gnnsys.training.run_file import write_run_file
from gnnsys.training.shares import share_memory
from gnnsys.training.splits import scoring_bytes
from gnnsys.training.stages import Share, check_cuttable, layer_widths, open_share
from gnnsys.training.state import TrainState
from gnnsys.training.step import StepWork
from gnnsys.training.tensors import encode, read_weights, weights_digest
from gnnsys.training.together import take_part
from gnnsys.training.trainer import Trainer
from gnnsys.training.warmup import warm_up


@contextmanager
def measured(out: Path, config: TrainConfig) -> Iterator[GrowthMeter]:
    """Warm up and measure growth from here on; a finished run needs no warm-up."""
    give_back_freed_blocks()
    if not (out / RESULT).exists():
        warm_up(choose_device(local_device(config.device)))
        trim()
    if not counted_bytes():
        warnings.warn(
            "GS-CFG-888: this system does not tell what a process uses: --memory is kept by calculation alone, what a "
            "step takes is not measured",
            RuntimeWarning,
            stacklevel=2,
        )
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
    config = job.config
    device = choose_device(local_device(config.device))
    _refuse_indivisible(job)
    ranks = take_part(config, device, config_digest(job.decisive))
    with closing(ranks), torch_threads(config.threads), ExitStack() as stack:
        found = ranks.first(lambda: _enter(job, out, resume, stack))
        with room_on_gpu():
            return found or _Session(job, out, meter, stop, progress, device, ranks).run()


def _refuse_indivisible(job: Job) -> None:
    """Raise ConfigError where several processes were started and cannot share the work."""
    if world() == 1:
        return
    if not job.own_loader:
        raise ConfigError(
            "GS-CFG-817",
            "a Loader of your own reads for one process",
            hint="Give the Pack or Store instead: every rank opens its part of it.",
        )
    stages = job.config.pipeline or 1
    if job.config.chunks is not None and world() != stages:
        raise ConfigError(
            "GS-CFG-817",
            f"{world()} processes were started for {stages} stages: chunks read each other's rows and have no replicas",
            hint=f"Use --pipeline {world()}, or start {stages}.",
        )
    kept = [name for name in ("before_step", "after_step", "state_dict") if hasattr(job.task, name)]
    if kept:
        raise ConfigError(
            "GS-CFG-817",
            f"the task {type(job.task).__name__} keeps state between batches ({', '.join(kept)}): several processes "
            "cannot share it",
            hint="Train it in one process.",
        )


def _enter(job: Job, out: Path, resume: Resume, stack: ExitStack) -> dict[str, Any] | None:
    """Take the folder for this run, as long as `stack` lasts; returns the result of a finished one."""
    refuse_foreign(out)
    stack.enter_context(WriterLock(out))
    refuse_other(out, job.decisive, resume)
    return read_result(out)


@contextmanager
def _ending(events: Events) -> Iterator[None]:
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


class _Session:
    """The steps of `execute` that share folder, events and model."""

    def __init__(
        self,
        job: Job,
        out: Path,
        meter: GrowthMeter,
        stop: threading.Event | None,
        progress: Progress,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self._job, self._out, self._meter = job, out, meter
        self._stop, self._progress = stop, progress if ranks.is_first else silent
        self._config, self._device, self._ranks = job.config, device, ranks
        self._checkpoints = Checkpoints(out / "checkpoints", config_digest(job.decisive), ranks)
        self._events: Events = NoEvents()
        self._how = "none"

    def run(self) -> dict[str, Any]:
        """Everything that may be refused comes first: a try that fails there leaves no run behind."""
        job, config, ranks = self._job, self._config, self._ranks
        self._model = model = job.make_model().to(self._device)
        job.model = model if ranks.is_first else None
        layers = len(layers_of(model) or ())
        if config.chunks is not None:
            check_cuttable(model)
        share = open_share(model, partial(job.make_loader, self._device), ranks, layers, config.precision)
        self._bounds, loader = share.bounds, share.loader
        with closing(loader) if job.own_loader else nullcontext():
            if loader.aggregate is not None:
                refuse_folded(model, loader.aggregate)
            work = self._work(share)
            scoring = 0 if job.store is None else scoring_bytes(job.task, job.store, job.scored)
            self._memory = share_memory(
                work, loader, config, self._device, ranks, self._meter, resize=job.own_loader, scoring=scoring
            )
            ranks.first(self._begin)
            with _ending(self._events):
                state, resumed_from = self._train(work, loader)
                self._collect(share.model)
                ranks_did = self._told_by_ranks(work)
                result: dict[str, Any] = ranks.first(lambda: self._finish(state, resumed_from, ranks_did))
        return result

    def _work(self, share: Share) -> StepWork:
        common = (share.model, self._job.task, self._config, self._device, self._ranks)
        feed = share.loader
        if not isinstance(feed, ChunkFeed):
            return StepWork(*common, share.arriving)
        widths = layer_widths(self._model, feed.opened.table_columns(), self._config.precision)
        return ChunkWork(*common, widths[share.bounds[self._ranks.stage]], feed)

    def _begin(self) -> None:
        """The folder holds this run from now on."""
        job = self._job
        rest = {**job.hints, "options": job.config.model_dump(mode="json"), "threads": torch.get_num_threads()}
        document = start_run(self._out, job.decisive, {**rest, "versions": versions()})
        self._threads_before = int(document["threads"])
        if job.repeat is not None and not (self._out / RUN_FILE).exists():
            write_run_file(self._out / RUN_FILE, self._as_done(), job.repeat)
        if job.store is not None:
            write_hint(self._out, job.store.path, job.store.id)
        self._events = EventLog(self._out / "events.jsonl", self._out.name)

    def _as_done(self) -> TrainConfig:
        """The options, with what this machine chose for them where it decides the weights."""
        device = self._device.type if self._config.device == "auto" else self._config.device
        return self._config.model_copy(update={"threads": torch.get_num_threads(), "device": device})

    def _train(self, work: StepWork, loader: Feed) -> tuple[TrainState, str | None]:
        """From the newest checkpoint, whose name is returned too, to the end."""
        trainer = self._trainer(work, loader)
        resumed_from = self._restore(trainer)
        self._events.write(
            "run_start",
            config_digest=config_digest(self._job.decisive),
            dataset_digest=self._job.store.digest if self._job.store else None,
            resumed_from=resumed_from,
            argv=sys.argv,
            versions=versions(),
            host=host_facts(self._device),
            read_ahead={"prefetch": loader.prefetch, "workers": loader.workers},
        )
        state = trainer.fit()
        self._memory.freed.give_back()
        return state, resumed_from

    def _trainer(self, work: StepWork, loader: Feed) -> Trainer:
        return Trainer(
            work,
            loader,
            self._config,
            folder=self._out,
            checkpoints=self._checkpoints,
            events=self._events,
            evaluate=lambda: self._validate(work.model),
            growth=self._meter.recent_growth,
            freed=self._memory.freed,
            ranks=self._ranks,
            stop=self._stop,
            progress=self._progress,
        )

    def _collect(self, own: nn.Module) -> None:
        """Give the first rank the weights of all stages."""
        whole = self._model.state_dict()
        for owner, (begin, end) in enumerate(pairwise(self._bounds)):
            prefixes = tuple(f"layers.{number}." for number in range(begin, end))
            self._ranks.collect({name: whole[name] for name in whole if name.startswith(prefixes)}, owner)

    def _told_by_ranks(self, work: StepWork) -> list[dict[str, Any]]:
        """What every rank did, in their order."""
        wires = self._ranks.wires()
        return self._ranks.gather(
            {
                "stage": self._ranks.stage,
                "replica": self._ranks.replica,
                **{f"{name}_s": round(seconds, 3) for name, seconds in asdict(work.seconds).items()},
                "bytes_sent": sum(wire.traffic.num_bytes for wire in wires),
                "messages_sent": sum(wire.traffic.num_messages for wire in wires),
                "peak_growth_bytes": self._meter.peak_growth,
                "baseline_bytes": self._meter.baseline,
            }
        )

    def _restore(self, trainer: Trainer) -> str | None:
        """Continue from the newest good checkpoint; returns its name."""
        name = self._ranks.first(self._newest)
        if not name:
            return None
        trainer.restore(self._checkpoints.load(name, trainer.wants), self._out / "checkpoints" / name)
        return str(name)

    def _newest(self) -> str | None:
        found, problems = self._checkpoints.load_latest(lambda _group: False)
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
        return found.name

    def _warn(self, code: str, message: str) -> None:
        self._events.write("warning", code=code, msg=message)
        warnings.warn(f"{code}: {message}", RuntimeWarning, stacklevel=2)

    def _validate(self, own: nn.Module) -> float | None:
        """The metric on `valid` with the weights of all stages, found by the first rank."""
        store, task = self._job.store, self._job.task
        valid = self._job.scored.valid
        if store is None or valid is None or not hasattr(task, "metric"):
            return None
        self._collect(own)
        value: float = self._ranks.first(lambda: self._evaluate([valid]).metrics[valid][task.metric.name])
        return value

    def _evaluate(self, splits: Sequence[str]) -> Evaluation:
        assert self._job.store is not None
        self._memory.freed.give_back()
        options = self._config
        plan = EvaluationPlan(
            budget=self._memory.budget,
            scratch=self._out,
            fanouts=options.fanouts or (),
            batch_size=options.batch_size or 1024,
            seed=options.seed,
            weights=self._job.weights,
            progress=self._progress,
        )
        found = evaluate(self._model, self._job.task, self._job.store, splits, plan)
        self._how = found.how
        for split, metrics in found.metrics.items():
            self._events.write("eval", split=split, metrics=metrics, n=found.counts[split])
        trim()
        return found

    def _finish(self, state: TrainState, resumed_from: str | None, ranks_did: list[dict[str, Any]]) -> dict[str, Any]:
        """Write both sets of weights, score the best ones on every split and write the result."""
        model = self._model
        final_digest = weights_digest(model)
        files = {
            FINAL: self._write(FINAL, model.state_dict()),
            BEST: self._write(BEST, self._best_weights(state.best_checkpoint)),
        }
        model.zero_grad(set_to_none=True)
        read_weights(model, self._out / BEST, files[BEST])
        metrics = self._final_metrics()
        read_weights(model, self._out / FINAL, files[FINAL])
        result = {
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
            "peak_growth_bytes": sum(rank["peak_growth_bytes"] for rank in ranks_did),
            "baseline_bytes": sum(rank["baseline_bytes"] for rank in ranks_did),
            "device": str(self._device),
            "threads": torch.get_num_threads(),
            "resumed_from": resumed_from,
        }
        if self._config.chunks is not None:
            result["drifts"] = [asdict(drift) for drift in state.drifts]
        if len(ranks_did) > 1:
            result["pipeline"] = {"schedule": self._config.schedule, "bounds": self._bounds, "ranks": ranks_did}
        write_json(self._out / RESULT, result)
        return result

    def _best_weights(self, checkpoint: str) -> Mapping[str, Tensor]:
        return self._checkpoints.load(checkpoint, lambda group: group == "model").tensors["model"]

    def _write(self, name: str, weights: Mapping[str, Tensor]) -> str:
        """Write a file of weights; returns its digest."""
        data = encode(weights)
        atomic_write(self._out / name, data)
        return digest(data)

    def _final_metrics(self) -> dict[str, dict[str, float]]:
        scored = self._job.scored.names
        if self._job.store is None or not scored or not hasattr(self._job.task, "metric"):
            return {}
        return self._evaluate(scored).metrics
