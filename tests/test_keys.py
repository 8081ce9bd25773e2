"""Counter-based keys: golden values, agreement of the two compilers, and permutations."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnsys import keys

_compiled_mix = numba.njit("uint64(uint64)")(keys.mix)


def _mix_slowly(x: int) -> int:
    """SplitMix64's finaliser in Python integers."""
    mask = (1 << 64) - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_the_stream_of_key_zero_is_splitmix64() -> None:
    assert [hex(v) for v in keys.draws(0, 0, 2)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


@given(st.integers(0, 2**64 - 1))
def test_numpy_numba_and_plain_integers_mix_alike(x: int) -> None:
    assert int(_compiled_mix(np.uint64(x))) == int(keys.mix(np.array([x], dtype=np.uint64))[0]) == _mix_slowly(x)


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=4), st.integers(0, 3))
def test_changing_one_part_changes_the_key(parts: list[int], position: int) -> None:
    changed = list(parts)
    changed[position % len(parts)] += 1
    assert keys.derive(*changed) != keys.derive(*parts)


def test_the_order_of_parts_matters() -> None:
    assert keys.derive(1, 2) != keys.derive(2, 1)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_permutation_holds_every_position_once(count: int) -> None:
    assert sorted(keys.permutation(count, 7)) == list(range(count))


def test_draws_can_start_anywhere_in_the_stream() -> None:
    assert np.array_equal(keys.draws(5, 10, 20), keys.draws(5, 0, 30)[10:])
