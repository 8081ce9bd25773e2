"""Counter-based random keys: a draw is a pure function of what it is for, never of who asked or when.

A key is 64 bits. `derive` folds integers such as (seed, pool index, batch, hop) into one; `mix` turns key plus
counter into the next draw. `mix` is written so that numba compiles the very same lines for the sampling kernels.

Source: Steele et al. 2014, SplitMix64 (finaliser of Stafford's variant 13).
"""

from __future__ import annotations

from typing import Any

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd step between counters: 2**64 divided by the golden ratio."""

_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(x: Any) -> Any:
    """Bijective scramble of uint64 `x` (an array here, a scalar inside numba)."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


def derive(*parts: int) -> int:
    """One 64-bit key from non-negative integers, e.g. `derive(seed, pool_index, batch, hop)`."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mix(key + GOLDEN + mix(np.array([part], dtype=np.uint64)))
    return int(key[0])


def draws(key: int, start: int, count: int) -> np.ndarray:
    """Draws `start .. start + count` of the stream `key`: (count,) uint64."""
    counters = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    return np.asarray(mix(np.uint64(key) + counters * GOLDEN))


def permutation(count: int, key: int) -> np.ndarray:
    """A permutation of `0 .. count - 1`, (count,) int64: equal keys give equal orders on any machine."""
    return np.argsort(draws(key, 0, count), kind="stable")
