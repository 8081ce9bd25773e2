"""Metrics of pairs: an edge's score against those of pairs that are none, fed batch by batch, exact at the end.

Source: `ogb.linkproppred.Evaluator` 1.3.6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.training.metrics import refuse_empty


def _check(name: str, positive: Tensor, negative: Tensor, shapes_fit: bool) -> None:
    if positive.ndim != 1 or not shapes_fit:
        shapes = f"{tuple(positive.shape)} and {tuple(negative.shape)}"
        raise InputDataError("GS-IN-960", f"{name}: scores of shapes {shapes} do not belong together")
    if not (positive.isfinite().all() and negative.isfinite().all()):
        raise InputDataError("GS-IN-961", f"{name}: a score is not finite")


class Hits:
    """hits@K: share of the positives that score higher than the K-th best of all negatives; 1 with fewer than K.

    Memory: K negatives and the positives that may still be hits.
    """

    higher_is_better = True

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ConfigError("GS-CFG-960", f"hits@{k}: K must be at least 1")
        self.name, self._k = f"hits@{k}", k
        self.reset()

    def reset(self) -> None:
        self._seen = 0
        self._best_negatives, self._positives = torch.empty(0), torch.empty(0)

    def update(self, positive: Tensor, negative: Tensor) -> None:
        """Scores of positives (p,) and of negatives (q,), in batches of any size."""
        _check(self.name, positive, negative, negative.ndim == 1)
        self._seen += len(positive)
        negatives = torch.cat([self._best_negatives.to(negative), negative.detach()])
        self._best_negatives = negatives.topk(min(self._k, len(negatives))).values
        positives = torch.cat([self._positives.to(positive), positive.detach()])
        self._positives = positives[self._are_hits(positives)]  # the bar only rises

    def compute(self) -> float:
        refuse_empty(self.name, self._seen)
        return len(self._positives) / self._seen

    def _are_hits(self, positives: Tensor) -> Tensor:
        if len(self._best_negatives) < self._k:
            return torch.ones_like(positives, dtype=torch.bool)
        return positives > self._best_negatives[-1].to(positives)


class Mrr:
    """Mean reciprocal rank of a positive among its own negatives; of equal scores half rank before it."""

    name = "mrr"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sum, self._seen = 0.0, 0

    def update(self, positive: Tensor, negative: Tensor) -> None:
        """Scores of positives (n,) and of the negatives of each (n, k)."""
        _check(self.name, positive, negative, negative.ndim == 2 and len(negative) == len(positive))
        own = positive.view(-1, 1)
        rank = 1 + ((negative > own).sum(dim=1) + (negative >= own).sum(dim=1)) / 2
        self._sum += float(rank.double().reciprocal().sum())
        self._seen += len(positive)

    def compute(self) -> float:
        refuse_empty(self.name, self._seen)
        return self._sum / self._seen
