"""Make a graph smaller by joining nodes that belong together: what the partitioner cuts instead of the whole graph.

A graph here is symmetric and weighted: (N + 1,) int64 `indptr`, (M,) int32 `others` without the node itself or anyone
twice, and (M,) int32 `edges`, how many edges run between the two, either way.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from gnnsys.pipeline.kernels import transpose

Graph = tuple[np.ndarray, np.ndarray, np.ndarray]
_ROUNDS = 3
"""How often every node may change its group on one level."""


@njit(nogil=True, cache=True)
def symmetric(indptr: np.ndarray, indices: np.ndarray) -> Graph:
    """The graph of in-edges `indices[indptr[v] : indptr[v + 1]]` of every node v."""
    num_nodes = len(indptr) - 1
    out_indptr, out_indices = transpose(indptr, indices)
    both = np.empty(num_nodes + 1, dtype=np.int64)
    others = np.empty(2 * len(indices), dtype=np.int32)
    edges = np.zeros(2 * len(indices), dtype=np.int32)
    at = np.full(num_nodes, -1, dtype=np.int64)  # where the node before wrote each of its neighbours
    both[0] = end = 0
    for node in range(num_nodes):
        begin = end
        end = _add(indices[indptr[node] : indptr[node + 1]], node, begin, end, at, others, edges)
        end = _add(out_indices[out_indptr[node] : out_indptr[node + 1]], node, begin, end, at, others, edges)
        both[node + 1] = end
    return both, others[:end], edges[:end]


@njit(nogil=True, cache=True)
def _add(
    found: np.ndarray, node: int, begin: int, end: int, at: np.ndarray, others: np.ndarray, edges: np.ndarray
) -> int:
    """Count the neighbours of `node` in `found`, each in one place from `begin` on; returns the end of the places."""
    for other in found:
        if other == node:
            continue
        if at[other] < begin:
            at[other] = end
            others[end] = other
            end += 1
        edges[at[other]] += 1
    return end


@njit(nogil=True, cache=True)
def breadth_first(indptr: np.ndarray, others: np.ndarray) -> np.ndarray:
    """All nodes, (N,) int64, component by component, each from its lowest node on."""
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
            for other in others[indptr[node] : indptr[node + 1]]:
                if not seen[other]:
                    seen[other] = True
                    order[found] = other
                    found += 1
    return order


@njit(nogil=True, cache=True)
def join(
    indptr: np.ndarray, others: np.ndarray, edges: np.ndarray, weight: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Groups of nodes with many edges among them: label propagation where no group grows above `limit`.

    Among the groups around it, a node prefers the one with the most edges to it for its weight, so that small groups
    grow first.

    Args:
        weight: (N,) int64.

    Returns:
        (N,) int64, the group of every node; and (G,) int64, the weight of every group.
    """
    num_nodes = len(indptr) - 1
    group = np.arange(num_nodes)
    load = weight.copy()
    near = np.zeros(num_nodes, dtype=np.int64)
    order = breadth_first(indptr, others)
    for _ in range(_ROUNDS):
        for node in order:
            around = slice(indptr[node], indptr[node + 1])
            for edge in range(around.start, around.stop):
                near[group[others[edge]]] += edges[edge]
            own = group[node]
            load[own] -= weight[node]
            best, most = own, near[own] / (load[own] + 1.0)
            for other in others[around]:
                candidate = group[other]
                score = near[candidate] / (load[candidate] + 1.0)
                if score > most and load[candidate] + weight[node] <= limit:
                    best, most = candidate, score
            for other in others[around]:
                near[group[other]] = 0
            group[node] = best
            load[best] += weight[node]
    return _numbered(group, load)


@njit(nogil=True, cache=True)
def _numbered(group: np.ndarray, load: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups by their first node, and their weights; those nobody is in are gone."""
    number = np.full(len(group), -1, dtype=np.int64)
    weight = np.empty(len(group), dtype=np.int64)
    count = 0
    for node in range(len(group)):
        own = group[node]
        if number[own] < 0:
            number[own] = count
            weight[count] = load[own]
            count += 1
        group[node] = number[own]
    return group, weight[:count].copy()


@njit(nogil=True, cache=True)
def contract(indptr: np.ndarray, others: np.ndarray, edges: np.ndarray, group: np.ndarray, num_groups: int) -> Graph:
    """The graph of the groups; edges inside one are gone."""
    members = np.argsort(group, kind="mergesort")
    coarse = np.empty(num_groups + 1, dtype=np.int64)
    coarse_others = np.empty(len(others), dtype=np.int32)
    coarse_edges = np.zeros(len(others), dtype=np.int32)
    at = np.full(num_groups, -1, dtype=np.int64)
    coarse[0] = begin = end = 0
    previous = 0
    for node in members:
        own = group[node]
        if own != previous:
            coarse[own] = begin = end
            previous = own
        for edge in range(indptr[node], indptr[node + 1]):
            other = group[others[edge]]
            if other == own:
                continue
            if at[other] < begin:
                at[other] = end
                coarse_others[end] = other
                end += 1
            coarse_edges[at[other]] += edges[edge]
    coarse[num_groups] = end
    return coarse, coarse_others[:end], coarse_edges[:end]
