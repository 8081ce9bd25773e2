"""Loops over the topology, of layer-wise inference and label propagation. Serial, without the GIL."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def mark_sources(indptr: np.ndarray, indices: np.ndarray, nodes: np.ndarray, mask: np.ndarray) -> None:
    """mask (N,) bool <- True at every in-neighbour of nodes (n,) int64; indptr int64, indices int32 or int64."""
    for i in range(nodes.shape[0]):
        for e in range(indptr[nodes[i]], indptr[nodes[i] + 1]):
            mask[indices[e]] = True


@numba.njit(nogil=True, cache=True)
def spread(
    indptr: np.ndarray,
    indices: np.ndarray,
    scale: np.ndarray,
    h: np.ndarray,
    seed_class: np.ndarray,
    first: int,
    alpha: float,
    begin: int,
    end: int,
    out: np.ndarray,
) -> None:
    """Rows begin .. end of out (N, K) <- alpha * scale_v * sum over u -> v of scale_u h_u, and 1 - alpha more where the
    class of v is first + column, clamped to 0 .. 1; scale (N,), h (N, K) float32, seed_class (N,) int64, -1 = none."""
    zero, one, damping = np.float32(0), np.float32(1), np.float32(alpha)
    for v in range(begin, end):
        for column in range(h.shape[1]):
            out[v, column] = zero
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            for column in range(h.shape[1]):
                out[v, column] += scale[u] * h[u, column]
        for column in range(h.shape[1]):
            own = one - damping if seed_class[v] == first + column else zero
            out[v, column] = min(one, max(zero, damping * scale[v] * out[v, column] + own))
