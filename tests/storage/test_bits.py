"""Packed integers are what Python's big integers make of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.storage.bits import MAX_BITS, count_ones, join_new, pack, packed_bytes, split_new, unpack


def packed_of(values: np.ndarray, bits: int) -> np.ndarray:
    """Packed over bytes that are not 0."""
    out = np.full(packed_bytes(len(values), bits), 0xAB, dtype=np.uint8)
    pack(values, bits, out)
    return out


@settings(max_examples=200, deadline=None)
@given(st.integers(1, MAX_BITS), st.data())
def test_values_come_back_and_lie_lowest_bit_first(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = packed_of(np.array(values, dtype=np.int64), bits)
    assert int.from_bytes(packed.tobytes(), "little") == sum(v << (i * bits) for i, v in enumerate(values))
    out = np.full(len(values), -1, dtype=np.int64)
    unpack(packed, bits, out)
    assert out.tolist() == values


def test_no_bits_mean_zeros() -> None:
    out = np.full(3, 7, dtype=np.int32)
    unpack(packed_of(np.zeros(3, dtype=np.int32), 0), 0, out)
    assert out.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_every_integer_type_packs_alike(dtype: type) -> None:
    values = np.arange(100) % 128
    assert packed_of(values.astype(dtype), 7).tobytes() == packed_of(values, 7).tobytes()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.lists(st.integers(0, 2**20), max_size=200))
def test_sources_split_by_who_is_new_come_back(first_new: int, draws: list[int]) -> None:
    sources, known = [], first_new
    for draw in draws:  # as numbering makes them: a known node, or the next new one
        sources.append(draw % (known + 1))
        known += sources[-1] == known
    is_new = [i for i, s in enumerate(sources) if s == first_new + len([t for t in set(sources[:i]) if t >= first_new])]
    rest, bits = [s for i, s in enumerate(sources) if i not in is_new], (known - 1).bit_length()
    flags = np.full(packed_bytes(len(sources), 1), 0xAB, dtype=np.uint8)
    old = np.full(packed_bytes(len(rest), bits), 0xAB, dtype=np.uint8)
    split_new(np.array(sources, dtype=np.int32), first_new, bits, flags, old)
    assert int.from_bytes(flags.tobytes(), "little") == sum(1 << i for i in is_new)
    assert old.tobytes() == packed_of(np.array(rest, dtype=np.int32), bits).tobytes()
    out = np.empty(len(sources), dtype=np.int32)
    if sources:
        assert count_ones(flags, len(sources)) == known - first_new
        join_new(flags, old if len(old) else flags, np.uint64(bits), first_new, out)
    assert out.tolist() == sources
