"""Counts and caches agree with a dictionary."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnsys.budget import Budget
from gnnsys.errors import MemoryBudgetError
from gnnsys.planning import access as module
from gnnsys.planning.access import Access, access_counts, hottest_nodes, hottest_rows, packed_counts
from gnnsys.samplers.sample import sample
from gnnsys.storage.packing import CACHED_NODE_BYTES
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store

MEMORY = 64 << 20


@pytest.fixture
def store(tmp_path: Path, make_store: Callable[..., Store]) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def pool(tmp_path: Path, store: Store) -> Pool:
    return sample(store, tmp_path / "pool", fanouts=[4, 3], batch_size=32)


def slow_hottest(counts: list[int], rows: int) -> list[int]:
    asked = [v for v in range(len(counts)) if counts[v]]
    return sorted(asked, key=lambda v: (-counts[v], v))[:rows]


def access_of(counts: list[int]) -> Access:
    array = np.array(counts, dtype=np.uint32)
    return Access(array, np.bincount(array, minlength=1), np.zeros(0, dtype=np.int64))


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 70))
def test_the_hottest_are_those_of_a_sort_by_count_and_id(counts: list[int], rows: int) -> None:
    access = access_of(counts)
    cached = hottest_rows(access, rows)
    expected = slow_hottest(counts, rows)
    assert hottest_nodes(access, cached).tolist() == expected
    mask = cached.mask(np.arange(len(counts)), access.counts)
    assert np.flatnonzero(mask).tolist() == sorted(expected)
    assert cached.rows == len(expected)


def test_ranking_the_cached_nodes_takes_what_is_reserved_for_it() -> None:
    counts = np.random.default_rng(0).integers(0, 9, 2_000_000, dtype=np.uint32)
    access = Access(counts, np.bincount(counts), np.zeros(0, dtype=np.int64))
    cached = hottest_rows(access, 1_500_000)
    tracemalloc.start()
    try:
        hottest_nodes(access, cached)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= CACHED_NODE_BYTES * cached.rows


def test_looking_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(0).integers(0, 4, 500).tolist()
    monkeypatch.setattr(module, "_CHUNK", 7)
    access = access_of(counts)
    for rows in (1, 100, 250, 499):
        assert hottest_nodes(access, hottest_rows(access, rows)).tolist() == slow_hottest(counts, rows)


@pytest.mark.parametrize("workers", [1, 3])
def test_counts_are_those_of_a_dictionary(store: Store, pool: Pool, workers: int) -> None:
    access = access_counts(pool, store.num_nodes, store.row_bytes(), Budget(MEMORY), workers)
    expected = Counter(v for k in range(pool.num_batches) for v in pool.ids(k).tolist())
    assert {v: int(c) for v, c in enumerate(access.counts) if c} == dict(expected)
    assert access.num_requested == len(expected)
    assert int(access.counts.sum()) == int(pool.num_nodes[:, -1].sum())


def test_pages_are_the_distinct_ones_under_the_rows(store: Store, pool: Pool) -> None:
    access = access_counts(pool, store.num_nodes, store.row_bytes(), Budget(MEMORY), 2)
    for k in range(pool.num_batches):
        spans = [range(v * 400 // 4096, (v * 400 + 399) // 4096 + 1) for v in pool.ids(k).tolist()]
        assert access.pages[k] == len({page for span in spans for page in span})


@pytest.mark.parametrize("rows", [0, 1, 100, 900])
def test_cold_rows_are_requests_outside_the_cache(store: Store, pool: Pool, rows: int) -> None:
    access = access_counts(pool, store.num_nodes, store.row_bytes(), Budget(MEMORY), 2)
    cached = hottest_rows(access, rows)
    held = set(hottest_nodes(access, cached).tolist())
    cold = packed_counts(pool, access, cached, Budget(MEMORY), 2)
    assert cold.tolist() == [len(set(pool.ids(k).tolist()) - held) for k in range(pool.num_batches)]
    assert int(cold.sum()) == int(access.counts.sum()) - int(access.counts[sorted(held)].sum())


def test_counters_that_do_not_fit_are_refused_before_they_are_made(store: Store, pool: Pool) -> None:
    with pytest.raises(MemoryBudgetError, match="access counts"):
        access_counts(pool, store.num_nodes, store.row_bytes(), Budget(3000), 1)
