"""Hidden target edges: a link batch never sees the pairs it is asked about, and sees everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.samplers.batches import SeedBatch, seed_batches
from gnnsys.samplers.seeds import Exclude, Seeds
from gnnsys.samplers.tree import TreeSampler
from gnnsys.storage.blob import PoolBatch


def link_batch(store: Any, pairs: Any, exclude: Exclude, negatives: int = 1, **options: Any) -> SeedBatch:
    seeds = Seeds.links(pairs, exclude=exclude, negatives=negatives, **options).within(store.num_nodes)
    return seed_batches(seeds, len(seeds), seed=3)[0]


def hidden_edges(pairs: Any, exclude: Exclude) -> frozenset[tuple[int, int]]:
    both = {(int(s), int(d)) for s, d in pairs} if exclude != "none" else set()
    return frozenset(both | {(d, s) for s, d in both} if exclude == "self+reverse" else both)


def edges_of(batch: PoolBatch) -> list[tuple[int, int]]:
    into = np.repeat(batch.ids[: len(batch.indptr) - 1], np.diff(batch.indptr))
    return list(zip(batch.ids[batch.indices].tolist(), into.tolist(), strict=True))


@st.composite
def graphs_with_pairs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    """Few nodes and many edges: parallel edges, reverse edges and self loops among the pairs are common."""
    num_nodes = draw(st.integers(1, 8))
    node = st.integers(0, num_nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), min_size=1, max_size=80))
    pairs = draw(st.lists(st.sampled_from(edges) | st.tuples(node, node), min_size=1, max_size=6))
    return num_nodes, edges, pairs


@settings(max_examples=100, deadline=None)
@given(
    graphs_with_pairs(),
    st.sampled_from(["none", "self", "self+reverse"]),
    st.lists(st.integers(-1, 5), min_size=1, max_size=2),
)
def test_a_link_batch_is_what_the_slow_sampler_makes_of_the_graph_without_its_pairs(
    store_of: Any, slow_sample: Any, graph: tuple[int, Any, Any], exclude: Exclude, fanouts: list[int]
) -> None:
    num_nodes, edges, pairs = graph
    store = store_of(edges, num_nodes)
    asked = link_batch(store, pairs, exclude)
    batch = TreeSampler(store.graph, fanouts, seed=3).sample(asked)
    hidden = hidden_edges(pairs, exclude)
    _, hops = slow_sample(store, asked.ids.tolist(), fanouts, (3, 0, 0), hidden)
    assert edges_of(batch) == [edge for hop in hops for edge in hop]
    assert not hidden & set(edges_of(batch))


@settings(max_examples=40, deadline=None)
@given(graphs_with_pairs(), st.sampled_from(["self", "self+reverse"]))
def test_the_degree_delivered_does_not_count_hidden_edges(
    store_of: Any, graph: tuple[int, Any, Any], exclude: Exclude
) -> None:
    num_nodes, edges, pairs = graph
    store = store_of(edges, num_nodes)
    batch = TreeSampler(store.graph, [-1], seed=3).sample(link_batch(store, pairs, exclude))
    hidden = hidden_edges(pairs, exclude)
    seen = [sum((s, node) not in hidden for s in store.sources(node)) for node in batch.ids.tolist()]
    assert batch.degree.tolist() == seen


def test_parallel_copies_are_hidden_and_the_opposite_edge_is_kept_with_self(store_of: Any) -> None:
    store = store_of([(0, 1), (0, 1), (2, 1), (1, 0)], 3)
    batch = TreeSampler(store.graph, [-1], seed=0).sample(link_batch(store, [(0, 1)], "self", negatives=0))
    assert sorted(edges_of(batch)) == [(1, 0), (2, 1)]


def test_pairs_with_label_0_hide_nothing(store_of: Any) -> None:
    store = store_of([(0, 1)], 2)
    asked = link_batch(store, [(0, 1)], "self+reverse", negatives=0, pair_label=[0])
    assert edges_of(TreeSampler(store.graph, [-1], seed=0).sample(asked)) == [(0, 1)]


def test_drawn_negatives_hide_nothing(store_of: Any) -> None:
    """With two nodes negatives of (0, 0) are (0, 0) and (0, 1); the edge (0, 1) must stay visible."""
    store = store_of([(0, 1), (0, 0)], 2)
    asked = link_batch(store, [(0, 0)], "self+reverse", negatives=10)
    assert asked.ids.tolist() == [0, 1]
    assert edges_of(TreeSampler(store.graph, [-1], seed=0).sample(asked)) == [(0, 1)]


@pytest.mark.parametrize("count", [1, 4])
def test_draws_among_the_visible_edges_are_uniform(store_of: Any, count: int) -> None:
    """Node v has 10 sources, of which 2, 3 (twice) and 8 are hidden: the 8 others are equally likely."""
    repeats, sources = 3000, [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    edges = [(s, 10 + v) for v in range(repeats) for s in sources]
    pairs = [(s, 10 + v) for v in range(repeats) for s in (2, 3, 8)]
    store = store_of(edges, 10 + repeats)
    batch = TreeSampler(store.graph, [count], seed=0).sample(link_batch(store, pairs, "self", negatives=0))
    found = np.bincount(batch.ids[batch.indices], minlength=10)
    assert found[[2, 3, 8]].tolist() == [0, 0, 0]
    expected = count * repeats / 7
    statistic = ((found[[0, 1, 4, 5, 6, 7, 9]] - expected) ** 2 / expected).sum() * 6 / (7 - count)
    assert statistic < 6 + 4 * np.sqrt(12)  # 6 degrees of freedom, 4 standard deviations, fixed key


def test_labels_of_nodes_are_not_attached_to_pairs(random_store: Any) -> None:
    sampler = TreeSampler(random_store.graph, [2], seed=0, labels=random_store.labels())
    assert sampler.sample(link_batch(random_store, [(1, 2)], "none")).labels is None
