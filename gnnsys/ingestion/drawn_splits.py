"""Splits that are drawn: a node's draw is a pure function of its id and the seed."""

from __future__ import annotations

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.keys import GOLDEN, derive, mix
from gnnsys.storage.labels import known

_STEP = 1 << 17
_TAG = 0x5150117


def random(labels: np.ndarray, train: int, valid: int, seed: int) -> dict[str, np.ndarray]:
    """`train` and `valid`: so many percent of the labelled nodes, rounded down; `test`: the rest of them.

    Args:
        labels: (N,) int64 or (N, T) float32.

    Raises:
        InputDataError: one of the three would be empty.
    """
    ids = _labelled(labels)
    first, second = len(ids) * train // 100, len(ids) * (train + valid) // 100
    if not 0 < first < second < len(ids):
        raise InputDataError(
            "GS-IN-145",
            f"random:{train}/{valid}/{100 - train - valid} of {len(ids)} labelled nodes: a split is empty",
            hint="Give more nodes a label, or the small parts more percent.",
        )
    draws = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _STEP):
        draws[start : start + _STEP] = _draws(ids[start : start + _STEP], seed)
    # No two nodes draw the same, so these two part the nodes into exactly so many.
    low, high = np.partition(draws, [first, second])[[first, second]]
    return {"train": ids[draws < low], "valid": ids[(draws >= low) & (draws < high)], "test": ids[draws >= high]}


def per_class(labels: np.ndarray, num_classes: int, train: int, valid: int, seed: int) -> dict[str, np.ndarray]:
    """`train` and `valid`: so many nodes of every class, those with the smallest draws; `test`: the rest with a class.

    Args:
        labels: (N,) int64, -1 = unlabelled.

    Raises:
        InputDataError: a class has fewer nodes.
    """
    needed = train + valid
    if num_classes * needed > len(labels):
        # Told apart from the scarce class below because so many classes may not even fit into a list.
        raise InputDataError(
            "GS-IN-145",
            f"per-class:{train}/{valid} of {num_classes} classes needs {num_classes * needed} nodes, "
            f"there are {len(labels)}",
            hint="Ask for fewer nodes per class; classes are numbered from 0 without gaps.",
        )
    chosen = _smallest_draws(labels, num_classes, needed, seed)
    counts = [len(ids) for ids in chosen]
    if min(counts, default=0) < needed:
        scarce = int(np.argmin(counts)) if counts else 0
        raise InputDataError(
            "GS-IN-145",
            f"class {scarce} has {min(counts, default=0)} labelled nodes, per-class:{train}/{valid} needs {needed}",
            hint="Ask for fewer nodes per class.",
        )
    taken = np.sort(np.concatenate(chosen))
    rest = _labelled(labels)
    return {
        "train": np.sort(np.concatenate([ids[:train] for ids in chosen])),
        "valid": np.sort(np.concatenate([ids[train:] for ids in chosen])),
        "test": rest[~np.isin(rest, taken, assume_unique=True)],
    }


def _smallest_draws(labels: np.ndarray, num_classes: int, most: int, seed: int) -> list[np.ndarray]:
    """Per class the `most` node ids with the smallest draws, in that order. One block of labels at a time."""
    ids = [np.empty(0, dtype=np.int64)] * num_classes
    for start in range(0, len(labels), _STEP):
        block = np.asarray(labels[start : start + _STEP])
        for label in np.unique(block[block >= 0]):
            candidates = np.concatenate([ids[label], start + np.flatnonzero(block == label)])
            ids[label] = candidates[np.argsort(_draws(candidates, seed), kind="stable")[:most]]
    return ids


def _labelled(labels: np.ndarray) -> np.ndarray:
    """Ids of the nodes that have a label, ascending."""
    starts = range(0, len(labels), _STEP)
    found = [start + np.flatnonzero(known(np.asarray(labels[start : start + _STEP]))) for start in starts]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def _draws(ids: np.ndarray, seed: int) -> np.ndarray:
    return np.asarray(mix(np.uint64(derive(seed, _TAG)) + ids.astype(np.uint64) * GOLDEN))
