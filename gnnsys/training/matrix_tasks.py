"""Tasks on label matrices: several yes-or-no answers per node, or numbers; what is unknown (NaN) has no loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.samplers.seeds import Seeds
from gnnsys.storage.labels import LabelKind
from gnnsys.storage.store import Store
from gnnsys.training.code_identity import identity_of_code
from gnnsys.training.matrix_metrics import MULTILABEL_METRICS, REGRESSION_METRICS
from gnnsys.training.metrics import Metric, make_metric
from gnnsys.training.tasks import Loss, labels_of, refuse_labels, rows_of_seeds


class _MatrixTask:
    """A loss per known label, divided by how many there are in the step."""

    order = "shuffle"
    kind: LabelKind
    metrics: Mapping[str, type[Metric]]

    def __init__(self, num_outputs: int, metric: str, loss: Loss, name: str) -> None:
        if num_outputs < 1:
            raise ConfigError("GS-CFG-504", f"the task has {num_outputs} outputs; it must have at least 1")
        self.num_outputs = num_outputs
        self.metric = make_metric(metric, self.metrics)
        self._loss, self._name = loss, name

    def identity(self) -> dict[str, Any]:
        return {"num_outputs": self.num_outputs, "metric": self.metric.name, "loss": self._name}

    def seeds(self, store: Store, split: str) -> Seeds:
        """All nodes of the split.

        Raises:
            ConfigError: the Store has no such split, labels of another kind, or another number of columns.
        """
        refuse_labels(store, self.kind)
        if store.num_outputs != self.num_outputs:
            raise ConfigError(
                "GS-CFG-506",
                f"{store.path} has labels of {store.num_outputs} columns, the task was made for {self.num_outputs}",
            )
        return Seeds.nodes(store.split(split), order="shuffle", name=split)

    def outputs(self, model: nn.Module, batch: Batch, key: tuple[int, ...] | None = None) -> Tensor:
        return rows_of_seeds(model, batch, key, self.num_outputs, "label")[:, : self.num_outputs]

    def loss(self, out: Tensor, batch: Batch) -> tuple[Tensor, float]:
        y = labels_of(batch)
        known = ~y.isnan()
        # Zeros where nothing is known, so that no NaN reaches a gradient; what they cost is left out.
        losses = self._loss(out, torch.where(known, y, 0.0))
        if losses.shape != y.shape:
            raise ConfigError(
                "GS-CFG-904", f"the loss gives shape {tuple(losses.shape)}, expected one per label: {tuple(y.shape)}"
            )
        return losses[known].sum(), int(known.sum())

    def score(self, out: Tensor, batch: Batch) -> None:
        self.metric.update(out, labels_of(batch))


class MultilabelClassification(_MatrixTask):
    """Binary cross-entropy on logits, of every known answer.

    Args:
        num_labels: columns of the labels, and width of the model's output.
        metric: `rocauc` (mean over the columns), `f1` (micro) or `acc`.
        loss: (logits (n, T), answers (n, T)) -> losses (n, T), in place of cross-entropy.

    Raises:
        ConfigError: the metric is unknown.
    """

    kind: LabelKind = "multilabel"
    metrics = MULTILABEL_METRICS

    def __init__(self, num_labels: int, metric: str = "rocauc", *, loss: Loss | None = None) -> None:
        super().__init__(num_labels, metric, loss or _cross_entropy, "bce" if loss is None else identity_of_code(loss))


class NodeRegression(_MatrixTask):
    """Squared or absolute error of every known number.

    Args:
        num_targets: columns of the labels, and width of the model's output.
        metric: `rmse`, `mae` or `r2`.
        loss: `mse`, `l1`, or (outputs (n, T), targets (n, T)) -> losses (n, T).

    Raises:
        ConfigError: metric or loss are unknown.
    """

    kind: LabelKind = "regression"
    metrics = REGRESSION_METRICS

    def __init__(self, num_targets: int, metric: str = "rmse", *, loss: str | Loss = "mse") -> None:
        if isinstance(loss, str) and loss not in _LOSSES:
            raise ConfigError("GS-CFG-905", f"loss {loss!r} is not known; there are {', '.join(_LOSSES)}")
        found = _LOSSES[loss] if isinstance(loss, str) else loss
        super().__init__(num_targets, metric, found, loss if isinstance(loss, str) else identity_of_code(loss))


def _cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(out, y, reduction="none")


def _squared(out: Tensor, y: Tensor) -> Tensor:
    return mse_loss(out, y, reduction="none")


def _absolute(out: Tensor, y: Tensor) -> Tensor:
    return l1_loss(out, y, reduction="none")


_LOSSES: dict[str, Loss] = {"mse": _squared, "l1": _absolute}
