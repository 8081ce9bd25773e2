"""Packed integers are what Python's big integers make of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.storage.bits import MAX_BITS, count_ones, join_new, pack, packed_bytes, split_new, unpack


@settings(max_examples=200, deadline=None)
@given(st.integers(1, MAX_BITS), st.data())
def test_values_come_back_and_lie_lowest_bit_first(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack(np.array(values, dtype=np.int64), bits)
    assert len(packed) == packed_bytes(len(values), bits)
    assert int.from_bytes(packed.tobytes(), "little") == sum(v << (i * bits) for i, v in enumerate(values))
    out = np.full(len(values), -1, dtype=np.int64)
    unpack(packed, bits, out)
    assert out.tolist() == values


def test_no_bits_mean_zeros() -> None:
    out = np.full(3, 7, dtype=np.int32)
    unpack(pack(np.zeros(3, dtype=np.int32), 0), 0, out)
    assert out.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_every_integer_type_packs_alike(dtype: type) -> None:
    values = np.arange(100) % 128
    assert pack(values.astype(dtype), 7).tobytes() == pack(values, 7).tobytes()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.lists(st.integers(0, 2**20), max_size=200))
def test_sources_split_by_who_is_new_come_back(first_new: int, draws: list[int]) -> None:
    sources, known = [], first_new
    for draw in draws:  # as numbering makes them: a known node, or the next new one
        sources.append(draw % (known + 1))
        known += sources[-1] == known
    given_sources = np.array(sources, dtype=np.int32)
    is_new, old = np.empty(len(sources), dtype=np.uint8), np.empty(len(sources), dtype=np.int32)
    num_old = split_new(given_sources, first_new, is_new, old)
    assert len(sources) - num_old == is_new.sum() == known - first_new
    bits, flags, out = (known - 1).bit_length(), pack(is_new, 1), np.empty(len(sources), dtype=np.int32)
    assert count_ones(flags, len(sources)) == known - first_new
    if sources:
        rest = pack(old[:num_old], bits)
        join_new(flags, rest if len(rest) else flags, np.uint64(bits), first_new, out)
    assert out.tolist() == sources
