"""Streaming metrics: fed batch by batch, exact at the end, equal for any cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gnnsys.errors import ConfigError, InputDataError


class Metric(Protocol):
    """A number about all outputs seen since `reset`.

    Attributes:
        name: as in `--metric` and in results, e.g. `acc`.
        higher_is_better: whether early stopping waits for a rise or a fall.

    Optional: `check(target)` raises InputDataError when the metric is not defined for these targets, whatever the
    outputs; it is called before training. `memory_bytes(rows, columns)` is what scoring so many outputs takes at most.
    """

    name: str
    higher_is_better: bool

    def reset(self) -> None: ...
    def update(self, out: Tensor, target: Tensor) -> None: ...
    def compute(self) -> float: ...


class Accuracy:
    """Share of rows whose largest output is at the target class; the first of equal outputs counts.

    Raises:
        InputDataError: `compute` before any row was seen.
    """

    name = "acc"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._right = 0
        self._seen = 0

    def check(self, target: Tensor) -> None:
        """Refuse `target` (n,) int64 that no outputs can be scored on."""
        refuse_empty(self.name, len(target))

    def update(self, out: Tensor, target: Tensor) -> None:
        """Count rows of `out` (n, C) against `target` (n,) int64."""
        self._right += int((out.argmax(dim=1) == target).sum())
        self._seen += len(target)

    def compute(self) -> float:
        refuse_empty(self.name, self._seen)
        return self._right / self._seen


RANKING_BYTES = 64
"""Of a score while scores are ranked: a copy, sorted values, groups, and counts of groups."""


class RocAuc:
    """Probability that a positive scores above a negative, ties counted as one half. Exact.

    Keeps every score: the exact value needs all of them at once.

    Raises:
        InputDataError: nothing was seen, one of the two classes was not, or a score is NaN.
    """

    name = "rocauc"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._scores: list[np.ndarray] = []
        self._positive: list[np.ndarray] = []

    def memory_bytes(self, rows: int, columns: int) -> int:
        """Every score and answer twice while they are joined, and ranked."""
        return rows * (18 + RANKING_BYTES)

    def check(self, target: Tensor) -> None:
        """Refuse `target` (n,) that no scores can be ranked on."""
        refuse_empty(self.name, len(target))
        _refuse_one_class(int((target > 0).sum()), len(target))

    def update(self, out: Tensor, target: Tensor) -> None:
        """Take scores `out` (n,) or, as two logits, (n, 2), and `target` (n,) with values 0 and 1."""
        scores = out[:, 1].double() - out[:, 0].double() if out.dim() == 2 and out.shape[1] == 2 else out.reshape(-1)
        self._scores.append(scores.detach().to("cpu", torch.float64).numpy())
        self._positive.append(target.reshape(-1).cpu().numpy() > 0)

    def compute(self) -> float:
        scores, positive = (np.concatenate(c) if c else np.empty(0) for c in (self._scores, self._positive))
        refuse_empty(self.name, len(scores))
        if np.isnan(scores).any():
            raise InputDataError("GS-IN-502", f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
        return rank_sum(scores, positive)


def rank_sum(scores: np.ndarray, positive: np.ndarray) -> float:
    """AUC of (n,) scores from counts of equal scores, in integers up to the last division; the largest, twice the
    pairs, fits 63 bits up to four billion scores."""
    num_positive = int(positive.sum())
    _refuse_one_class(num_positive, len(positive))
    num_negative = len(positive) - num_positive
    _, groups = np.unique(scores, return_inverse=True)
    above = np.bincount(groups, weights=positive).astype(np.int64)
    below = np.bincount(groups).astype(np.int64) - above
    twice_wins = 2 * (np.cumsum(below) - below) + below
    return int(above @ twice_wins) / (2 * num_positive * num_negative)


def _refuse_one_class(num_positive: int, num: int) -> None:
    if num_positive in (0, num):
        raise InputDataError(
            "GS-IN-503",
            f"ROC AUC of {num_positive} positives and {num - num_positive} negatives; it needs at least one of each",
            hint="Use --metric acc, or another split.",
        )


def refuse_empty(name: str, seen: int) -> None:
    """Raise InputDataError when there was nothing to score."""
    if seen == 0:
        raise InputDataError(
            "GS-IN-501",
            f"metric {name!r} of no labelled nodes is not defined",
            hint="Is the split empty or unlabelled?",
        )


METRICS: Mapping[str, type[Metric]] = {"acc": Accuracy, "rocauc": RocAuc}
"""Of classes."""


def make_metric(name: str, among: Mapping[str, type[Metric]] = METRICS) -> Metric:
    """A fresh metric by name.

    Raises:
        ConfigError: no metric has this name.
    """
    if name not in among:
        raise ConfigError("GS-CFG-503", f"metric {name!r} is not known; there are {', '.join(among)}")
    return among[name]()
