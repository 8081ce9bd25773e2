"""Splits are checked before training: what is trained on is not scored as unseen, and every score will be defined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.samplers.seeds import as_seeds
from gnnsys.storage.labels import known
from gnnsys.storage.store import Store
from gnnsys.training.tasks import Task

_UNSEEN = ("valid", "test")
_PART = 1 << 16


@dataclass(frozen=True)
class Scored:
    """The splits that a run is scored on."""

    names: tuple[str, ...] = ()
    valid: str | None = None
    """The one that decides which epoch is the best; None where there is none."""


def scored_beside(store: Store, trained: str | None) -> Scored:
    """What belongs to the split trained on: of splits in several versions (`train.0`, `valid.0`, `train.1`, ...) those
    of the same one, and those without versions.

    Args:
        trained: its name; None where other nodes are trained on.
    """
    version = (trained or "").partition(".")[2]
    names = tuple(name for name in scored_splits(store) if name.partition(".")[2] in ("", version))
    valid = f"valid.{version}" if version else "valid"
    return Scored(names, valid if valid in names else None)


def check_splits(task: Task, store: Store, trained: np.ndarray | None, scored: Scored) -> None:
    """Look at every split of nodes that the task will be scored on.

    Args:
        trained: (n,) int64 nodes that training sees the labels of; None for pairs, which are not looked at.

    Raises:
        ConfigError: some of them are in `valid` or `test`, of any version that is scored.
        InputDataError: none of them has a label; the task's metric is not defined on the labels of a split.
    """
    if not hasattr(task, "metric"):
        return
    labels = store.labels()
    if trained is not None and labels is not None and not _is_labelled(labels, trained):
        raise InputDataError(
            "GS-IN-505",
            f"{store.path}: none of the {len(trained):,} seeds to train on has a label",
            hint="Train on other seeds, e.g. seeds='train' (--seeds train).",
        )
    for split in scored.names:
        ids = as_seeds(store, task.seeds(store, split)).ids
        if ids is None:
            continue
        if trained is not None and split.partition(".")[0] in _UNSEEN:
            _refuse_shared(trained, ids, split)
        if hasattr(task.metric, "check"):
            _refuse_undefined(task, store, split, ids)


def scoring_bytes(task: Task, store: Store, scored: Scored) -> int:
    """What the task's metric keeps and makes of the largest split, at most; of pairs it is not known."""
    needed = getattr(getattr(task, "metric", None), "memory_bytes", None)
    if needed is None or store.labels() is None:
        return 0
    return max((int(needed(len(store.split(name)), store.num_outputs)) for name in scored.names), default=0)


def scored_splits(store: Store) -> list[str]:
    """The splits with a label at least; others are there to be predicted. All of them when there are no labels."""
    labels = store.labels()
    if labels is None:
        return store.split_names
    return [name for name in store.split_names if _is_labelled(labels, store.split(name))]


def _is_labelled(labels: np.ndarray, ids: np.ndarray) -> bool:
    parts = (ids[start : start + _PART] for start in range(0, len(ids), _PART))
    return any(bool(known(labels[part]).any()) for part in parts)


def _refuse_shared(trained: np.ndarray, ids: np.ndarray, split: str) -> None:
    shared = np.intersect1d(trained, ids)
    if len(shared):
        raise ConfigError(
            "GS-CFG-513",
            f"{len(shared):,} of the {len(trained):,} seeds to train on are in the split {split!r}, which is for "
            f"scoring (the first is node {shared[0]})",
            hint="Train on other seeds (--seeds), or give splits that share no nodes.",
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
