"""What labels of nodes may be: a class each, or a row of a matrix, of yes-or-no answers or of numbers.

class        (N,) int64           -1 = unlabelled
multilabel   (N, T) float32       0 or 1, NaN = unlabelled
regression   (N, T) float32       any finite number, NaN = unlabelled
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

LabelKind = Literal["class", "multilabel", "regression"]
MATRICES = ("multilabel", "regression")
KINDS = ("class", *MATRICES)


def known(labels: np.ndarray) -> np.ndarray:
    """(n,) bool: which of n nodes have a label, for a matrix in any of its columns."""
    return np.asarray(labels >= 0) if labels.ndim == 1 else ~np.isnan(labels).all(axis=1)


def labels_where(labels: np.ndarray, nodes: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Labels of `nodes` (n,), those not `shown` (n,) bool as if they were unlabelled."""
    hidden = -1 if labels.ndim == 1 else np.float32(np.nan)
    return np.where(shown if labels.ndim == 1 else shown[:, None], labels[nodes], hidden)


def columns_of(labels: np.ndarray | None) -> int:
    """Columns of a label matrix; 0 of classes, and without labels."""
    return 0 if labels is None or labels.ndim == 1 else labels.shape[1]


def require_names(counts: Mapping[str, Any]) -> None:
    """Raise ValueError where the counts of a Store name columns or classes by no text, or not every class once."""
    for what in ("class_names", "feature_names"):
        names = counts.get(what, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{what} that are texts: {names!r:.80}")
    names = counts.get("class_names")
    if names is not None and not len(names) == len(set(names)) == counts["classes"]:
        raise ValueError(f"a name of every class: {names!r:.80}")


def described(counts: Mapping[str, Any]) -> tuple[LabelKind, int]:
    """Kind and columns (0 of classes) that the counts of a Store tell.

    Raises:
        ValueError, TypeError, KeyError: they make no sense.
    """
    if "labels" not in counts:
        return "class", 0
    kind, columns = counts["labels"]["kind"], int(counts["labels"]["columns"])
    if kind not in MATRICES or columns < 1:
        raise ValueError(f"labels of a kind that is known: {counts['labels']}")
    return kind, columns
