"""Loops of weighted draws: how many edges a node gets, and which. All serial, without the GIL.

Without replacement: exponential clocks (Efraimidis and Spirakis 2006, algorithm A-ES, as -log(u) / w, smallest first),
which draws one edge after another with probability proportional to its weight among those left. With replacement:
the inverse of the cumulative weights. An edge of weight 0 is never drawn, as if it were not there.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from gnnsys import keys

_mix = numba.njit(inline="always")(keys.mix)
_GOLDEN = keys.GOLDEN
_S12 = np.uint64(12)
_UNIT = 2.0**-52
_LN2 = math.log(2)
_SQRT_HALF = math.sqrt(0.5)
_TERMS = 11


@numba.njit(inline="always")
def _uniform(u):
    """uint64 -> one of 2**52 doubles in (0, 1), each equally often."""
    return (np.float64(np.int64(u >> _S12)) + 0.5) * _UNIT


@numba.njit
def log(x):
    """Natural logarithm of a double in (0, 1) in plain arithmetic: equal bits on every machine, which a library's is
    not held to. With x = m 2**e and s = (m - 1) / (m + 1): log x = e log 2 + 2 (s + s**3 / 3 + ...)."""
    m, e = math.frexp(x)
    if m < _SQRT_HALF:
        m, e = 2 * m, e - 1
    s = (m - 1) / (m + 1)
    total = 0.0
    for k in range(_TERMS, -1, -1):
        total = total * (s * s) + 1.0 / (2 * k + 1)
    return e * _LN2 + 2 * s * total


@numba.njit(inline="always")
def _visible(position, hidden, stop, begin, end):
    """`position`, or the first one behind the hidden ranges that it lies at the begin of, and the next of these."""
    while hidden < stop and position == begin[hidden]:
        position, hidden = end[hidden], hidden + 1
    return position, hidden


@numba.njit(nogil=True, cache=True)
def count_weighted(first, degree, weights, fanout, replace, hidden, begin, end, ptr):
    """As `kernels.count_edges`, of edges with a weight above 0.

    Args:
        first, degree: (n,) where the in-edges of every node begin, and how many of them are visible.
        weights: (E,) float32.
        replace: a node with any edge has `fanout` of them, unless fanout < 0.
        hidden: (n + 1,) int64 ranges begin, end of hidden positions per node, ascending, or (0,) for none.
    """
    total = np.int64(ptr[0])
    for i in range(degree.shape[0]):
        place, stop = (hidden[i], hidden[i + 1]) if hidden.shape[0] else (0, 0)
        count = _count(first[i], degree[i], weights, place, stop, begin, end)
        if fanout >= 0:
            count = fanout if replace and count else min(count, fanout)
        total += count
        ptr[i + 1] = total
    return total


@numba.njit(nogil=True, cache=True)
def draw_weighted(nodes, first, degree, weights, replace, hidden, begin, end, ptr, key, clocks, out):
    """As `kernels.draw_positions`, by weight; positions of hidden edges are left out. Edges come in the order drawn, in
    that of the list when all with a weight are taken.

    Args:
        nodes: (n,) int64 ids, which the draws are keyed by; the others as for `count_weighted`.
        clocks: (edges,) float64 scratch, as long as `out`.
    """
    start = np.int64(0)
    for i in range(nodes.shape[0]):
        count = np.int64(ptr[i + 1] - ptr[i])
        place, stop = (hidden[i], hidden[i + 1]) if hidden.shape[0] else (0, 0)
        state = _mix(key + np.uint64(nodes[i] + 1) * _GOLDEN)
        if count == 0:
            continue
        if replace:
            total = _sum(first[i], degree[i], weights, place, stop, begin, end)
            for k in range(start, start + count):
                state += _GOLDEN
                aim = _uniform(_mix(state)) * total
                out[k] = _reach(aim, first[i], degree[i], weights, place, stop, begin, end)
        elif count == _count(first[i], degree[i], weights, place, stop, begin, end):
            position, at = first[i], start
            while at < start + count:
                position, place = _visible(position, place, stop, begin, end)
                if weights[position] > 0:
                    out[at] = position
                    at += 1
                position += 1
        else:
            position, found = first[i], np.int64(0)
            for _ in range(degree[i]):
                position, place = _visible(position, place, stop, begin, end)
                state += _GOLDEN
                if weights[position] > 0:
                    clock = -log(_uniform(_mix(state))) / weights[position]
                    found = _insert(clock, position, clocks, out, start, found, count)
                position += 1
        start += count


@numba.njit(inline="always")
def _insert(clock, position, clocks, out, start, found, count):
    """Keep the `count` smallest clocks, ascending; equal ones in the order they came. Returns how many there are."""
    if found == count and not clock < clocks[start + count - 1]:
        return found
    at = start + min(found, count - 1)
    while at > start and clock < clocks[at - 1]:
        clocks[at], out[at] = clocks[at - 1], out[at - 1]
        at -= 1
    clocks[at], out[at] = clock, position
    return min(found + 1, count)


@numba.njit
def _count(position, degree, weights, place, stop, begin, end):
    """Visible edges with a weight above 0."""
    count = np.int64(0)
    for _ in range(degree):
        position, place = _visible(position, place, stop, begin, end)
        count += weights[position] > 0
        position += 1
    return count


@numba.njit
def _sum(position, degree, weights, place, stop, begin, end):
    """Weights of the visible edges, added in order."""
    total = 0.0
    for _ in range(degree):
        position, place = _visible(position, place, stop, begin, end)
        total += weights[position]
        position += 1
    return total


@numba.njit
def _reach(aim, position, degree, weights, place, stop, begin, end):
    """Position of the visible edge at which the sum of weights goes beyond `aim`; the last one with a weight, should
    rounding leave it short."""
    total, last = 0.0, np.int64(-1)
    for _ in range(degree):
        position, place = _visible(position, place, stop, begin, end)
        if weights[position] > 0:
            total, last = total + weights[position], position
            if total > aim:
                return last
        position += 1
    return last


@numba.njit(nogil=True, cache=True)
def first_bad(weights):
    """Index of the first weight that is negative, NaN or infinite; -1 when there is none."""
    for i in range(weights.shape[0]):
        if not (weights[i] >= 0 and weights[i] < np.inf):
            return i
    return -1
