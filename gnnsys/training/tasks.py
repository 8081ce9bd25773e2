"""Tasks: what the seeds are, what the loss is and how outputs are scored; the trainer knows nothing else about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError, InputDataError
from gnnsys.models.fold import fold
from gnnsys.samplers.seeds import Seeds, refuse_outside
from gnnsys.storage.labels import LabelKind
from gnnsys.training.code_identity import identity_of_code
from gnnsys.training.metrics import Metric, make_metric

if TYPE_CHECKING:
    from gnnsys.storage.store import Store


Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, labels) -> losses, not yet added up."""


class Task(Protocol):
    """What a trainer asks of a task. Node labels are nothing special: `loss` and `score` see the whole batch.

    Optional, used when a task has them:
        `order`: `shuffle` or `fixed`; a loader in another order is refused.
        `before_step(batch)`: called before the outputs of every batch; may return a batch to use instead, for
            example with rows of mutable state added. Also once before training, to see what memory a step takes; what
            `state_dict` gave is loaded afterwards.
        `after_step(out, batch)`: called after the backward pass of every batch with the detached outputs.
        `state_dict()`, `load_state_dict(state)`: tensors and plain numbers by name, saved in every checkpoint.
        `identity()`: JSON values that decide the loss; a run resumes only under equal ones.
        `outputs(..., key=(seed, step, micro_batch))`: passed on when the parameter is there, for `fold`.
    """

    metric: Metric
    """What `score` updates. It is reset before and computed after each pass over a split."""

    def seeds(self, store: Store, split: str) -> Seeds | np.ndarray:
        """The seeds of a split: node ids, or `Seeds` with pairs."""

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What loss and score need; for node tasks (B, C), one row per seed."""

    def loss(self, out: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Sum of the losses of a batch and of their weights, which is their number where all count the same; the
        trainer divides by the second sum of the whole step."""

    def score(self, out: Tensor, batch: Batch) -> None:
        """Update `metric`."""


class NodeClassification:
    """Cross-entropy on labelled seeds; unlabelled ones (-1) have no loss and no score.

    Args:
        num_classes: width of the model's output.
        metric: `acc`, or `rocauc` for two classes.
        loss: (outputs (n, C), classes (n,)) -> losses (n,) of the labelled seeds, in place of cross-entropy.
        class_weights: (C,) at least 0: what a seed of each class counts; all the same when None.

    Raises:
        ConfigError: the metric is unknown, or `rocauc` with other than two classes; weights that are not these.
    """

    order = "shuffle"

    def __init__(
        self,
        num_classes: int,
        metric: str = "acc",
        *,
        loss: Loss | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        if num_classes < 1:
            raise ConfigError("GS-CFG-504", f"num_classes is {num_classes}; it must be at least 1")
        if metric == "rocauc" and num_classes != 2:
            raise ConfigError(
                "GS-CFG-505", f"metric rocauc is for 2 classes, there are {num_classes}", hint="Use --metric acc."
            )
        self.num_classes = num_classes
        self.metric = make_metric(metric)
        self._loss = loss
        self._weights = None if class_weights is None else checked_weights(class_weights, num_classes)

    def identity(self) -> dict[str, Any]:
        own: dict[str, Any] = {} if self._loss is None else {"loss": identity_of_code(self._loss)}
        if self._weights is not None:
            own["class_weights"] = self._weights.tolist()
        return {"num_classes": self.num_classes, "metric": self.metric.name, **own}

    def seeds(self, store: Store, split: str) -> Seeds:
        """All nodes of the split.

        Raises:
            ConfigError: the Store has no such split, no labels, or more classes than the task.
        """
        refuse_labels(store, "class")
        if store.num_classes > self.num_classes:
            raise ConfigError(
                "GS-CFG-506", f"{store.path} has {store.num_classes} classes, the task was made for {self.num_classes}"
            )
        return Seeds.nodes(store.split(split), order="shuffle", name=split)

    def outputs(self, model: nn.Module, batch: Batch, key: tuple[int, ...] | None = None) -> Tensor:
        return rows_of_seeds(model, batch, key, self.num_classes, "class")

    def loss(self, out: Tensor, batch: Batch) -> tuple[Tensor, float]:
        y = labels_of(batch)
        count = int((y >= 0).sum())
        if self._loss is None and self._weights is None:
            return cross_entropy(out, y, ignore_index=-1, reduction="sum"), count
        out, y = out[y >= 0], y[y >= 0]
        losses = cross_entropy(out, y, reduction="none") if self._loss is None else self._loss(out, y)
        if losses.shape != (count,):
            raise ConfigError(
                "GS-CFG-904", f"the loss gives shape {tuple(losses.shape)}, expected one per labelled seed: ({count},)"
            )
        if self._weights is None:
            return losses.sum(), count
        weights = self._weights.to(y.device)[y]
        return (losses * weights).sum(), float(weights.double().sum())

    def score(self, out: Tensor, batch: Batch) -> None:
        y = labels_of(batch)
        self.metric.update(out[y >= 0], y[y >= 0])


def checked_weights(given: Sequence[float] | Tensor, num_classes: int) -> Tensor:
    """(C,) float32.

    Raises:
        ConfigError: not one finite number of at least 0 per class, one of them above 0.
    """
    if isinstance(given, str):
        raise ConfigError(
            "GS-CFG-954",
            f"class_weights is {given!r}: a task knows no graph to count the classes of",
            hint="Count them: class_weights=gs.balanced_weights(store).",
        )
    try:
        weights = torch.as_tensor(given, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        weights = torch.empty(0)
    good = weights.shape == (num_classes,) and bool((weights.isfinite() & (weights >= 0)).all() and weights.any())
    if not good:
        raise ConfigError(
            "GS-CFG-950",
            f"class_weights {given!r:.80}: expected ({num_classes},) finite numbers of at least 0, not all 0",
        )
    return weights


def balanced_weights(store: Store, nodes: np.ndarray | None = None) -> list[float]:
    """(C,): n / (C * n_c) for n_c of the n labelled ones among `nodes`; 0 for a class that has none there.

    Args:
        nodes: (n,) ids of what is trained on; those of the split `train` when None.

    Raises:
        ConfigError: the Store has no classes.

    What `--class-weights balanced` gives the task.

    Source: `sklearn.utils.class_weight.compute_class_weight`; the mean over the nodes is 1.
    """
    refuse_labels(store, "class")
    labels = store.labels()
    assert labels is not None
    ids = store.split("train") if nodes is None else np.asarray(nodes)
    refuse_outside(ids, store.num_nodes, "nodes")
    known = labels[ids]
    counts = np.bincount(known[known >= 0], minlength=store.num_classes)
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0).tolist()


def refuse_labels(store: Store, kind: LabelKind) -> None:
    """Raise ConfigError unless the Store has labels of that kind."""
    if store.num_outputs == 0:
        raise ConfigError("GS-CFG-506", f"{store.path}: no labels to learn", hint="Ingest with labels.")
    if store.label_kind != kind:
        raise ConfigError(
            "GS-CFG-902", f"{store.path}: the labels are of the kind {store.label_kind}, the task is for {kind}"
        )


def rows_of_seeds(model: nn.Module, batch: Batch, key: tuple[int, ...] | None, columns: int, what: str) -> Tensor:
    """(B, C) outputs of `model` for the seeds, refused when they are fewer than `columns`, one per `what`."""
    out = fold(model, batch, key=key)
    rows = batch.batch_size
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) < rows or out.shape[1] < columns:
        given = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise ConfigError(
            "GS-CFG-612",
            f"{type(model).__name__} gives {given}, expected one tensor with a row for each of {rows} seeds and a "
            f"column for each {what} ({columns})",
        )
    return out[:rows]


def labels_of(batch: Batch) -> Tensor:
    """Labels of the seeds."""
    if batch.y is None:
        raise InputDataError(
            "GS-IN-504", f"batch {batch.index} has no labels", hint="Load with with_y=True from a Store with labels."
        )
    return batch.y
