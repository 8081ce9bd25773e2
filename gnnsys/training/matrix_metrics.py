"""Streaming metrics of label matrices, answers or numbers; a value that is unknown (NaN) counts nowhere.

Formulas are those of scikit-learn, per column and averaged over the columns that have a value at all, as OGB's
evaluators do it. `update` takes `out` (n, T) and `target` (n, T) float32, NaN = unknown.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnnsys.errors import InputDataError
from gnnsys.training.metrics import RANKING_BYTES, Metric, rank_sum, refuse_empty

_UNKNOWN = 2


class MeanRocAuc:
    """Mean ROC AUC of the columns that have both answers, ties counted as one half. Exact.

    Keeps every score and answer (5 bytes each): the exact value needs all of them at once.

    Source: Hu et al. 2020 (OGB), the evaluator of ogbn-proteins.
    """

    name = "rocauc"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._scores: list[np.ndarray] = []
        self._answers: list[np.ndarray] = []

    def memory_bytes(self, rows: int, columns: int) -> int:
        """Every score and answer twice while they are joined; a column at a time is ranked."""
        return rows * (10 * columns + RANKING_BYTES)

    def check(self, target: Tensor) -> None:
        """Refuse `target` (n, T) of which no column has both answers."""
        _refuse_one_answer(_with_both(_answers(target)))

    def update(self, out: Tensor, target: Tensor) -> None:
        self._scores.append(out.detach().to("cpu", torch.float32).numpy())
        self._answers.append(_answers(target))

    def compute(self) -> float:
        refuse_empty(self.name, len(self._scores))
        scores, answers = np.concatenate(self._scores), np.concatenate(self._answers)
        if np.isnan(scores).any():
            raise InputDataError("GS-IN-502", f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN")
        ranked = _with_both(answers)
        _refuse_one_answer(ranked)
        found = []
        for column in np.flatnonzero(ranked):
            seen = answers[:, column] != _UNKNOWN
            found.append(rank_sum(scores[seen, column], answers[seen, column] == 1))
        return float(np.mean(found))


class _Answers:
    """Counts answers by what was said (a positive logit says yes) and what is true; equal for any cut into batches."""

    name = ""
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._counts = np.zeros((2, 2), dtype=np.int64)

    def check(self, target: Tensor) -> None:
        """Refuse `target` (n, T) without a known answer."""
        refuse_empty(self.name, int((~target.isnan()).sum()))

    def update(self, out: Tensor, target: Tensor) -> None:
        seen = ~target.isnan()
        said, true = (out[seen] > 0).long(), target[seen].long()
        self._counts += torch.bincount(2 * said + true, minlength=4).cpu().numpy().reshape(2, 2)


class AnswerAccuracy(_Answers):
    """Share of the known answers that are right."""

    name = "acc"

    def compute(self) -> float:
        refuse_empty(self.name, int(self._counts.sum()))
        return float(np.trace(self._counts) / self._counts.sum())


class MicroF1(_Answers):
    """F1 of all known answers together; 0 when nothing was said or true."""

    name = "f1"

    def compute(self) -> float:
        refuse_empty(self.name, int(self._counts.sum()))
        right, wrong = self._counts[1, 1], self._counts[0, 1] + self._counts[1, 0]
        return float(2 * right / (2 * right + wrong)) if right + wrong else 0.0


class _Errors:
    """Sums of errors per column in float64, and the spread of the targets by Chan's update (1979), which does not
    cancel where they are far from 0."""

    name = ""
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._count = self._absolute = self._squared = self._mean = self._spread = np.zeros(0)

    def check(self, target: Tensor) -> None:
        """Refuse `target` (n, T) without a known number."""
        refuse_empty(self.name, int((~target.isnan()).sum()))

    def update(self, out: Tensor, target: Tensor) -> None:
        y = target.detach().to("cpu", torch.float64).numpy()
        seen = ~np.isnan(y)
        error = np.where(seen, out.detach().to("cpu", torch.float64).numpy() - y, 0)
        if not len(self._count):
            self._count, self._absolute, self._squared, self._mean, self._spread = np.zeros((5, y.shape[1]))
        self._absolute = self._absolute + np.abs(error).sum(axis=0)
        self._squared = self._squared + (error**2).sum(axis=0)
        self._add_spread(np.where(seen, y, 0), seen)

    def _add_spread(self, y: np.ndarray, seen: np.ndarray) -> None:
        count = seen.sum(axis=0)
        mean = y.sum(axis=0) / np.maximum(count, 1)
        spread = (np.where(seen, y - mean, 0) ** 2).sum(axis=0)
        total = self._count + count
        shift = mean - self._mean
        self._spread = self._spread + spread + shift**2 * self._count * count / np.maximum(total, 1)
        self._mean = self._mean + shift * count / np.maximum(total, 1)
        self._count = total

    def _known(self) -> np.ndarray:
        """(T,) bool: columns that have a number."""
        refuse_empty(self.name, int(self._count.sum()))
        return self._count > 0


class Rmse(_Errors):
    """Root of the mean squared error, averaged over the columns."""

    name = "rmse"

    def compute(self) -> float:
        known = self._known()
        return float(np.sqrt(self._squared[known] / self._count[known]).mean())


class Mae(_Errors):
    """Mean absolute error, averaged over the columns."""

    name = "mae"

    def compute(self) -> float:
        known = self._known()
        return float((self._absolute[known] / self._count[known]).mean())


class R2(_Errors):
    """Share of the spread of the targets that is explained, averaged over the columns whose targets differ at all."""

    name = "r2"
    higher_is_better = True

    def check(self, target: Tensor) -> None:
        """Refuse `target` (n, T) of which no column has two different numbers."""
        largest = target.nan_to_num(nan=-torch.inf).amax(dim=0)
        spread = (largest > target.nan_to_num(nan=torch.inf).amin(dim=0)).cpu().numpy()
        _refuse_constant(spread)

    def compute(self) -> float:
        self._known()
        varied = self._spread > 0
        _refuse_constant(varied)
        return float((1 - self._squared[varied] / self._spread[varied]).mean())


def _answers(target: Tensor) -> np.ndarray:
    """(n, T) uint8: 0, 1, or `_UNKNOWN`."""
    return target.nan_to_num(nan=_UNKNOWN).to("cpu", torch.uint8).numpy()


def _with_both(answers: np.ndarray) -> np.ndarray:
    """(T,) bool: columns that have both answers."""
    return np.asarray((answers == 0).any(axis=0) & (answers == 1).any(axis=0))


def _refuse_one_answer(ranked: np.ndarray) -> None:
    if not ranked.any():
        raise InputDataError(
            "GS-IN-503",
            f"ROC AUC of {len(ranked)} columns, none of which has both answers",
            hint="Use --metric acc, or another split.",
        )


def _refuse_constant(varied: np.ndarray) -> None:
    if not varied.any():
        raise InputDataError(
            "GS-IN-503",
            f"R2 of {len(varied)} columns, the targets of none of which differ",
            hint="Use --metric rmse, or another split.",
        )


MULTILABEL_METRICS: dict[str, type[Metric]] = {m.name: m for m in (MeanRocAuc, AnswerAccuracy, MicroF1)}
REGRESSION_METRICS: dict[str, type[Metric]] = {m.name: m for m in (Rmse, Mae, R2)}
