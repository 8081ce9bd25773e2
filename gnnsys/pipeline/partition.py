"""Split the nodes of a graph into chunks of equal cost with few edges between them, in a handful of passes.

Nodes stream by in breadth-first order and each goes where most of its neighbours are, less so the fuller that part is
(linear deterministic greedy: Stanton and Kliot 2012). The passes after the first know where everybody was before
(restreaming: Nishimura and Ugander 2013), and the last ones only make moves that save edges. Edges count both ways.
Nothing but the part of every node is kept between passes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from gnnsys.errors import ConfigError
from gnnsys.pipeline.kernels import transpose

NODE_COST = 10
"""What a node costs beside its in-edges, in edges: its dense products against a row added up."""
SLACK = 1.1
"""How full a part may get, against the mean."""
_STREAMED, _REFINED = 10, 5
"""Passes of either kind."""


def partition(indptr: np.ndarray, indices: np.ndarray, num_parts: int) -> np.ndarray:
    """Part of every node, (N,) int32.

    A part costs at most `SLACK` times the mean, or the mean plus the most costly node where that is more; none is
    empty. Equal inputs give equal parts.

    Args:
        indptr: (N + 1,) integers; in-edges of node v are `indptr[v] : indptr[v + 1]`.
        indices: (E,) integers; source of every edge.
        num_parts: from 1 to N.

    Raises:
        ConfigError: `num_parts` is outside that range.
    """
    num_nodes = len(indptr) - 1
    if not 1 <= num_parts <= max(num_nodes, 1):
        raise ConfigError("GS-CFG-801", f"{num_nodes:,} nodes cannot be split into {num_parts} parts")
    if num_parts == 1:
        return np.zeros(num_nodes, dtype=np.int32)
    out_indptr, out_indices = transpose(indptr, indices)
    graph = indptr, indices, out_indptr, out_indices
    weight = np.diff(indptr) + NODE_COST
    room = SLACK * weight.sum() / num_parts
    part = np.full(num_nodes, -1, dtype=np.int32)
    order = _breadth_first(*graph)
    for number in range(_STREAMED + _REFINED):
        _stream(*graph, order, weight, room, part, num_parts, number >= _STREAMED)
    _fill_empty(part, num_parts)
    return part


def relabel(part: np.ndarray, num_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Put the nodes part after part.

    Args:
        part: (N,) integers in [0, num_parts).

    Returns:
        (N,) int64, the node of every place, ascending within a part; and (num_parts + 1,) int64, where parts begin.
    """
    sizes = np.bincount(part, minlength=num_parts)
    return np.argsort(part, kind="stable"), np.concatenate([[0], np.cumsum(sizes)])


def edge_cut(indptr: np.ndarray, indices: np.ndarray, part: np.ndarray) -> int:
    """How many edges run between two parts."""
    to = np.repeat(part, np.diff(indptr))
    return int(np.count_nonzero(part[indices] != to))


@njit(nogil=True, cache=True)
def _breadth_first(
    indptr: np.ndarray, indices: np.ndarray, out_indptr: np.ndarray, out_indices: np.ndarray
) -> np.ndarray:
    """All nodes, component by component, each from its lowest node on."""
    num_nodes = len(indptr) - 1
    order = np.empty(num_nodes, dtype=np.int64)
    seen = np.zeros(num_nodes, dtype=np.bool_)
    done = found = 0
    for start in range(num_nodes):
        if not seen[start]:
            seen[start] = True
            order[found] = start
            found += 1
        while done < found:
            node = order[done]
            done += 1
            found = _reach(indices[indptr[node] : indptr[node + 1]], seen, order, found)
            found = _reach(out_indices[out_indptr[node] : out_indptr[node + 1]], seen, order, found)
    return order


@njit(nogil=True, cache=True)
def _reach(others: np.ndarray, seen: np.ndarray, order: np.ndarray, found: int) -> int:
    """Put those not seen yet behind the `found` in `order`; returns how many there are then."""
    for other in others:
        if not seen[other]:
            seen[other] = True
            order[found] = other
            found += 1
    return found


@njit(nogil=True, cache=True)
def _stream(
    indptr: np.ndarray,
    indices: np.ndarray,
    out_indptr: np.ndarray,
    out_indices: np.ndarray,
    order: np.ndarray,
    weight: np.ndarray,
    room: float,
    part: np.ndarray,
    num_parts: int,
    refine: bool,
) -> None:
    """One pass: every node leaves its part and goes to the best one with room, or to the least full. A streamed pass
    begins with empty parts but remembers who was where; a refining one begins with the parts as they are."""
    load = np.zeros(num_parts, dtype=np.float64)
    if refine:
        for node in range(len(part)):
            load[part[node]] += weight[node]
    near = np.zeros(num_parts, dtype=np.float64)
    for node in order:
        near[:] = 0.0
        _count(indices[indptr[node] : indptr[node + 1]], part, near)
        _count(out_indices[out_indptr[node] : out_indptr[node + 1]], part, near)
        if refine:
            load[part[node]] -= weight[node]
        best, least, best_score = -1, 0, -1.0
        for p in range(num_parts):
            if load[p] < load[least]:
                least = p
            if load[p] + weight[node] > room:
                continue
            score = near[p] + (0.5 if p == part[node] else 0.0) if refine else near[p] * (1.0 - load[p] / room)
            if score > best_score or (score == best_score and load[p] < load[best]):
                best, best_score = p, score
        part[node] = best if best >= 0 else least
        load[part[node]] += weight[node]


@njit(nogil=True, cache=True)
def _count(others: np.ndarray, part: np.ndarray, near: np.ndarray) -> None:
    """Count those that are in a part already, part by part."""
    for other in others:
        if part[other] >= 0:
            near[part[other]] += 1


def _fill_empty(part: np.ndarray, num_parts: int) -> None:
    """Give every empty part a node of the part with the most."""
    sizes = np.bincount(part, minlength=num_parts)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        part[np.flatnonzero(part == largest)[-1]] = empty
        sizes[largest] -= 1
        sizes[empty] += 1
