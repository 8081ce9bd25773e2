"""Score a model on splits of a Store: exact outputs where that is possible, and what was done is said.

Node tasks take outputs from `infer` (layer-wise, full-neighbour batches or sampled ones). Tasks with pairs get batches
from a Loader, with all neighbours when those fit, and `task.outputs` makes of them what it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gnnsys.batch import Batch
from gnnsys.budget import Budget
from gnnsys.failpoints import failpoint
from gnnsys.loading.loader import Loader
from gnnsys.progress import Progress, silent
from gnnsys.samplers.seeds import Seeds, as_seeds
from gnnsys.storage.store import Store
from gnnsys.training.inference import Inferred, infer
from gnnsys.training.outputs import device_of, distinct, evaluating, refuse_not_finite
from gnnsys.training.splits import Scored, scoring_bytes
from gnnsys.training.tasks import Task

_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a pass over some splits found."""

    metrics: dict[str, dict[str, float]]
    """Per split: value by metric name."""
    how: str
    """`layer-wise`, `full-neighbour` or `sampled`; the last when any split was."""
    counts: dict[str, int]
    """Seeds per split."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How evaluation may go about it."""

    budget: Budget
    """What is left of it may be taken."""
    scratch: Path
    """A folder for temporary files."""
    fanouts: Sequence[int]
    """For batches, when neither layer-wise nor full-neighbour inference is possible."""
    batch_size: int
    seed: int = 0
    weights: np.ndarray | None = None
    """(E,) what edges were drawn by in training: then batches are drawn so, as the network knows no other sums."""
    classes: np.ndarray | None = None
    """(C,) int64 numbers by which training knew the classes of the Store; None: the same."""
    rows: str = "mapped"
    progress: Progress = silent


def evaluate(model: nn.Module, task: Task, store: Store, splits: Sequence[str], plan: EvaluationPlan) -> Evaluation:
    """Value of the task's metric on every split; the model is left in the mode it was in.

    Raises:
        ConfigError: the Store has no such split.
        InputDataError: a split has no labelled seed.
        MemoryBudgetError: not even one node and its neighbours fit into the plan's budget.
    """
    seeds = {split: as_seeds(store, task.seeds(store, split)) for split in splits}
    counts = {split: len(found) for split, found in seeds.items()}
    failpoint("evaluate.begin")
    with evaluating(model):
        if all(found.ids is not None for found in seeds.values()):
            metrics, how = _by_nodes(model, task, store, seeds, plan)
        else:
            metrics, how = _by_batches(model, task, store, seeds, plan)
    return Evaluation(metrics=metrics, how=how, counts=counts)


def _by_nodes(
    model: nn.Module, task: Task, store: Store, seeds: dict[str, Seeds], plan: EvaluationPlan
) -> tuple[dict[str, dict[str, float]], str]:
    """One inference for the nodes of all splits together."""
    ids = {split: found.ids for split, found in seeds.items() if found.ids is not None}
    nodes = distinct(np.concatenate(list(ids.values())))
    budget = plan.budget.fork()
    budget.reserve(nodes.nbytes + sum(members.nbytes for members in ids.values()), "the splits")
    inferred = outputs_for(nodes, model, store, replace(plan, budget=budget))
    scoring = scoring_bytes(task, store, Scored(tuple(ids)))
    budget.reserve(scoring, "what the metric keeps")
    metrics = {}
    for split, members in ids.items():
        task.metric.reset()
        for batch, rows in _pseudo_batches(store, members, np.searchsorted(nodes, members), plan.classes):
            out = torch.from_numpy(inferred.outputs[rows])
            refuse_not_finite(out, f"nodes of {split}")
            task.score(out, batch)
        metrics[split] = {task.metric.name: task.metric.compute()}
    return metrics, inferred.how


def outputs_for(nodes: np.ndarray, model: nn.Module, store: Store, plan: EvaluationPlan) -> Inferred:
    """What `infer` gives for `nodes` (n,) int64 under that plan."""
    return infer(
        model,
        store,
        nodes=nodes,
        budget=plan.budget,
        scratch=plan.scratch,
        fanouts=plan.fanouts,
        batch_size=plan.batch_size,
        seed=plan.seed,
        weights=plan.weights,
        rows=plan.rows,
        progress=plan.progress,
    )


def _pseudo_batches(
    store: Store, ids: np.ndarray, rows: np.ndarray, classes: np.ndarray | None
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Batches that hold seeds and labels only, with the rows of their outputs."""
    labels = store.labels()
    numbers = None if classes is None else np.append(classes, -1)  # the last one is that of no class, -1
    for start in range(0, len(ids), _CHUNK_ROWS):
        part = ids[start : start + _CHUNK_ROWS]
        seeds = torch.from_numpy(part)
        given = None if labels is None else np.asarray(labels[part])
        given = given if given is None or numbers is None else numbers[given]
        y = None if given is None else torch.from_numpy(given)
        degree = torch.zeros(len(part), dtype=torch.int32)
        batch = Batch(seeds=seeds, n_id=seeds, num_nodes=(len(part),), blocks=(), degree=degree, y=y)
        yield batch, rows[start : start + _CHUNK_ROWS]


def _by_batches(
    model: nn.Module, task: Task, store: Store, seeds: dict[str, Seeds], plan: EvaluationPlan
) -> tuple[dict[str, dict[str, float]], str]:
    device = device_of(model)
    metrics, ways = {}, set()
    for split, found in seeds.items():
        loader, how = _loader(store, found, plan)
        ways.add(how)
        task.metric.reset()
        with loader:
            for batch in loader:
                moved = batch.to(device)
                out = task.outputs(model, moved)
                refuse_not_finite(out, f"batch {batch.index} of {split}")
                task.score(out, moved)
        metrics[split] = {task.metric.name: task.metric.compute()}
    return metrics, "sampled" if "sampled" in ways else "full-neighbour"


def _loader(store: Store, seeds: Seeds, plan: EvaluationPlan) -> tuple[Loader, str]:
    """Batches with all neighbours when half of the memory left holds them, else sampled as in training."""
    full = [] if plan.weights is not None else [("full-neighbour", [-1] * len(plan.fanouts))]
    for how, fanouts in (*full, ("sampled", list(plan.fanouts))):
        loader = Loader(
            store,
            seeds=seeds,
            fanouts=fanouts,
            batch_size=plan.batch_size,
            order="fixed",
            seed=plan.seed,
            weights=plan.weights,
            rows=plan.rows,
            prefetch=1,
            workers=1,
        )
        if how == "sampled" or 2 * loader.memory_bytes() <= plan.budget.left:
            return loader, how
        loader.close()
    raise AssertionError
