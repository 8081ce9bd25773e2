"""Compiled loops over the edges of a whole graph."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def renumber(
    indptr: np.ndarray, indices: np.ndarray, order: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """In-edges after node `order[p]` became node p: (N + 1,) int64 and (E,) int32. Edges of a node keep their order.

    Args:
        indptr, indices: (N + 1,), (E,) integers; in-edges by destination.
        order, place: (N,) a permutation and its inverse.
    """
    num_nodes = len(order)
    new_indptr = np.zeros(num_nodes + 1, dtype=np.int64)
    new_indices = np.empty(len(indices), dtype=np.int32)
    at = 0
    for p in range(num_nodes):
        node = order[p]
        for edge in range(indptr[node], indptr[node + 1]):
            new_indices[at] = place[indices[edge]]
            at += 1
        new_indptr[p + 1] = at
    return new_indptr, new_indices


@njit(nogil=True, cache=True)
def transpose(indptr: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Out-edges by source from in-edges by destination: (N + 1,) int64 and (E,) int32, destinations ascending."""
    num_nodes = len(indptr) - 1
    out_indptr = np.zeros(num_nodes + 1, dtype=np.int64)
    for source in indices:
        out_indptr[source + 1] += 1
    for node in range(num_nodes):
        out_indptr[node + 1] += out_indptr[node]
    at = out_indptr[:-1].copy()
    destinations = np.empty(len(indices), dtype=np.int32)
    for node in range(num_nodes):
        for edge in range(indptr[node], indptr[node + 1]):
            source = indices[edge]
            destinations[at[source]] = node
            at[source] += 1
    return out_indptr, destinations
