"""The task that labels ask for, and the one that a run was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnsys.errors import ConfigError
from gnnsys.storage.store import Store
from gnnsys.training.matrix_tasks import MultilabelClassification, NodeRegression
from gnnsys.training.tasks import NodeClassification, Task, refuse_labels

USUAL_METRIC = {"class": "acc", "multilabel": "rocauc", "regression": "rmse"}


def task_of_labels(store: Store, metric: str, loss: str | None) -> Task:
    """The task for the labels of `store`.

    Raises:
        ConfigError: it has none; metric or loss are not for this kind of labels.
    """
    kind = store.label_kind or "class"
    refuse_labels(store, kind)
    if kind == "regression":
        return NodeRegression(store.num_outputs, metric, loss=loss or "mse")
    if loss is not None:
        raise ConfigError(
            "GS-CFG-905", f"loss {loss!r} is for numbers, the labels of {store.path} are {kind}", hint="Leave it out."
        )
    if kind == "multilabel":
        return MultilabelClassification(store.num_outputs, metric)
    return NodeClassification(store.num_outputs, metric)


def meaning_of_outputs(task: Task) -> str | None:
    """Of what the columns of a task's outputs are, `class`, `multilabel` or `regression` as labels are called; None of
    a task that makes outputs of its own."""
    for kind, name in ((NodeClassification, "class"), (MultilabelClassification, "multilabel")):
        if isinstance(task, kind) and type(task).outputs is kind.outputs:
            return name
    return "regression" if isinstance(task, NodeRegression) else None


def task_of_identity(identity: Mapping[str, Any]) -> Task | None:
    """A task that scores as the one with this `identity` did; None when it is the user's own."""
    name, metric = identity.get("name"), identity.get("metric", "")
    if name == NodeClassification.__name__:
        return NodeClassification(identity["num_classes"], metric)
    if name == MultilabelClassification.__name__:
        return MultilabelClassification(identity["num_outputs"], metric)
    if name == NodeRegression.__name__:
        return NodeRegression(identity["num_outputs"], metric)
    return None
