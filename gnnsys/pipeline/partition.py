"""Split the nodes of a graph into chunks of equal cost with few edges between them.

The graph is made smaller level by level (`coarsen`), the smallest one is cut, and every level is mended on the way
back (multilevel: Karypis and Kumar 1998). The cut goes in passes: a group goes where most of its edges are, less so
the fuller that part is (linear deterministic greedy: Stanton and Kliot 2012), and the passes after the first know
where everybody was before (restreaming: Nishimura and Ugander 2013). Mending only makes moves that save edges. Edges
count both ways.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from gnnsys.errors import ConfigError
from gnnsys.pipeline.coarsen import Graph, breadth_first, contract, join, symmetric

NODE_COST = 10
"""What a node costs beside its in-edges, in edges: its dense products against a row added up."""
SLACK = 1.1
"""How full a part may get, against the mean."""
BYTES_PER_EDGE = 128
"""What a partition takes while it is made, all levels together: 64 were measured on communities, 122 on a graph without
any, whose levels hardly shrink."""
_FLOOR = 0.8
"""Mending takes nothing from a part that would hold less than this, against the mean."""
_GROUPS = 30
"""The smallest graph has about so many groups a part."""
_TRIES, _STREAMED, _MENDED = 4, 10, 10
"""How many orders the smallest graph is cut in, passes of a cut, and at most so many passes to mend a level."""


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
    weight = np.diff(indptr).astype(np.int64) + NODE_COST
    mean = weight.sum() / num_parts
    graph = symmetric(indptr, indices)
    levels = []
    while len(weight) > _GROUPS * num_parts:
        group, coarse_weight = join(*graph, weight, (SLACK - 1) * mean)
        if len(coarse_weight) > 0.9 * len(weight):
            break
        levels.append((graph, weight, group))
        graph, weight = contract(*graph, group, len(coarse_weight)), coarse_weight
    part = _cut(graph, weight, mean, num_parts)
    for graph, weight, group in reversed(levels):
        part = _mended(graph, weight, mean, part[group], num_parts)
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


def _cut(graph: Graph, weight: np.ndarray, mean: float, num_parts: int) -> np.ndarray:
    """The best of some cuts: one in breadth-first order, and some in orders drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    orders = [breadth_first(*graph[:2]), *(rng.permutation(len(weight)) for _ in range(1, _TRIES))]
    cuts = []
    for order in orders:
        part = np.full(len(weight), -1, dtype=np.int32)
        for _ in range(_STREAMED):
            _stream(*graph, order, weight, mean, part, num_parts)
        cuts.append(_mended(graph, weight, mean, part, num_parts))
    return min(cuts, key=lambda part: _edges_between(graph, part))


def _edges_between(graph: Graph, part: np.ndarray) -> int:
    indptr, others, edges = graph
    return int(edges[part[others] != np.repeat(part, np.diff(indptr))].sum())


def _mended(graph: Graph, weight: np.ndarray, mean: float, part: np.ndarray, num_parts: int) -> np.ndarray:
    """`part` after passes of moves that save edges, until hardly a node moves."""
    order = breadth_first(*graph[:2])
    for _ in range(_MENDED):
        if 200 * _mend(*graph, order, weight, SLACK * mean, _FLOOR * mean, part, num_parts) < len(weight):
            break
    return part


@njit(nogil=True, cache=True)
def _stream(
    indptr: np.ndarray,
    others: np.ndarray,
    edges: np.ndarray,
    order: np.ndarray,
    weight: np.ndarray,
    room: float,
    part: np.ndarray,
    num_parts: int,
) -> None:
    """One pass that fills empty parts and remembers who was where (-1: nowhere yet). Every node goes to the best part
    with room, or to the least full."""
    load = np.zeros(num_parts, dtype=np.float64)
    near = np.zeros(num_parts, dtype=np.float64)
    for node in order:
        near[:] = 0.0
        for edge in range(indptr[node], indptr[node + 1]):
            if part[others[edge]] >= 0:
                near[part[others[edge]]] += edges[edge]
        best, best_score, least = -1, -1.0, 0
        for p in range(num_parts):
            if load[p] < load[least]:
                least = p
            if load[p] + weight[node] > room:
                continue
            score = near[p] * (1.0 - load[p] / room)
            if score > best_score or (score == best_score and load[p] < load[best]):
                best, best_score = p, score
        part[node] = best if best >= 0 else least
        load[part[node]] += weight[node]


@njit(nogil=True, cache=True)
def _mend(
    indptr: np.ndarray,
    others: np.ndarray,
    edges: np.ndarray,
    order: np.ndarray,
    weight: np.ndarray,
    room: float,
    floor: float,
    part: np.ndarray,
    num_parts: int,
) -> int:
    """One pass over the parts as they are: every node moves to the part with most of its edges, if that has room and
    its own part stays above the floor. Returns how many moved."""
    load = np.zeros(num_parts, dtype=np.float64)
    for node in order:
        load[part[node]] += weight[node]
    near = np.zeros(num_parts, dtype=np.int64)
    moved = 0
    for node in order:
        own = part[node]
        if load[own] - weight[node] < floor:
            continue
        near[:] = 0
        for edge in range(indptr[node], indptr[node + 1]):
            near[part[others[edge]]] += edges[edge]
        best = own
        for p in range(num_parts):
            if near[p] > near[best] and load[p] + weight[node] <= room:
                best = p
        if best != own:
            load[own] -= weight[node]
            load[best] += weight[node]
            part[node] = best
            moved += 1
    return moved


def _fill_empty(part: np.ndarray, num_parts: int) -> None:
    """Give every empty part a node of the part with the most."""
    sizes = np.bincount(part, minlength=num_parts)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        part[np.flatnonzero(part == largest)[-1]] = empty
        sizes[largest] -= 1
        sizes[empty] += 1
