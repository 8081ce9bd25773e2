"""Loops over the topology that layer-wise inference needs. Serial, without the GIL."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def mark_sources(indptr: np.ndarray, indices: np.ndarray, nodes: np.ndarray, mask: np.ndarray) -> None:
    """mask (N,) bool <- True at every in-neighbour of nodes (n,) int64; indptr int64, indices int32 or int64."""
    for i in range(nodes.shape[0]):
        for e in range(indptr[nodes[i]], indptr[nodes[i] + 1]):
            mask[indices[e]] = True
