"""Label propagation: the baseline that has no parameters and sees no features, only edges and labels.

What spreads of one class does not depend on the others, so as many classes as fit into memory go over the graph
together. The graph is read front to back through its map, once per layer and group of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from gnnsys.budget import DEFAULT_MEMORY, Budget
from gnnsys.errors import ConfigError
from gnnsys.progress import Progress, silent
from gnnsys.storage.store import Store
from gnnsys.storage.threads import in_order, num_workers
from gnnsys.training.kernels import spread
from gnnsys.training.memory import OVERHEAD_BYTES
from gnnsys.training.metrics import refuse_empty
from gnnsys.training.splits import scored_splits
from gnnsys.training.tasks import refuse_labels
from gnnsys.units import parse_size

_PIECE = 1 << 16
"""Nodes that a thread takes at a time."""
_HELD_BYTES, _CLASS_BYTES = 26, 8
"""Per node: labels, degrees, the best class and its score; and for each class its scores before and after a layer."""


@dataclass(frozen=True)
class Propagated:
    """What labels that spread say of every node."""

    classes: np.ndarray
    """(N,) int64: the class with the highest score, the first of equal ones; 0 where no label arrived."""
    metrics: dict[str, dict[str, float]]
    """`acc` on the labelled nodes of every split."""


def label_propagation(
    store: Store,
    *,
    layers: int = 50,
    alpha: float = 0.9,
    split: str = "train",
    memory: int | str = DEFAULT_MEMORY,
    workers: int | None = None,
    progress: Progress = silent,
) -> Propagated:
    """Spread the labels of `split` along the edges: Y <- clamp(alpha D^-1/2 A D^-1/2 Y + (1 - alpha) Y_0), `layers`
    times from Y_0.

    A holds the edges as they are stored, D their in-degrees: for labels to go both ways, ingest with `undirected=True`.
    Weights of edges are not looked at.

    Args:
        store: with labels that are classes.
        layers: at least 1.
        alpha: what counts of the neighbours, in [0, 1].
        split: the nodes whose labels are seen.
        memory: bytes that this may grow by. With less the graph is read more often, and the result is the same.
        workers: threads, which change no bit either; all cores when None.
        progress: called with ("propagate", layers done, in all), once over for every group of classes.

    Raises:
        ConfigError: `layers` or `alpha` out of range, no such split, or labels of another kind.
        InputDataError: a split has no labelled node.
        MemoryBudgetError: not even the scores of one class fit.

    Source: Zhou et al. 2004, with the clamp of `torch_geometric.nn.LabelPropagation`, whose numbers these are.
    """
    if layers < 1 or not 0 <= alpha <= 1:
        raise ConfigError("GS-CFG-955", f"layers is {layers} and alpha {alpha}: at least 1, and between 0 and 1")
    refuse_labels(store, "class")
    at_once = _classes_at_once(store, Budget(parse_size(memory)))
    groups = [range(c, min(c + at_once, store.num_classes)) for c in range(0, store.num_classes, at_once)]
    spreading = _Spreading(store, split, alpha, num_workers(workers))
    classes = np.zeros(store.num_nodes, dtype=np.int64)
    best = np.full(store.num_nodes, -1, dtype=np.float32)
    for number, group in enumerate(groups):
        scores = spreading.start(group)
        for layer in range(layers):
            scores = spreading.layer(group, scores)
            progress("propagate", number * layers + layer + 1, len(groups) * layers)
        for of_class, scored in zip(group, scores.T, strict=True):
            classes[scored > best] = of_class
            np.maximum(best, scored, out=best)
        del scores, scored  # or they would be held while the next group starts
    del spreading, best
    return Propagated(classes, {name: {"acc": _accuracy(store, name, classes)} for name in scored_splits(store)})


def _classes_at_once(store: Store, budget: Budget) -> int:
    """As many as fit, in groups of nearly equal size."""
    budget.reserve(OVERHEAD_BYTES + _HELD_BYTES * store.num_nodes, "labels and what is found")
    of_one = _CLASS_BYTES * store.num_nodes
    budget.reserve(of_one, "scores of one class")
    fitting = 1 + budget.left // of_one
    return ceil(store.num_classes / ceil(store.num_classes / fitting))


class _Spreading:
    """The labels that are seen, and one layer of their way over the graph."""

    def __init__(self, store: Store, split: str, alpha: float, workers: int) -> None:
        self._graph, self._alpha, self._workers = store.graph, alpha, workers
        labels, ids = store.labels(), store.split(split)
        assert labels is not None
        self._seen = np.full(store.num_nodes, -1, dtype=np.int64)
        self._seen[ids] = labels[ids]
        degree = np.diff(self._graph.indptr)
        self._scale = np.zeros(store.num_nodes, dtype=np.float32)
        np.divide(1, np.sqrt(degree, dtype=np.float32), out=self._scale, where=degree > 0)

    def start(self, group: range) -> np.ndarray:
        """(N, K) float32: 1 where a label is seen, for the classes of `group`."""
        scores = np.zeros((len(self._seen), len(group)), dtype=np.float32)
        for column, of_class in enumerate(group):
            scores[self._seen == of_class, column] = 1
        return scores

    def layer(self, group: range, scores: np.ndarray) -> np.ndarray:
        """What `scores` (N, K) are after one layer."""
        out = np.empty_like(scores)
        graph, num_nodes = self._graph, len(scores)

        def piece(begin: int) -> None:
            rows = (begin, min(begin + _PIECE, num_nodes))
            spread(graph.indptr, graph.indices, self._scale, scores, self._seen, group.start, self._alpha, *rows, out)

        with in_order(piece, range(0, num_nodes, _PIECE), self._workers) as done:
            for _ in done:
                pass
        return out


def _accuracy(store: Store, split: str, classes: np.ndarray) -> float:
    """Share of the labelled nodes of `split` whose class was found."""
    labels, ids = store.labels(), store.split(split)
    assert labels is not None
    ids = ids[labels[ids] >= 0]
    refuse_empty("acc", len(ids))
    return float(np.mean(classes[ids] == labels[ids]))
