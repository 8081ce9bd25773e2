"""Loops of neighbour sampling: look nodes up, draw positions, fetch sources, number nodes. All serial, without the GIL.

A hop is a few passes over its nodes and edges, each with one kind of access to a large array. Apart, the accesses of
a pass do not wait for each other, and what a pass will touch is known ahead, so it is prefetched. Fetching inside the
loop over nodes was 5x slower than the flat `fetch_sources`.
"""

from __future__ import annotations

import numba
import numpy as np

from gnnsys import keys
from gnnsys.storage.intrinsics import prefetch

_mix = numba.njit(inline="always")(keys.mix)
_GOLDEN = keys.GOLDEN
_S12 = np.uint64(12)
_UNIT = 2.0**-52
_AHEAD = 64
"""How many items ahead to prefetch: about as many as are worked off while one line comes from memory."""


@numba.njit(inline="always")
def _below(u, n):
    """Map uint64 `u` to 0 .. n - 1, n int64.

    `u >> 12` has 52 bits, so the factor r is exact and at most 1 - 2**-52. r * n lies at least n * 2**-52 under n,
    which is a whole step of the doubles there or more, so rounding never reaches n. For n < 2**52 no value is
    favoured by more than n * 2**-52.
    """
    return np.int64(np.float64(np.int64(u >> _S12)) * _UNIT * np.float64(n))


@numba.njit(nogil=True, cache=True)
def look_up(indptr, nodes, first, degree):
    """first (n,) int64, degree (n,) int32 <- where the in-edges of nodes (n,) int64 begin and how many they are;
    returns the largest number, which may not fit."""
    largest = np.int64(0)
    base, ahead = indptr.ctypes.data, nodes.shape[0] - _AHEAD
    for i in range(nodes.shape[0]):
        if i < ahead:
            prefetch(base + 8 * nodes[i + _AHEAD])
        first[i] = indptr[nodes[i]]
        count = indptr[nodes[i] + 1] - first[i]
        largest = max(largest, count)
        degree[i] = count
    return largest


@numba.njit(nogil=True, cache=True)
def count_edges(degree, fanout, replace, ptr):
    """ptr[1:] (n + 1,) int32 <- where the edges of every node end, when it has min(degree, fanout) of them (with
    `replace` fanout, unless degree is 0), all when fanout < 0, and the first one's begin at ptr[0]; returns the end of
    the last, which may not fit."""
    end = np.int64(ptr[0])
    for i in range(degree.shape[0]):
        if fanout < 0:
            end += degree[i]
        elif replace:
            end += fanout if degree[i] > 0 else 0
        else:
            end += min(degree[i], fanout)
        ptr[i + 1] = end
    return end


@numba.njit(nogil=True, cache=True)
def draw_positions(nodes, first, degree, ptr, key, out):
    """out[ptr[i] - ptr[0] : ptr[i + 1] - ptr[0]] <- that many of the positions first[i] .. first[i] + degree[i] - 1:
    nodes, first (n,) int64, degree (n,) int32, ptr (n + 1,) int32, key uint64, out (ptr[n] - ptr[0],) int64.

    All of them in order when they are as many as there are. Else Floyd: for j = degree - count .. degree - 1 draw t in
    0 .. j; take t, or j when t is taken. All subsets are equally likely. (Keeping them sorted took half as long again
    at 5 of them, twice as long at 15.)
    """
    start = np.int64(0)
    for i in range(nodes.shape[0]):
        count = np.int64(ptr[i + 1] - ptr[i])
        stop = start + count
        j = np.int64(degree[i]) - count
        if j == 0:
            for k in range(count):
                out[start + k] = first[i] + k
            start = stop
            continue
        state = _mix(key + np.uint64(nodes[i] + 1) * _GOLDEN)
        for k in range(start, stop):
            state += _GOLDEN
            position = first[i] + _below(_mix(state), j + 1)
            taken = False
            for p in range(start, k):
                taken |= out[p] == position
            out[k] = first[i] + j if taken else position
            j += 1
        start = stop


@numba.njit(nogil=True, cache=True)
def draw_replaced(nodes, first, degree, ptr, key, out):
    """As `draw_positions`, but every draw is among all positions."""
    start = np.int64(0)
    for i in range(nodes.shape[0]):
        state = _mix(key + np.uint64(nodes[i] + 1) * _GOLDEN)
        for k in range(start, start + np.int64(ptr[i + 1] - ptr[i])):
            state += _GOLDEN
            out[k] = first[i] + _below(_mix(state), np.int64(degree[i]))
        start += np.int64(ptr[i + 1] - ptr[i])


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
def find_positions(indptr, indices, nodes, ptr, sources, parallel, out):
    """out (E,) int64 <- a position of every sampled edge in the ascending list of its destination: of nodes[i] the
    sources nodes[sources[e]], e in ptr[i] .. ptr[i + 1]. nodes (N,) int64, ptr (n + 1,) int32, sources (E,) int32.

    With `parallel` edges those with equal ends get one position after the other, and begin anew when they are more
    than the list has.
    """
    for i in range(ptr.shape[0] - 1):
        ascending = True
        for e in range(ptr[i] + 1, ptr[i + 1] if parallel else 0):
            ascending &= nodes[sources[e - 1]] <= nodes[sources[e]]
        before = np.int64(0)
        for e in range(ptr[i], ptr[i + 1]):
            source = nodes[sources[e]]
            first = _first_from(indptr, indices, nodes[i], source)
            out[e] = first
            if not parallel:
                continue
            if ascending:
                before = before + 1 if e > ptr[i] and sources[e - 1] == sources[e] else np.int64(0)
            else:
                before = np.int64(0)
                for p in range(ptr[i], e):
                    before += sources[p] == sources[e]
            out[e] += before % (_first_from(indptr, indices, nodes[i], source + 1) - first)


@numba.njit(nogil=True, cache=True)
def skip_hidden(ptr, hidden_ptr, begin, end, positions):
    """Turn positions drawn as if hidden edges were cut out into positions in the whole list, in place: node i, whose
    positions are ptr[i] .. ptr[i + 1], hides the ascending ranges hidden_ptr[i] .. hidden_ptr[i + 1] of begin, end
    (m,) int64."""
    for i in range(hidden_ptr.shape[0] - 1):
        for p in range(ptr[i], ptr[i + 1]):
            for hidden in range(hidden_ptr[i], hidden_ptr[i + 1]):
                if begin[hidden] <= positions[p]:
                    positions[p] += end[hidden] - begin[hidden]


@numba.njit(nogil=True, cache=True)
def fetch_sources(indices, positions, out):
    """out (E,) <- indices at positions (E,) int64."""
    base, ahead = indices.ctypes.data, positions.shape[0] - _AHEAD
    for e in range(positions.shape[0]):
        if e < ahead:
            prefetch(base + indices.itemsize * positions[e + _AHEAD])
        out[e] = indices[positions[e]]


@numba.njit(nogil=True, cache=True)
def number_by_stamp(sources, stamps, base, ids, count, out):
    """out (E,) int32 <- local numbers of sources (E,); new nodes get the next ones; returns how many nodes there are.

    stamps (N,) int32 holds base + local number of every node numbered in this batch, less than base of all others:
    raising base by the nodes of a batch clears it. ids (>= count + 1 + new nodes,) int64 holds `count` numbered nodes.
    Nothing depends on a branch: whether a node is new is as good as random.
    """
    address, ahead = stamps.ctypes.data, sources.shape[0] - _AHEAD
    for e in range(sources.shape[0]):
        if e < ahead:
            prefetch(address + 4 * np.int64(sources[e + _AHEAD]))
        node = np.int64(sources[e])
        local = np.int64(stamps[node]) - base
        is_new = local < 0
        local = count if is_new else local
        stamps[node] = base + local
        ids[count] = node
        count += is_new
        out[e] = local
    return count


@numba.njit(inline="always")
def _slot(node, shift):
    """Home of a node in a table of 2**(64 - shift) slots: the top bits of a product spread neighbouring ids."""
    return np.int64((np.uint64(node) * _GOLDEN) >> shift)


@numba.njit(nogil=True, cache=True)
def number_by_hash(sources, start, table, shift, ids, count, out):
    """out (E,) int32 <- local numbers of sources (E,) from edge `start` on; new nodes get the next ones.

    `table` (2**b,) int32 holds local numbers or -1, linear probing; shift = uint64(64 - b); ids (>= 2**b / 2,)
    int64 holds `count` numbered nodes. Stops where the table is half full: returns (next edge, count).
    """
    last = table.shape[0] - 1
    room = table.shape[0] // 2
    address, ahead = table.ctypes.data, sources.shape[0] - _AHEAD
    for e in range(start, sources.shape[0]):
        if e < ahead:
            prefetch(address + 4 * _slot(sources[e + _AHEAD], shift))
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
