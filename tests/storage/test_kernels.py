"""Gathers and scatters of bytes agree with numpy's indexing, streamed or copied."""

from __future__ import annotations

import numpy as np
import pytest

from gnnsys.storage.kernels import gather, gather_two, place_cached, scatter

SIZES = [
    (1, 10),
    (7, 300),
    (64, 40_000),  # 2.5 MB of whole lines: streamed
    (512, 4_000),
    (100, 30_000),  # as large, but rows do not end with a line
    (6_400, 300),
]


def aligned(num_rows: int, row_bytes: int, shift: int = 0) -> np.ndarray:
    """(num_rows, row_bytes) uint8 of zeros that starts `shift` bytes after a cache line."""
    raw = np.zeros(num_rows * row_bytes + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + shift
    return raw[start : start + num_rows * row_bytes].reshape(num_rows, row_bytes)


def random_rows(num_rows: int, row_bytes: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_rows, row_bytes), dtype=np.uint8)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("row_bytes", "count"), SIZES)
def test_gather_copies_the_rows_asked_for(row_bytes: int, count: int, shift: int) -> None:
    rows = random_rows(500, row_bytes)
    where = np.random.default_rng(1).integers(0, 500, count)
    out = aligned(count, row_bytes, shift)
    gather(rows, where, out)
    assert np.array_equal(out, rows[where])


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("split", [0, 1, 300, 500])
@pytest.mark.parametrize(("row_bytes", "count"), SIZES)
def test_gather_two_continues_in_the_second_array(row_bytes: int, count: int, split: int, shift: int) -> None:
    rows = random_rows(500, row_bytes)
    where = np.random.default_rng(1).integers(0, 500, count).astype(np.uint32)
    out = aligned(count, row_bytes, shift)
    gather_two(rows[:split], rows[split:], where, out)
    assert np.array_equal(out, rows[where])


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("cached", [0, 1, 300])
@pytest.mark.parametrize(("row_bytes", "count"), SIZES)
def test_cached_rows_and_scattered_pieces_together_are_a_gather(
    row_bytes: int, count: int, cached: int, shift: int
) -> None:
    """A row of the run goes to the one node that wants it; those that nobody wants are left out."""
    rng = np.random.default_rng(1)
    is_cold = rng.random(count) < (0.6 if cached else 2.0)
    run = int(is_cold.sum()) + 5
    slots = rng.integers(0, max(cached, 1), count).astype(np.uint32)
    slots[is_cold] = cached + rng.permutation(run)[: run - 5]
    rows = random_rows(cached + run, row_bytes)
    out, where = aligned(count, row_bytes, shift), np.full(run, -1, dtype=np.int32)
    place_cached(rows[:cached], slots, out, where)
    for first in range(cached, cached + run, 1000):
        scatter(rows[first : first + 1000], where[first - cached :][:1000], out)
    assert np.array_equal(out, rows[slots])


@pytest.mark.parametrize(("row_bytes", "count"), SIZES)
def test_scatter_undoes_a_gather_of_a_permutation(row_bytes: int, count: int) -> None:
    rows = random_rows(count, row_bytes)
    where = np.random.default_rng(1).permutation(count)
    out = aligned(count, row_bytes)
    scatter(rows[where], where, out)
    assert np.array_equal(out, rows)
