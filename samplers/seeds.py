"""Seeds: what a pool is sampled for - nodes, or pairs of nodes with negatives and hidden target edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import raw_bytes
from gnnsys.storage.manifest import canonical_json

Order = Literal["shuffle", "fixed"]
Exclude = Literal["none", "self", "self+reverse"]
ORDERS = ("shuffle", "fixed")
EXCLUDES = ("none", "self", "self+reverse")


class SplitStore(Protocol):
    """What `as_seeds` needs of a Store."""

    @property
    def num_nodes(self) -> int: ...
    def split(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Seeds:
    """Node ids, or pairs, in the order given. Make them with `Seeds.nodes` or `Seeds.links`.

    Shapes: S seeds, P pairs. Exactly one of `ids` and `pairs` is set.
    """

    ids: np.ndarray | None = None
    """(S,) int64 distinct node ids."""
    pairs: np.ndarray | None = None
    """(P, 2) int64 source and destination of every pair."""
    pair_label: np.ndarray | None = None
    """(P,) uint8: 1 for an edge, 0 for a negative that was given."""
    t: np.ndarray | None = None
    """(P,) int64 event times, carried through to the batches."""
    order: Order = "shuffle"
    """`shuffle`: batches are drawn from a permutation; `fixed`: consecutive, as given (events)."""
    negatives: int = 0
    """Destinations drawn uniformly over all nodes for every pair with label 1. One may by chance be a true edge."""
    exclude: Exclude = "none"
    """Edges hidden while a batch is sampled: none, its positive pairs, or those and their reverse."""
    name: str = "seeds"
    num_nodes: int = 0
    """Nodes of the Store they were checked against; 0 before `as_seeds`."""

    @classmethod
    def nodes(cls, ids: Any, *, order: Order = "shuffle", name: str = "seeds") -> Seeds:
        """Seeds for node tasks: `ids` (S,) distinct integers.

        Raises:
            InputDataError: not one-dimensional integers, empty, or an id comes twice.
            ConfigError: `order` is unknown.
        """
        _one_of("order", order, ORDERS)
        array = _integers(ids, name)
        if array.ndim != 1:
            raise InputDataError(
                "GS-IN-200",
                f"{name}: node ids of shape {array.shape}, expected (S,)",
                hint="Pairs of nodes go into Seeds.links.",
            )
        _refuse_duplicates(array, name)
        return cls(ids=array, order=order, name=name)

    @classmethod
    def links(
        cls,
        pairs: Any,
        *,
        negatives: int = 1,
        exclude: Exclude = "self+reverse",
        pair_label: Any = None,
        t: Any = None,
        order: Order = "shuffle",
        name: str = "pairs",
    ) -> Seeds:
        """Seeds for link and event tasks: `pairs` (P, 2) of source and destination; repeated pairs are fine.

        Args:
            negatives: uniform negative destinations drawn per positive pair.
            exclude: which edges the sampler must not see: `self` hides every positive pair of the batch from it,
                all parallel copies; `self+reverse` also the opposite direction.
            pair_label: (P,) 0 or 1; all 1 when None.
            t: (P,) event times.

        Raises:
            InputDataError: shapes do not fit, labels are not 0 or 1, or there is no pair.
            ConfigError: an option is unknown.
        """
        _one_of("order", order, ORDERS)
        _one_of("exclude", exclude, EXCLUDES)
        if negatives < 0:
            raise ConfigError("GS-CFG-202", f"negatives is {negatives}; it must be 0 or more")
        array = _integers(pairs, name)
        if array.ndim != 2 or array.shape[1] != 2:
            raise InputDataError("GS-IN-203", f"{name}: pairs of shape {array.shape}, expected (P, 2)")
        label = np.ones(len(array), dtype=np.int64) if pair_label is None else _integers(pair_label, "pair_label")
        times = None if t is None else _integers(t, "t")
        _refuse_misfit(array, label, times)
        return cls(
            pairs=array,
            pair_label=label.astype(np.uint8),
            t=times,
            order=order,
            negatives=negatives,
            exclude=exclude,
            name=name,
        )

    def __len__(self) -> int:
        """How many seeds or pairs were given: what a batch size counts."""
        return len(self._given)

    def per_batch(self, batch_size: int) -> int:
        """The most nodes that a batch of `batch_size` starts from: the ids, or both ends of pairs and negatives."""
        given = min(batch_size, len(self))
        return given if self.pairs is None else given * (2 + self.negatives)

    @property
    def digest(self) -> str:
        """`xxh3-128:<hex>` of what was given, without order and options."""
        arrays = [a for a in (self.ids, self.pairs, self.pair_label, self.t) if a is not None]
        shapes = canonical_json([[a.dtype.str, list(a.shape)] for a in arrays])
        return digest(b"".join([shapes, *(raw_bytes(a) for a in arrays)]))

    @property
    def options(self) -> dict[str, Any] | None:
        """Options of link batches as a manifest holds them; None for node tasks."""
        return None if self.pairs is None else {"negatives": self.negatives, "exclude": self.exclude}

    @property
    def _given(self) -> np.ndarray:
        array = self.ids if self.pairs is None else self.pairs
        assert array is not None
        return array

    def within(self, num_nodes: int) -> Seeds:
        """The same seeds, checked against a graph of `num_nodes`.

        Raises:
            InputDataError: there are none, or a node is outside the graph.
        """
        if len(self) == 0:
            raise InputDataError(
                "GS-IN-201", f"{self.name}: there are no seeds", hint="Choose a split that is not empty."
            )
        refuse_outside(self._given, num_nodes, self.name)
        return replace(self, num_nodes=num_nodes)


def as_seeds(store: SplitStore, seeds: str | Seeds | Iterable[int]) -> Seeds:
    """Seeds checked against a Store, from the name of a split, node ids, a boolean mask (N,) of all nodes, or Seeds.

    Raises:
        InputDataError: no seeds, seeds outside the graph, or node ids that come twice.
        ConfigError: the Store has no split of that name.
    """
    if isinstance(seeds, str):
        found = Seeds.nodes(store.split(seeds), name=seeds)
    else:
        found = seeds if isinstance(seeds, Seeds) else Seeds.nodes(_marked(seeds, store.num_nodes))
    return found.within(store.num_nodes)


def _marked(seeds: Iterable[int], num_nodes: int) -> np.ndarray:
    """Node ids as given, or those that a mask marks."""
    array = np.asarray(seeds)
    if array.dtype != np.bool_:
        return array
    if array.shape != (num_nodes,):
        raise InputDataError("GS-IN-200", f"seeds: a mask of shape {array.shape}, expected ({num_nodes},)")
    return np.flatnonzero(array)


def refuse_outside(nodes: np.ndarray, num_nodes: int, name: str) -> None:
    """Raise InputDataError for the first value of `nodes` that is not in [0, num_nodes)."""
    outside = (nodes < 0) | (nodes >= num_nodes)
    if outside.any():
        where = int(np.argmax(outside.reshape(len(nodes), -1).any(axis=1)))
        bad = int(nodes[outside][0])
        raise InputDataError(
            "GS-IN-204",
            f"{name}: node {bad} at position {where} is outside [0, {num_nodes})",
            hint="Were they made for another graph?",
        )


def _integers(values: Any, name: str) -> np.ndarray:
    """`values` as contiguous int64; an empty list passes."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise InputDataError("GS-IN-200", f"{name}: values of dtype {array.dtype}, expected integers")
    return np.ascontiguousarray(array, dtype=np.int64)


def _refuse_duplicates(ids: np.ndarray, name: str) -> None:
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InputDataError(
            "GS-IN-202",
            f"{name}: node {int(twice[0])} comes more than once ({len(twice)} repeats in all)",
            hint="Pass each node once, e.g. numpy.unique(ids).",
        )


def _refuse_misfit(pairs: np.ndarray, label: np.ndarray, t: np.ndarray | None) -> None:
    for what, array in (("pair_label", label), ("t", t)):
        if array is not None and array.shape != (len(pairs),):
            raise InputDataError("GS-IN-203", f"{what} has shape {array.shape}, expected ({len(pairs)},)")
    if ((label != 0) & (label != 1)).any():
        raise InputDataError("GS-IN-205", "pair_label has values other than 0 (negative) and 1 (edge)")


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError("GS-CFG-203", f"{what} is {value!r}; it must be one of {', '.join(allowed)}")
