"""Loops over rows of bytes: order-free sums, gathers, scatters and page spans. All serial, all without the GIL."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types

from gnnsys import keys
from gnnsys.storage.intrinsics import LINE_BYTES, copy, fence, stream_line

_mix = numba.njit(inline="always")(keys.mix)
_GOLDEN = keys.GOLDEN
_STEP = np.uint64(0xD6E8FEB86659FD92)
_ONE = np.uint64(1)
_STREAM_BYTES = 1 << 20
"""Results larger than this would not stay in a core's cache anyway."""

_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.intp, types.uintp, types.int64))


@numba.njit(nogil=True, cache=True)
def row_sums(words, slots, start):
    """Sum over rows of mix(words . factors + (slot + 1) * GOLDEN): words (R, W) uint64; slots (R,) int64, or (0,)
    for start, start + 1, ..."""
    factors = np.empty(words.shape[1], dtype=np.uint64)
    factor = _ONE
    for j in range(words.shape[1]):
        factors[j] = factor
        factor += _STEP
    total = np.uint64(0)
    for r in range(words.shape[0]):
        acc = np.uint64(0)
        for j in range(words.shape[1]):
            acc += words[r, j] * factors[j]
        slot = slots[r] if slots.shape[0] else start + r
        total += _mix(acc + np.uint64(slot + 1) * _GOLDEN)
    return total


@numba.njit(nogil=True, cache=True)
def gather_two(first, second, where, out):
    """out (n, B) <- first[w] when w < len(first), else second[w - len(first)]; all rows uint8, where (n,) integer.

    Large results of whole, aligned cache lines are streamed: 5.8 -> 10.5 GB/s at 512-byte rows on one core.
    """
    row_bytes, split = out.shape[1], first.shape[0]
    to, low, high = out.ctypes.data, first.ctypes.data, second.ctypes.data
    streamed = row_bytes % LINE_BYTES == 0 and to % LINE_BYTES == 0 and out.size >= _STREAM_BYTES
    for i in range(where.shape[0]):
        w = np.int64(where[i])
        source = low + w * row_bytes if w < split else high + (w - split) * row_bytes
        if streamed:
            for at in range(0, row_bytes, LINE_BYTES):
                stream_line(to + at, source + at)
        else:
            copy(to, source, row_bytes)
        to += row_bytes
    fence()


@numba.njit(nogil=True, cache=True)
def weighted_sums(first, second, where, indptr, indices, weights, own, out):
    """out (D, F) float32 <- per destination, in edge order: sum of weights[e] * row of source indices[e], then
    own[v] * its own row when own is not empty. Row w of a node is first[w] when w < len(first), else second[w -
    len(first)]: all (.., F) float32, where (n,) integer, weights (E,), own (D,) or (0,) float32.

    Products are rounded before they are added, so the bytes are the same on every processor.
    """
    split = first.shape[0]
    for v in range(indptr.shape[0] - 1):
        out[v] = 0
        for e in range(indptr[v], indptr[v + 1]):
            w = np.int64(where[indices[e]])
            _add(out[v], weights[e], first[w] if w < split else second[w - split])
        if own.shape[0]:
            w = np.int64(where[v])
            _add(out[v], own[v], first[w] if w < split else second[w - split])


@numba.njit(inline="always")
def _add(total, weight, row):
    for column in range(total.shape[0]):
        total[column] += weight * row[column]


@numba.njit(nogil=True, cache=True)
def gather(rows, where, out):
    """out (n, B) <- rows[where]: rows (R, B) uint8, where (n,) integer, all C-contiguous."""
    gather_two(rows, rows, where, out)


@numba.njit(nogil=True, cache=True)
def scatter(rows, where, out):
    """out[where] <- rows (n, B): the last of equal targets wins, a negative one is left out; out (R, B) uint8, where
    (n,) integer. Large results of whole, aligned cache lines are streamed."""
    row_bytes, to, source = out.shape[1], out.ctypes.data, rows.ctypes.data
    streamed = row_bytes % LINE_BYTES == 0 and to % LINE_BYTES == 0 and out.size >= _STREAM_BYTES
    for i in range(where.shape[0]):
        place = np.int64(where[i])
        if place >= 0:
            if streamed:
                for at in range(0, row_bytes, LINE_BYTES):
                    stream_line(to + place * row_bytes + at, source + at)
            else:
                copy(to + place * row_bytes, source, row_bytes)
        source += row_bytes
    fence()


@numba.njit(nogil=True, cache=True)
def place_cached(cache, slots, out, where):
    """Where slots[i] < len(cache), out[i] <- that row of the cache; the others i are written down: where[slots[i] -
    len(cache)] <- i. cache (C, B), out (n, B) uint8, slots (n,) uint32, where (count,) int32, -1 before."""
    row_bytes, split = out.shape[1], cache.shape[0]
    to, source = out.ctypes.data, cache.ctypes.data
    streamed = row_bytes % LINE_BYTES == 0 and to % LINE_BYTES == 0 and out.size >= _STREAM_BYTES
    for i in range(slots.shape[0]):
        slot = np.int64(slots[i])
        if slot >= split:
            where[slot - split] = i
        elif streamed:
            for at in range(0, row_bytes, LINE_BYTES):
                stream_line(to + at, source + slot * row_bytes + at)
        else:
            copy(to, source + slot * row_bytes, row_bytes)
        to += row_bytes
    fence()


@numba.njit(nogil=True, cache=True)
def page_runs(ids, row_bytes, page_bytes, longest, first, count):
    """Distinct pages under rows `ids` (ascending int64) as runs of at most `longest`; returns how many runs.

    first, count (capacity,) int64 take the runs; capacity >= n + n * (row_bytes // page_bytes + 2) // longest + 1.
    """
    runs = 0
    start, stop = np.int64(0), np.int64(0)
    for i in range(ids.shape[0]):
        low = max(ids[i] * row_bytes // page_bytes, stop)
        high = ((ids[i] + 1) * row_bytes - 1) // page_bytes + 1
        while low < high:
            if low > stop or stop - start == longest or runs == 0:
                first[runs] = start = low
                runs += 1
            stop = min(high, start + longest)
            count[runs - 1] = stop - start
            low = stop
    return runs


@numba.njit(nogil=True, cache=True)
def pages_touched(ids, row_bytes, page_bytes):
    """Number of distinct pages under rows `ids` (ascending int64)."""
    pages, seen = np.int64(0), np.int64(0)
    for i in range(ids.shape[0]):
        low = max(ids[i] * row_bytes // page_bytes, seen)
        high = ((ids[i] + 1) * row_bytes - 1) // page_bytes + 1
        if high > low:
            pages += high - low
            seen = high
    return pages


@numba.njit(nogil=True, cache=True)
def read_runs(fd, first, count, begin, end, page_bytes, buffer):
    """pread runs begin .. end (pages `first`, `count`) one after another into buffer; returns the first run that did
    not come whole (`end` when all did): the caller finishes that one and reports what is wrong with it."""
    to = buffer.ctypes.data
    for run in range(begin, end):
        num_bytes = count[run] * page_bytes
        if _pread(np.int32(fd), to, np.uint64(num_bytes), first[run] * page_bytes) != num_bytes:
            return run
        to += num_bytes
    return end


@numba.njit(nogil=True, cache=True)
def copy_pieces(ids, places, row_bytes, first, count, begin, end, page_bytes, buffer, out):
    """Of every row, the bytes that lie in runs begin .. end: out[places[i]] <- row ids[i].

    ids (n,) int64 ascending, places (n,) int64; buffer holds the runs one after another; out (n, row_bytes) uint8.
    A row cut by the end of a run gets its pieces from two calls.
    """
    to, source = out.ctypes.data, buffer.ctypes.data
    i = np.searchsorted(ids, first[begin] * page_bytes // row_bytes)
    for run in range(begin, end):
        low, high = first[run] * page_bytes, (first[run] + count[run]) * page_bytes
        while i > 0 and (ids[i - 1] + 1) * row_bytes > low:
            i -= 1
        while i < ids.shape[0] and ids[i] * row_bytes < high:
            start = max(ids[i] * row_bytes, low)
            stop = min((ids[i] + 1) * row_bytes, high)
            if stop > start:
                copy(to + places[i] * row_bytes + start - ids[i] * row_bytes, source + start - low, stop - start)
            i += 1
        source += high - low
