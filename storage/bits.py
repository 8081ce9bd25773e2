"""Integers of any width side by side: n values of b bits take n * b bits, lowest bit first, and a word of slack.

    byte size    0 when n is 0, else round_up(ceil(n b / 8), 8) + 8

The slack lets a reader load whole words. Numbers of edges and nodes need 19 to 27 bits on the graphs this is for; the
next power of two wastes a third.
"""

from __future__ import annotations

import numba
import numpy as np

from gnnsys.storage.intrinsics import load_word, store_word

MAX_BITS = 57
"""A value lies in the word that starts at its first byte, up to 7 bits of which belong to the one before."""

_ONE, _SEVEN, _WORD = np.uint64(1), np.uint64(7), np.uint64(64)


def packed_bytes(count: np.ndarray | int, bits: np.ndarray | int) -> np.ndarray | int:
    """Bytes of `count` values of `bits` bits."""
    words = -(-count * bits // 64)
    return 8 * (words + (words > 0))


def pack(values: np.ndarray, bits: int, out: np.ndarray) -> None:
    """out (packed_bytes,) uint8, on a multiple of 8 bytes <- `values` (n,), integers in [0, 2**bits)."""
    _pack(values, np.uint64(bits), out.view(np.uint64))


def unpack(data: np.ndarray, bits: int, out: np.ndarray) -> None:
    """out (n,) <- the first n values in `data`, which has at least packed_bytes(n, bits) uint8."""
    if len(out) == 0 or bits == 0:
        out[:] = 0
        return
    assert len(data) >= packed_bytes(len(out), bits)
    _unpack(data, np.uint64(bits), out)


@numba.njit(nogil=True, cache=True)
def _pack(values, bits, out):
    """out (w,) uint64 <- values (n,) integer, bits uint64; words behind the last value become 0."""
    word, filled, at = np.uint64(0), np.uint64(0), 0
    for i in range(values.shape[0]):
        value = np.uint64(values[i])
        word |= value << filled
        filled += bits
        if filled >= _WORD:
            out[at] = word
            at += 1
            filled -= _WORD
            word = value >> (bits - filled) if filled else np.uint64(0)
    _end(out, at, word)


@numba.njit(inline="always")
def _end(out, at, word):
    """The word begun, and zeros behind it."""
    for i in range(at, out.shape[0]):
        out[i] = word
        word = np.uint64(0)


@numba.njit(nogil=True, cache=True)
def _unpack(data, bits, out):
    """out (n,) integer <- values of `bits` uint64 bits in data (N,) uint8."""
    base, mask, at = data.ctypes.data, (_ONE << bits) - _ONE, np.uint64(0)
    for i in range(out.shape[0]):
        out[i] = np.int64((load_word(base + np.int64(at >> np.uint64(3))) >> (at & _SEVEN)) & mask)
        at += bits


def split_new(sources: np.ndarray, first_new: int, bits: int, flags: np.ndarray, old: np.ndarray) -> None:
    """Pack sources (E,) int32 as one bit each and the rest.

    Args:
        first_new: an edge is new when it is the first to reach its source, which then is the next of first_new,
            first_new + 1, ..
        flags: (packed_bytes of E bits,) uint8 <- whether an edge is new.
        old: (packed_bytes of the others at `bits` bits,) uint8 <- the sources of those that are not.
    """
    old[-8:] = 0
    kept = old if len(old) else np.empty(8, dtype=np.uint8)
    _split_new(sources, first_new, np.uint64(bits), flags.view(np.uint64), kept)


@numba.njit(nogil=True, cache=True)
def _split_new(sources, first_new, bits, flags, old):
    """No branch on whether an edge is new: that is as good as random (with one 3.5 ns an edge, without 2.0; taking two
    edges at a time gained nothing). Every edge writes the word begun, which moves on by whole bytes; what is behind the
    last one is 0, as is the slack."""
    flag_word, at_flag = np.uint64(0), 0
    word, filled, at = np.uint64(0), np.uint64(0), old.ctypes.data
    following = np.int64(first_new)
    for e in range(sources.shape[0]):
        source = np.int64(sources[e])
        new = np.int64(source == following)
        following += new
        flag_word |= np.uint64(new) << np.uint64(e & 63)
        if e & 63 == 63:
            flags[at_flag] = flag_word
            flag_word, at_flag = np.uint64(0), at_flag + 1
        keep = np.uint64(new) - _ONE  # no bits for a new one, else all
        word |= (np.uint64(source) & keep) << filled
        store_word(at, word)
        filled += bits & keep
        whole = filled & ~_SEVEN
        word >>= whole
        at += np.int64(whole >> np.uint64(3))
        filled &= _SEVEN
    store_word(at, word)
    _end(flags, at_flag, flag_word)


@numba.njit(nogil=True, cache=True)
def count_ones(flags, count):
    """How many of the first `count` packed bits in flags (N,) uint8 are set."""
    found = 0
    for i in range(count):
        found += (flags[i >> 3] >> (i & 7)) & 1
    return found


@numba.njit(nogil=True, cache=True)
def join_new(flags, old, bits, first_new, out):
    """out (E,) int32 <- sources of which `flags` (packed bits) says that they are the next of first_new,
    first_new + 1, .., and `old` (packed values of `bits` uint64 bits, not empty) has the others."""
    flag_base, base, mask = flags.ctypes.data, old.ctypes.data, (_ONE << bits) - _ONE
    following, at, word = first_new, np.uint64(0), np.uint64(0)
    for e in range(out.shape[0]):
        if e & 63 == 0:
            word = load_word(flag_base + (e >> 3))
        new = word & _ONE
        word >>= _ONE
        value = np.int64((load_word(base + np.int64(at >> np.uint64(3))) >> (at & _SEVEN)) & mask)
        out[e] = following if new else value
        following += np.int64(new)
        at += np.uint64(0) if new else bits
