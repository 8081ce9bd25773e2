"""Which in-edges of a node are drawn: uniformly or by weight, without or with replacement."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.samplers import kernels, weighted
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import raw_bytes
from gnnsys.storage.store import Store


class Hidden(Protocol):
    """Edges that must not be drawn: ranges begin, end (m,) int64 of positions, those of node i from ptr[i] on."""

    ptr: np.ndarray
    begin: np.ndarray
    end: np.ndarray


class Ring(NamedTuple):
    """The nodes of one ring and what is to be drawn for them."""

    nodes: np.ndarray
    """(n,) int64 global ids."""
    first: np.ndarray
    """(n,) int64 where their in-edges begin."""
    degree: np.ndarray
    """(n,) int32 how many of these are visible."""
    ptr: np.ndarray
    """(n + 1,) int32 where the edges drawn begin; the first place is filled, the rest by `count`."""
    fanout: int
    """Of every node; -1 takes all, 0 none."""
    hidden: Hidden


class Draw(Protocol):
    """A way to draw; several threads may call it at once."""

    def count(self, ring: Ring) -> int:
        """Fill `ring.ptr`; returns the end of the last node, which may not fit."""
        ...

    def positions(self, ring: Ring, key: np.uint64, out: np.ndarray) -> None:
        """out (ptr[n] - ptr[0],) int64 <- positions of the edges drawn, a function of `key` and the ids."""
        ...


class Uniform:
    """Every edge equally likely.

    Args:
        replace: an edge may be drawn again: a node with any edges gets as many as the fanout says.
    """

    def __init__(self, replace: bool = False) -> None:
        self._replace = replace

    def count(self, ring: Ring) -> int:
        return int(kernels.count_edges(ring.degree, ring.fanout, self._replace, ring.ptr))

    def positions(self, ring: Ring, key: np.uint64, out: np.ndarray) -> None:
        draw = kernels.draw_replaced if self._replace and ring.fanout >= 0 else kernels.draw_positions
        draw(ring.nodes, ring.first, ring.degree, ring.ptr, key, out)
        hidden = ring.hidden
        if len(hidden.ptr):
            kernels.skip_hidden(ring.ptr, hidden.ptr, hidden.begin, hidden.end, out)


class Weighted:
    """Edges drawn in proportion to their weights; one of weight 0 never is, not even by a fanout of -1.

    Args:
        weights: (E,) float32, those of the edges in the order of the Store's topology.
        replace: as for `Uniform`.
    """

    def __init__(self, weights: np.ndarray, replace: bool = False) -> None:
        self._weights, self._replace = weights, replace

    def count(self, ring: Ring) -> int:
        _, first, degree, ptr, fanout, hidden = ring
        ranges = hidden.ptr, hidden.begin, hidden.end
        return int(weighted.count_weighted(first, degree, self._weights, fanout, self._replace, *ranges, ptr))

    def positions(self, ring: Ring, key: np.uint64, out: np.ndarray) -> None:
        nodes, first, degree, ptr, fanout, hidden = ring
        ranges, replace = (hidden.ptr, hidden.begin, hidden.end), self._replace and fanout >= 0
        clocks = np.empty(len(out))
        weighted.draw_weighted(nodes, first, degree, self._weights, replace, *ranges, ptr, key, clocks, out)


def drawn_by(store: Store, by_weight: bool) -> np.ndarray | None:
    """The (E,) weights that edges of `store` are drawn by; None for uniformly.

    Raises:
        ConfigError: by weight, from a Store without any.
    """
    found = store.edge_weights() if by_weight else None
    if by_weight and found is None:
        raise ConfigError(
            "GS-CFG-973",
            f"{store.path}: the edges have no weights",
            hint="Leave out --weighted, or ingest with weights.",
        )
    return found


def copied_bytes(weights: np.ndarray | None) -> int:
    """Memory of the copy that weights of another type than contiguous float32 are converted to."""
    if weights is None or (
        isinstance(weights, np.ndarray) and weights.dtype == np.float32 and weights.flags.c_contiguous
    ):
        return 0
    return 4 * len(weights)


def make_draw(weights: np.ndarray | None, replace: bool, num_edges: int) -> tuple[Draw, str | None]:
    """The way to draw that the options ask for, and the digest of the weights.

    Raises:
        InputDataError: not one finite weight, at least 0, per edge.
    """
    if weights is None:
        return Uniform(replace), None
    if np.shape(weights) != (num_edges,):
        raise InputDataError(
            "GS-IN-207",
            f"weights have shape {np.shape(weights)}, the graph has {num_edges} edges",
            hint="One weight per edge, in the order of store.graph.indices.",
        )
    values = np.ascontiguousarray(weights, dtype=np.float32)
    bad = int(weighted.first_bad(values))
    if bad >= 0:
        raise InputDataError("GS-IN-207", f"weight {values[bad]} of edge {bad}: weights are finite and at least 0")
    return Weighted(values, replace), digest_of_weights(values)


def digest_of_weights(values: np.ndarray) -> str:
    """Of (E,) float32."""
    return digest(raw_bytes(values))
