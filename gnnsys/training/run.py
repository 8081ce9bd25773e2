"""Run: a folder with a trained model in it; `train` makes one from a model, a loader and a task."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gnnsys.budget import Budget, GrowthMeter
from gnnsys.errors import ConfigError, InputDataError, InterruptedWorkError
from gnnsys.loading.loader import Loader
from gnnsys.models.registry import NAMES, build
from gnnsys.progress import Progress, silent
from gnnsys.storage.hint import wanted_id
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store
from gnnsys.training.config import parse_config
from gnnsys.training.evaluate import EvaluationPlan, evaluate, outputs_for
from gnnsys.training.folder import BEST, CONFIG, FINAL, Resume, read_json, read_result
from gnnsys.training.host import choose_device
from gnnsys.training.interrupt import interruptible
from gnnsys.training.job import Job
from gnnsys.training.jobs import job_of_model, job_of_options
from gnnsys.training.memory import OVERHEAD_BYTES, room_on_gpu, state_bytes, trim
from gnnsys.training.outputs import scratch_in_run
from gnnsys.training.predictions import PIECE_BYTES, What, check_target, write_predictions
from gnnsys.training.scored_graph import class_numbers, graph_of, weights_of
from gnnsys.training.session import execute, measured
from gnnsys.training.task_names import task_of_identity
from gnnsys.training.tasks import Task
from gnnsys.training.tensors import read_weights
from gnnsys.training.warmup import warm_up
from gnnsys.units import parse_size

Source = Loader | Pack | Pool | Store | str | Path


def train(
    model: nn.Module,
    loader: Source,
    *,
    task: Task,
    out: str | Path,
    store: Store | str | Path | None = None,
    resume: Resume = "auto",
    stop: threading.Event | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Run:
    """Train `model` on the batches of `loader`, with checkpoints; repeating the call continues, or does nothing.

    Args:
        model: any module that `fold` can call; holds the final weights afterwards. A resumed run replaces its weights.
        loader: a Loader, or a Pack, a Pool or a Store to make one for (a Store needs `fanouts`).
        task: what the loss is, e.g. `NodeClassification(47)`.
        out: folder of the run.
        store: for evaluation, when the pack does not know where its Store is now.
        resume: `auto` continues what is in the folder, `never` refuses a folder with a run in it.
        stop: set it (from a signal handler, say) to end after the step under way, with a checkpoint. Ctrl-C does the
            same when there is none, then raises KeyboardInterrupt; a second one ends at once.
        progress: called with ("train", epochs done, epochs in all).
        options: those of `TrainConfig`: `epochs`, `lr`, `weight_decay`, `patience`, `micro_batches`, `memory`, `seed`,
            `threads`, `device`, `checkpoint_steps`, `eval_every`, ...

    Returns:
        The finished run.

    Raises:
        ConfigError: an option is unknown or does not fit; the folder holds another run.
        MemoryBudgetError: training does not fit into `memory`.
        InterruptedWorkError: `stop` was set; repeat the call to continue.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "GS-CFG-527", f"model is {model!r:.80}, expected a module", hint="Of a class make one first: Net(...)."
        )
    config = parse_config(options)
    with measured(Path(out), config) as meter:
        job = job_of_model(model, loader, task, config, store)
        return _run(job, Path(out), meter, resume, stop, progress)


def train_from_config(
    source: str | Path,
    options: dict[str, Any],
    out: str | Path,
    *,
    store: str | Path | None = None,
    resume: Resume = "auto",
    stop: threading.Event | None = None,
    progress: Progress = silent,
) -> Run:
    """`gnnsys train`: node classification by a model named in `options`, on a Pack, a Pool or a Store.

    Args:
        source: folder of the Pack, Pool or Store.
        options: those of `TrainConfig` by name; None means not given.
        out, store, resume, stop, progress: as for `train`.
    """
    config = parse_config(options)
    with measured(Path(out), config) as meter:
        job = job_of_options(source, config, store)
        return _run(job, Path(out), meter, resume, stop, progress)


def _run(
    job: Job, out: Path, meter: GrowthMeter, resume: Resume, stop: threading.Event | None, progress: Progress
) -> Run:
    with interruptible(stop) as asked:
        execute(job, out, meter, resume=resume, stop=asked, progress=progress)
    run = Run(out, model=job.model or job.make_model())
    if job.model is None:  # the run was finished before: the caller's model gets its weights all the same
        run.load_model(best=False, model=run._model)
    return run


def predict(run: Run | str | Path, out: str | Path, **options: Any) -> dict[str, Any]:
    """`Run.predict` of a run or of the one in a folder; see there.

    Example: gs.predict("runs/a", "preds.csv", what="probabilities", split="test")
    """
    return (run if isinstance(run, Run) else Run.open(run)).predict(out, **options)


class Run:
    """A finished run in folder `path`. Open one with `Run.open(path)`.

    Attributes:
        path: the folder.
        config: what `config.json` says: `options`, `decisive`, `digest`, hints.
        result: what `result.json` says, the same as `gnnsys train --json` prints.
    """

    def __init__(self, path: str | Path, *, model: nn.Module | None = None) -> None:
        path = Path(path)
        if not (path / CONFIG).exists():
            raise InputDataError(
                "GS-IN-511",
                f"{path}: no run there ({CONFIG} is missing)",
                hint="It is the folder that `gnnsys train --out` was given.",
            )
        result = read_result(path)
        if result is None:
            raise InterruptedWorkError(
                "GS-TRAIN-003", f"{path}: the run is not finished", hint="Repeat its train command: it continues."
            )
        self.path = path
        self.config = read_json(path / CONFIG)
        self.result: dict[str, Any] = result
        self._model = model

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The finished run in folder `path`.

        Raises:
            InputDataError: no run is there.
            InterruptedWorkError: it is not finished.
        """
        return cls(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, best_epoch={self.result['best_epoch']}, metrics={self.metrics})"

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Per split, at the best validation epoch."""
        found: dict[str, dict[str, float]] = self.result["metrics"]
        return found

    def load_model(self, best: bool = True, model: nn.Module | None = None) -> nn.Module:
        """The model with the weights of the best epoch, or of the last one, on the CPU and in eval mode.

        Args:
            model: of the user's own class, to be filled; code is never taken from the run's files. Not needed for
                models with a name, nor for the run that `train` returned.

        Raises:
            ConfigError: the model is of the user's own and was not given, or has other shapes.
            CorruptStoreError: the weights are not those that the run wrote.
        """
        loaded = model if model is not None else self._empty_model()
        name = BEST if best else FINAL
        read_weights(loaded, self.path / name, self.result["files"][name])
        return loaded.eval()

    def evaluate(
        self,
        split: str = "test",
        *,
        task: Task | None = None,
        model: nn.Module | None = None,
        store: Store | str | Path | None = None,
        on: Store | str | Path | None = None,
        memory: int | str | None = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        """Score the best weights on a split.

        Args:
            task: needed when the run was not node classification.
            model: needed for models of the user's own; see `load_model`.
            store: where the Store is now, when it has moved.
            on: another Store to score on, with the same features and labels of the same kind. Classes that have names
                are told by them, and may be fewer than those trained on.
            memory: bytes that this may take; as the run had when None.

        Returns:
            `run`, `split`, `metrics`, `evaluation` (how it was done), `seeds` (how many), `store` (the id of the one
            scored on), `same_graph` (it is the one trained on) and memory.

        Raises:
            ConfigError: `on` has other rows or labels, or `store` was given too.
            InputDataError: `store` is another Store; the split has no label.
        """
        graph = graph_of(self.path, self.config, store, on)
        classes = class_numbers(self.path, self.config, graph, own_task=task is not None)
        with self._inference(model, memory, device) as (loaded, plan, meter):
            plan = dataclasses.replace(plan, weights=weights_of(self.config, graph, same=on is None), classes=classes)
            found = evaluate(loaded, task or self._task(), graph, [split], plan)
            return {
                "run": str(self.path),
                "split": split,
                "metrics": found.metrics[split],
                "evaluation": found.how,
                "seeds": found.counts[split],
                "store": graph.id,
                "same_graph": graph.id == wanted_id(self.path),
                "peak_growth_bytes": meter.peak_growth,
                "baseline_bytes": meter.baseline,
            }

    def predict(
        self,
        out: str | Path,
        *,
        what: What = "class",
        split: str | None = None,
        model: nn.Module | None = None,
        store: Store | str | Path | None = None,
        on: Store | str | Path | None = None,
        memory: int | str | None = None,
        device: str = "auto",
        replace: bool = False,
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Write what the best weights say of every node to a file, as `evaluate` scores it, in bounded memory.

        Args:
            out: `.csv` in the ids of the source, or `.npy` in the order of node numbers; see
                `gnnsys.training.predictions`. Put there as a whole when all is known.
            what: `class`, `probabilities` (softmax over classes, sigmoid of several answers) or `outputs` of the model
                as they are.
            split: the nodes; all when None.
            model: needed for models of the user's own; see `load_model`.
            store: where the Store is now, when it has moved.
            on: another graph than the run was trained on, with the same features.
            memory: bytes that this may take; as the run had when None.
            replace: what stands in `out`, else refused unless it is the same.
            progress: called with ("infer" or "write", done, in all).

        Returns:
            `run`, `out`, `what`, `nodes` (how many), `evaluation` (how outputs were made), `store` (its id),
            `same_graph` (it is the one trained on) and memory as `evaluate` tells it.

        Raises:
            ConfigError: the file has another suffix, there is no such split, the Store's rows do not fit the model, or
                the task of the run has no `what`: several answers have no class, numbers and tasks of others have
                only outputs.
            MemoryBudgetError: not even one node fits.
        """
        target = Path(out)
        check_target(target, what, replace=replace)
        of_classes = self._refuse_meaningless(what)
        graph = graph_of(self.path, self.config, store, on)
        nodes = np.arange(graph.num_nodes) if split is None else graph.split(split)
        with self._inference(model, memory, device) as (loaded, plan, meter):
            plan.budget.reserve(nodes.nbytes + PIECE_BYTES, "the nodes and a piece of the file")
            weights = weights_of(self.config, graph, same=on is None)
            inferred = outputs_for(nodes, loaded, graph, dataclasses.replace(plan, weights=weights, progress=progress))
            write_predictions(
                target,
                what,
                graph,
                nodes,
                inferred.outputs,
                progress,
                of_classes=of_classes,
                class_names=self.config.get("class_names") or (),
                replace=replace,
            )
            return {
                "run": str(self.path),
                "out": str(target),
                "what": what,
                "split": split,
                "nodes": len(nodes),
                "evaluation": inferred.how,
                "store": graph.id,
                "same_graph": graph.id == wanted_id(self.path),
                "peak_growth_bytes": meter.peak_growth,
                "baseline_bytes": meter.baseline,
            }

    @contextmanager
    def _inference(
        self, model: nn.Module | None, memory: int | str | None, device: str
    ) -> Iterator[tuple[nn.Module, EvaluationPlan, GrowthMeter]]:
        """The best weights, how outputs may be made of them, and what this process grows by meanwhile."""
        there = choose_device(device)
        warm_up(there)
        trim()
        with GrowthMeter() as meter, room_on_gpu():
            loaded = self.load_model(model=model).to(there)
            options = self.config["options"]
            budget = Budget(parse_size(memory) if memory is not None else int(options["memory"]))
            budget.reserve(state_bytes(loaded) + OVERHEAD_BYTES, "the model and small things")
            with scratch_in_run(self.path) as scratch:
                plan = EvaluationPlan(
                    budget=budget,
                    scratch=scratch,
                    fanouts=options["fanouts"] or (),
                    batch_size=options["batch_size"] or 1024,
                    seed=options["seed"],
                )
                yield loaded, plan, meter

    def _refuse_meaningless(self, what: What) -> bool:
        """Whether an output is of a class, of which one is right.

        Raises:
            ConfigError: outputs of this task are no classes, or no probabilities.
        """
        kind, name = self.config["outputs"], self.config["decisive"]["task"].get("name")
        meant = ["outputs", *(["class"] if kind == "class" else [])]
        meant += ["probabilities"] if kind in ("class", "multilabel") else []
        if what not in meant:
            raise ConfigError(
                "GS-CFG-887",
                f"{self.path}: was trained for the task {name!r}, which has no {what}",
                hint=f"Use --what {' or '.join(meant)}.",
            )
        return bool(kind == "class")

    def _empty_model(self) -> nn.Module:
        if self._model is not None:
            return copy.deepcopy(self._model).cpu()
        sizes = self.config["decisive"]["model"]
        if sizes["name"] not in NAMES or sizes.keys() & {"code", "parameters"}:
            raise ConfigError(
                "GS-CFG-524",
                f"{self.path}: was trained with the model {sizes['name']!r}, which is not one of ours",
                hint="Pass it: run.load_model(model=Net(...)).",
            )
        return build(**sizes)

    def _task(self) -> Task:
        identity = self.config["decisive"]["task"]
        task = task_of_identity(identity)
        if task is None:
            raise ConfigError(
                "GS-CFG-525",
                f"{self.path}: was trained for the task {identity.get('name')!r}",
                hint="Pass the task: run.evaluate(split, task=...).",
            )
        return task
