"""Loops of neighbour sampling: draw positions, fetch sources, number nodes. All serial, all without the GIL.

One hop is three passes over its edges: apart, each has memory accesses that do not wait for each other, and the
processor overlaps them (fetching inside a loop over nodes was 5x slower than the flat `fetch_sources`). A faster
version may fuse or prefetch as long as every array stays the same.
"""

from __future__ import annotations

import numba
import numpy as np

from gnnsys import keys

_mix = numba.njit(inline="always")(keys.mix)
_GOLDEN = keys.GOLDEN
_S12 = np.uint64(12)
_UNIT = 2.0**-52


@numba.njit(inline="always")
def _below(u, n):
    """Map uint64 `u` to 0 .. n - 1, n int64.

    `u >> 12` has 52 bits, so the factor r is exact and at most 1 - 2**-52. r * n lies at least n * 2**-52 under n,
    which is a whole step of the doubles there or more, so rounding never reaches n. For n < 2**52 no value is
    favoured by more than n * 2**-52.
    """
    return np.int64(np.float64(np.int64(u >> _S12)) * _UNIT * np.float64(n))


@numba.njit(nogil=True, cache=True)
def ring_degrees(indptr, nodes, out):
    """out (n,) int32 <- in-degrees of nodes (n,) int64; returns the largest, which may not fit."""
    largest = np.int64(0)
    for i in range(nodes.shape[0]):
        degree = indptr[nodes[i] + 1] - indptr[nodes[i]]
        largest = max(largest, degree)
        out[i] = degree
    return largest


@numba.njit(nogil=True, cache=True)
def draw_positions(indptr, nodes, degree, ptr, key, out):
    """out[ptr[i] : ptr[i + 1]] <- that many of the positions indptr[nodes[i]] .. + degree[i] - 1, ascending: nodes
    (n,) int64, degree (n,) int32, ptr (n + 1,) int64, key uint64, out (ptr[-1],) int64.

    Floyd: for j = degree - count .. degree - 1 draw t in 0 .. j; take t, or j when t is taken. All subsets are
    equally likely. What is taken is kept sorted: a new position travels through it by min and max (inserting with
    branches was 2.4x slower at 5 of 50, the other way round at 500 of 2,000).
    """
    for i in range(nodes.shape[0]):
        first = indptr[nodes[i]]
        start = ptr[i]
        count = ptr[i + 1] - start
        if count == degree[i]:
            for k in range(count):
                out[start + k] = first + k
            continue
        state = _mix(key + np.uint64(nodes[i] + 1) * _GOLDEN)
        for k in range(count):
            j = degree[i] - count + k
            state += _GOLDEN
            position = first + _below(_mix(state), j + 1)
            taken = False
            for p in range(start, start + k):
                taken |= out[p] == position
            if taken:
                position = first + j
            for p in range(start, start + k):
                smaller = min(out[p], position)
                position = max(out[p], position)
                out[p] = smaller
            out[start + k] = position


@numba.njit(nogil=True, cache=True)
def find_hidden(indptr, indices, nodes, sources, begin, end):
    """begin, end (m,) int64 <- positions where sources[i] begins and ends in the ascending list of nodes[i]."""
    for i in range(nodes.shape[0]):
        begin[i] = _first_from(indptr, indices, nodes[i], sources[i])
        end[i] = _first_from(indptr, indices, nodes[i], sources[i] + 1)


@numba.njit(nogil=True, cache=True)
def _first_from(indptr, indices, node, source):
    """First position in the list of `node` whose source is at least `source`."""
    low, high = indptr[node], indptr[node + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < source:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(nogil=True, cache=True)
def skip_hidden(ptr, hidden_ptr, begin, end, positions):
    """Turn ascending positions drawn as if hidden edges were cut out into positions in the whole list, in place:
    node i hides the ascending ranges hidden_ptr[i] .. hidden_ptr[i + 1] of begin, end (m,) int64."""
    for i in range(hidden_ptr.shape[0] - 1):
        hidden = hidden_ptr[i]
        shift = np.int64(0)
        for p in range(ptr[i], ptr[i + 1]):
            while hidden < hidden_ptr[i + 1] and begin[hidden] <= positions[p] + shift:
                shift += end[hidden] - begin[hidden]
                hidden += 1
            positions[p] += shift


@numba.njit(nogil=True, cache=True)
def fetch_sources(indices, positions, out):
    """out (E,) <- indices at positions (E,) int64."""
    for e in range(positions.shape[0]):
        out[e] = indices[positions[e]]


@numba.njit(inline="always")
def _slot(node, shift):
    """Home of a node in a table of 2**(64 - shift) slots: the top bits of a product spread neighbouring ids."""
    return np.int64((np.uint64(node) * _GOLDEN) >> shift)


@numba.njit(nogil=True, cache=True)
def number_nodes(sources, start, table, shift, ids, count, out):
    """out (E,) int32 <- local numbers of sources (E,) from edge `start` on; new nodes get the next ones.

    `table` (2**b,) int32 holds local numbers or -1, linear probing; shift = uint64(64 - b); ids (>= 2**b / 2,)
    int64 holds `count` numbered nodes. Stops where the table is half full: returns (next edge, count).
    """
    last = table.shape[0] - 1
    room = table.shape[0] // 2
    for e in range(start, sources.shape[0]):
        node = np.int64(sources[e])
        slot = _slot(node, shift)
        while table[slot] >= 0 and ids[table[slot]] != node:
            slot = (slot + 1) & last
        if table[slot] < 0:
            if count == room:
                return e, count
            table[slot] = count
            ids[count] = node
            count += 1
        out[e] = table[slot]
    return sources.shape[0], count


@numba.njit(nogil=True, cache=True)
def fill_table(ids, count, table, shift):
    """Enter the first `count` of the distinct ids into an empty table."""
    last = table.shape[0] - 1
    for i in range(count):
        slot = _slot(ids[i], shift)
        while table[slot] >= 0:
            slot = (slot + 1) & last
        table[slot] = i
