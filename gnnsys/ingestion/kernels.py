"""Loops over edges and rows of a source: packing edges into keys, power-law draws, dense rows, components.

An edge is one uint64 key, `dst << 32 | src`, so that sorting keys sorts edges by destination, then source.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gnnsys import keys as _keys

_mix = numba.njit(inline="always")(_keys.mix)
_GOLDEN = _keys.GOLDEN
_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(0xFFFF)
_S16, _S48, _S11 = np.uint64(16), np.uint64(48), np.uint64(11)
_ONE = np.uint64(1)
_UNIT = 2.0**-53
# Four 16-bit uniforms sum to mean 2 * 65535 and standard deviation 65536 / sqrt(3), nearly.
_CENTRE, _SPREAD = np.float32(131070.0), np.float32(1.7320508 / 65536.0)


@numba.njit(nogil=True, cache=True)
def pack_edges(
    src: np.ndarray, dst: np.ndarray, limit: int, both: bool, loops: bool, out: np.ndarray
) -> tuple[int, int, int, int]:
    """out (>= E or 2E,) uint64 <- keys of edges (E,) int64 within [0, limit), and of their reverses when `both`; self
    loops only with `loops`. Returns (keys written, position of the first bad edge or -1, bad edges, loops left out)."""
    n, first_bad, bad, dropped_loops = 0, -1, 0, 0
    for i in range(src.shape[0]):
        s, d = src[i], dst[i]
        if s < 0 or d < 0 or s >= limit or d >= limit:
            if bad == 0:
                first_bad = i
            bad += 1
            continue
        if s == d and not loops:
            dropped_loops += 1
            continue
        out[n] = (np.uint64(d) << _SHIFT) | np.uint64(s)
        n += 1
        if both and s != d:
            out[n] = (np.uint64(s) << _SHIFT) | np.uint64(d)
            n += 1
    return n, first_bad, bad, dropped_loops


@numba.njit(nogil=True, cache=True)
def add_weights(
    indptr: np.ndarray,
    indices: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    weights: np.ndarray,
    both: bool,
    loops: bool,
    unique: bool,
    start: int,
    earlier: int,
    out: np.ndarray,
    met: np.ndarray,
) -> tuple[int, int]:
    """out (n,) float32 <- weights (B,) float32 of edges (B,) int64 at places start .. start + n of the topology.

    met (n,) int32 counts the edges whose first possible place is this one; `earlier` those, in this call and before
    it, of the parallel edges that begin before `start` and reach beyond it. Edges that are not in the topology are
    left out. Returns (places filled, earlier).
    """
    filled, num_nodes, stop = 0, indptr.shape[0] - 1, start + out.shape[0]
    for i in range(src.shape[0]):
        s, d = src[i], dst[i]
        if s < 0 or d < 0 or s >= num_nodes or d >= num_nodes or (s == d and not loops):
            continue
        for _turn in range(2 if both and s != d else 1):
            low, end = indptr[d], indptr[d + 1]
            place = low + np.searchsorted(indices[low:end], s)
            if start <= place < min(stop, end) and indices[place] == s:
                slot = place if unique else place + met[place - start]
                if slot < stop:
                    filled += 0 if unique and met[place - start] else 1
                    out[slot - start] += weights[i]
                met[place - start] += 1
            elif not unique and place < start < end and indices[start] == s:
                if place + earlier >= start and place + earlier < stop:
                    out[place + earlier - start] += weights[i]
                    filled += 1
                earlier += 1
            s, d = d, s
    return filled, earlier


@numba.njit(nogil=True, cache=True)
def key_facts(keys: np.ndarray) -> tuple[Any, Any]:
    """keys (n,) uint64 -> (sum of mix(key + 1 step) modulo 2^64, the same for any order and cutting; largest id)."""
    total, largest = np.uint64(0), np.int64(-1)
    for i in range(keys.shape[0]):
        total += _mix(keys[i] + _GOLDEN)
        largest = max(largest, np.int64(keys[i] >> _SHIFT), np.int64(keys[i] & _LOW))
    return total, largest


@numba.njit(nogil=True, cache=True)
def fold_sorted(keys: np.ndarray, unique: bool) -> tuple[int, int, int]:
    """keys (n,) uint64 sorted, made unique in place when asked; returns (keys left, equal to the one before, loops)."""
    left, repeats, loops = 0, 0, 0
    for i in range(keys.shape[0]):
        key = keys[i]
        if i > 0 and key == keys[left - 1]:
            repeats += 1
            if unique:
                continue
        if (key >> _SHIFT) == (key & _LOW):
            loops += 1
        keys[left] = key
        left += 1
    return left, repeats, loops


@numba.njit(nogil=True, cache=True)
def union(parent: np.ndarray, keys: np.ndarray) -> None:
    """parent (N,) integer forest, each root the smallest of its tree: join both ends of every key (n,) uint64."""
    for i in range(keys.shape[0]):
        a, b = np.int64(keys[i] >> _SHIFT), np.int64(keys[i] & _LOW)
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = np.int64(parent[a])
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = np.int64(parent[b])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b


@numba.njit(nogil=True, cache=True)
def number_largest(parent: np.ndarray) -> int:
    """parent (N,) forest with smaller parents <- new number of every node of the largest tree, -1 for the others;
    returns how many were kept. Of equally large trees the one with the smallest node wins."""
    # First pass: every node points at its root. Second: a root counts its tree as -size.
    for v in range(parent.shape[0]):
        parent[v] = parent[parent[v]]
    best, best_size = -1, 0
    n = parent.shape[0]
    size = np.zeros(n, dtype=parent.dtype)
    for v in range(n):
        size[parent[v]] += 1
    for v in range(n):
        if size[v] > best_size:
            best, best_size = v, size[v]
    kept = 0
    for v in range(n):
        if parent[v] == best:
            parent[v] = kept
            kept += 1
        else:
            parent[v] = -1
    return kept


@numba.njit(nogil=True, cache=True)
def renumber(keys: np.ndarray, numbers: np.ndarray) -> int:
    """keys (n,) uint64 in place <- keys whose ends are kept, with new numbers (N,), -1 = dropped; returns how many."""
    n = 0
    for i in range(keys.shape[0]):
        d = numbers[np.int64(keys[i] >> _SHIFT)]
        if d >= 0:
            s = numbers[np.int64(keys[i] & _LOW)]
            keys[n] = (np.uint64(d) << _SHIFT) | np.uint64(s)
            n += 1
    return n


@numba.njit(nogil=True, cache=True)
def rows_of(indptr: np.ndarray, first_row: int, start: int, out: np.ndarray) -> None:
    """out (n,) int64 <- row of CSR positions start .. start + n; indptr int64 begins at row `first_row`."""
    row = 0
    for i in range(out.shape[0]):
        while indptr[row + 1] <= start + i:
            row += 1
        out[i] = first_row + row


@numba.njit(nogil=True, cache=True)
def add_rows(indptr: np.ndarray, columns: np.ndarray, values: np.ndarray, out: np.ndarray) -> int:
    """out (R, F) += CSR rows: indptr (R + 1,) int64 from any base, columns (n,) int64, values (n,) of out's type;
    returns the position of the first column outside [0, F), or -1."""
    base = indptr[0]
    for r in range(out.shape[0]):
        for i in range(indptr[r] - base, indptr[r + 1] - base):
            c = columns[i]
            if c < 0 or c >= out.shape[1]:
                return i
            out[r, c] += values[i]
    return -1


@numba.njit(nogil=True, cache=True)
def add_to_ends(pairs: np.ndarray, values: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> None:
    """sums (N, F) float64, counts (N,) int64 += values (E, F) of each end of pairs (E, 2) int64 within [0, N)."""
    for i in range(pairs.shape[0]):
        for side in range(2):
            node = pairs[i, side]
            if node < 0 or node >= sums.shape[0]:
                continue
            counts[node] += 1
            for c in range(sums.shape[1]):
                sums[node, c] += values[i, c]


@numba.njit(nogil=True, cache=True)
def normalize_rows(rows: np.ndarray, out: np.ndarray) -> None:
    """out (R, F) float32 <- rows (R, F) divided by their sums; rows that sum to 0 stay. Sums run left to right."""
    for r in range(rows.shape[0]):
        total = 0.0
        for c in range(rows.shape[1]):
            total += np.float64(rows[r, c])
        scale = total if total != 0.0 else 1.0
        for c in range(rows.shape[1]):
            out[r, c] = np.float32(np.float64(rows[r, c]) / scale)


@numba.njit(nogil=True, cache=True)
def bad_rows(rows: np.ndarray) -> tuple[int, int]:
    """(first row of rows (R, F) with a NaN or an infinity or -1, number of such rows)."""
    first, count = -1, 0
    for r in range(rows.shape[0]):
        bad = False
        for c in range(rows.shape[1]):
            if not np.isfinite(rows[r, c]):
                bad = True
        if bad:
            if count == 0:
                first = r
            count += 1
    return first, count


@numba.njit(nogil=True, cache=True, inline="always")
def _uniform(key: np.uint64, counter: np.uint64) -> float:
    """Draw `counter` of stream `key` in [0, 1)."""
    return np.float64(_mix(key + counter * _GOLDEN) >> _S11) * _UNIT


@numba.njit(nogil=True, cache=True)
def powerlaw_edges(
    key: np.uint64,
    start: int,
    num_nodes: int,
    num_classes: int,
    homophily: float,
    top: float,
    src: np.ndarray,
    dst: np.ndarray,
) -> None:
    """src, dst (n,) int64 <- ranks of both ends of edges start .. start + n.

    Inverse distribution functions by products and square roots only, which round alike on every machine: source
    rank r with probability ~ (r + 1)^(-2/3), destination ~ (r + 1)^(-1/3). `top` is cbrt(num_nodes + 1) - 1.
    """
    for i in range(src.shape[0]):
        counter = np.uint64(start + i) * np.uint64(3) + _ONE
        root = 1.0 + _uniform(key, counter) * top
        u = _uniform(key, counter + _ONE)
        s: Any = min(np.int64(root * root * root - 1.0), num_nodes - 1)
        d: Any = min(np.int64(np.float64(num_nodes) * u * np.sqrt(u)), num_nodes - 1)
        if _uniform(key, counter + _ONE + _ONE) < homophily:
            moved = s - s % num_classes + d % num_classes
            if moved >= num_nodes:
                moved -= num_classes
            if moved >= 0:
                s = moved
        src[i] = s
        dst[i] = d


@numba.njit(nogil=True, cache=True)
def noise_rows(key: np.uint64, ids: np.ndarray, out: np.ndarray) -> None:
    """out (n, F) float32 <- noise of nodes ids (n,) int64, mean 0, variance 1: four 16-bit uniforms summed."""
    width = np.uint64(out.shape[1])
    for i in range(out.shape[0]):
        base = key + (np.uint64(ids[i]) * width + _ONE) * _GOLDEN
        for j in range(out.shape[1]):
            bits = _mix(base + np.uint64(j) * _GOLDEN)
            total = (bits & _WORD) + ((bits >> _S16) & _WORD) + ((bits >> _SHIFT) & _WORD) + (bits >> _S48)
            out[i, j] = (np.float32(np.int64(total)) - _CENTRE) * _SPREAD


@numba.njit(nogil=True, cache=True)
def add_centroids(centroids: np.ndarray, classes: np.ndarray, out: np.ndarray) -> None:
    """out (n, F) float32 += centroids (C, F) float32 of classes (n,) int64."""
    for i in range(out.shape[0]):
        out[i, :] += centroids[classes[i], :]


_NEWLINE, _RETURN, _SPACE, _TAB, _COMMA, _SEMICOLON = 10, 13, 32, 9, 44, 59
_MINUS, _HASH, _PERCENT, _ZERO = 45, 35, 37, 48
OK, NOT_A_NUMBER, TOO_FEW, TOO_LARGE, NUL, TOO_MANY, QUOTED, PADDED, BLANK = 0, 1, 2, 3, 4, 5, 6, 7, 8


@numba.njit(nogil=True, cache=True)
def _field(text: np.ndarray, at: int, stop: int) -> tuple[Any, int, int]:
    """One integer of text[at:stop] (uint8) and the separator behind it: (value, where the next one starts, error)."""
    while at < stop and (text[at] == _SPACE or text[at] == _TAB):
        at += 1
    if at == stop:
        return 0, at, TOO_FEW
    negative = text[at] == _MINUS
    if negative:
        at += 1
    value, digits, padded = np.int64(0), 0, at < stop and text[at] == _ZERO
    while at < stop and _ZERO <= text[at] < _ZERO + 10:
        digits += 1
        if digits > 18:
            return 0, at, TOO_LARGE
        value = value * 10 + np.int64(text[at]) - _ZERO
        at += 1
    if digits == 0:
        return 0, at, NUL if text[min(at, stop - 1)] == 0 else NOT_A_NUMBER
    if padded and digits > 1:
        return 0, at, PADDED
    blank = False
    while at < stop and (text[at] == _SPACE or text[at] == _TAB):
        at += 1
        blank = True
    if at < stop and (text[at] == _COMMA or text[at] == _SEMICOLON):
        at += 1
    elif at < stop and not blank:
        return 0, at, NUL if text[at] == 0 else NOT_A_NUMBER
    return -value if negative else value, at, OK


@numba.njit(nogil=True, cache=True)
def parse_rows(text: np.ndarray, more: bool, gaps: bool, out: np.ndarray) -> tuple[int, int, int, bool, int]:
    """out (rows, C) int64 <- first C integers of each line of text (uint8, whole lines), `more` columns are ignored or
    an error, but behind # or %; comment lines are skipped, and blank ones, behind which without `gaps` no row may be.
    Returns (rows, lines read, comment lines among them, a blank line is behind the last row, error of the line after
    those or OK)."""
    at, rows, lines, comments, gap = 0, 0, 0, 0, False
    while at < text.shape[0]:
        stop = at
        while stop < text.shape[0] and text[stop] != _NEWLINE:
            stop += 1
        end = stop
        while end > at and (text[end - 1] == _RETURN or text[end - 1] == _SPACE or text[end - 1] == _TAB):
            end -= 1
        if end == at:
            gap = True
        elif text[at] == _HASH or text[at] == _PERCENT:
            comments += 1
        else:
            if gap and not gaps:
                return rows, lines, comments, gap, BLANK
            for c in range(out.shape[1]):
                value, at, error = _field(text, at, end)
                if error != OK:
                    return rows, lines, comments, gap, error
                out[rows, c] = value
            while at < end and (text[at] == _COMMA or text[at] == _SEMICOLON or text[at] == _SPACE or text[at] == _TAB):
                at += 1
            if at < end and text[at] != _HASH and text[at] != _PERCENT and not more:
                return rows, lines, comments, gap, TOO_MANY
            rows += 1
            gap = False
        lines += 1
        at = stop + 1
    return rows, lines, comments, gap, OK
