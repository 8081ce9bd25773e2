"""Splits are checked before training: what is trained on is not scored as unseen, and every score will be defined."""

from __future__ import annotations

import numpy as np
import torch

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.samplers.seeds import as_seeds
from gnnsys.storage.labels import known
from gnnsys.storage.store import Store
from gnnsys.training.tasks import Task

_UNSEEN = ("valid", "test")


def check_splits(task: Task, store: Store, trained: np.ndarray | None) -> None:
    """Look at every split of nodes that the task will be scored on.

    Args:
        trained: (n,) int64 nodes that training sees the labels of; None for pairs, which are not looked at.

    Raises:
        ConfigError: some of them are in `valid` or `test`.
        InputDataError: the task's metric is not defined on the labels of a split.
    """
    if not hasattr(task, "metric"):
        return
    for split in scored_splits(store):
        ids = as_seeds(store, task.seeds(store, split)).ids
        if ids is None:
            continue
        if trained is not None and split in _UNSEEN:
            _refuse_shared(trained, ids, split)
        if hasattr(task.metric, "check"):
            _refuse_undefined(task, store, split, ids)


def scored_splits(store: Store) -> list[str]:
    """The splits with a label at least; others are there to be predicted. All of them when there are no labels."""
    labels = store.labels()
    if labels is None:
        return store.split_names
    return [name for name in store.split_names if known(labels[store.split(name)]).any()]


def _refuse_shared(trained: np.ndarray, ids: np.ndarray, split: str) -> None:
    shared = np.intersect1d(trained, ids)
    if len(shared):
        raise ConfigError(
            "GS-CFG-513",
            f"{len(shared):,} of the {len(trained):,} seeds to train on are in the split {split!r}, which is for "
            f"scoring (the first is node {shared[0]})",
            hint="Train on other seeds, e.g. seeds='train' (--seeds train when packing).",
        )


def _refuse_undefined(task: Task, store: Store, split: str, ids: np.ndarray) -> None:
    labels = store.labels()
    if labels is None:
        return
    found = torch.from_numpy(labels[ids])
    try:
        task.metric.check(found if found.dim() == 2 else found[found >= 0])  # type: ignore[attr-defined]
    except InputDataError as error:
        raise InputDataError(error.code, f"{store.path}, split {split!r}: {error.message}", hint=error.hint) from None
