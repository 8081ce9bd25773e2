"""The sampler draws what its definition says: uniformly, without replacement, the same for equal keys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.samplers.batches import SeedBatch
from gnnsys.samplers.numbering import Stamps
from gnnsys.samplers.tree import TreeSampler
from gnnsys.storage.blob import PoolBatch


def sampled(store: Any, ids: Any, fanouts: list[int], index: int = 0, **options: Any) -> PoolBatch:
    sampler = TreeSampler(store.graph, fanouts, **{"seed": 0, "labels": store.labels(), **options})
    return sampler.sample(SeedBatch(index=index, ids=np.asarray(ids, dtype=np.int64)))


def edges_of(batch: PoolBatch) -> list[list[tuple[int, int]]]:
    """(source, destination) ids per hop, in order."""
    into = np.repeat(np.arange(len(batch.indptr) - 1), np.diff(batch.indptr))
    both = list(zip(batch.ids[batch.indices].tolist(), batch.ids[into].tolist(), strict=True))
    bounds = [0, *np.cumsum(batch.num_edges).tolist()]
    return [both[a:b] for a, b in pairwise(bounds)]


def rings_of(batch: PoolBatch) -> list[list[int]]:
    bounds = [0, *batch.num_nodes.tolist()]
    return [batch.ids[a:b].tolist() for a, b in pairwise(bounds)]


def same(a: PoolBatch, b: PoolBatch) -> bool:
    names = ("num_nodes", "ids", "degree", "indptr", "indices")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def in_degrees(store: Any, ids: np.ndarray) -> np.ndarray:
    return np.diff(store.graph.indptr)[ids]


@pytest.mark.parametrize("fanouts", [[], [0], [3], [5, 3], [-1, 2], [2, -1], [10, 0, 4], [1, 1, 1, 1]])
def test_a_batch_is_what_the_slow_sampler_makes(random_store: Any, slow_sample: Any, fanouts: list[int]) -> None:
    ids = [7, 195, 3, 42, 100]
    batch = sampled(random_store, ids, fanouts, index=4, seed=9, pool_index=2)
    rings, hops = slow_sample(random_store, ids, fanouts, (9, 2, 4))
    assert rings_of(batch) == rings
    assert edges_of(batch) == hops


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[int], list[int]]:
    num_nodes = draw(st.integers(1, 30))
    node = st.integers(0, num_nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=150))
    ids = draw(st.lists(node, min_size=1, max_size=10, unique=True))
    return num_nodes, edges, ids, draw(st.lists(st.integers(-1, 6), max_size=3))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 2**63 - 1))
def test_on_any_graph_a_batch_is_what_the_slow_sampler_makes(
    store_of: Any, slow_sample: Any, graph: tuple[int, Any, list[int], list[int]], seed: int
) -> None:
    num_nodes, edges, ids, fanouts = graph
    store = store_of(edges, num_nodes)
    batch = sampled(store, ids, fanouts, seed=seed)
    rings, hops = slow_sample(store, ids, fanouts, (seed, 0, 0))
    assert (rings_of(batch), edges_of(batch)) == (rings, hops)
    assert batch.degree.tolist() == in_degrees(store, batch.ids).tolist()


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_64_bit_ids_give_the_same_batch(store_of: Any, graph: tuple[int, Any, list[int], list[int]]) -> None:
    num_nodes, edges, ids, fanouts = graph
    narrow = sampled(store_of(edges, num_nodes), ids, fanouts)
    wide = sampled(store_of(edges, num_nodes, id_dtype=np.dtype(np.int64)), ids, fanouts)
    assert same(narrow, wide)


def chi_square(drawn: np.ndarray, degree: int, count: int) -> float:
    """Of how often each of `degree` positions was drawn, when `count` of them were drawn at a time.

    Draws of one node exclude each other, so the counts vary by (1 - count / degree) less than independent ones; the
    statistic is scaled to be chi-square with degree - 1 degrees of freedom again.
    """
    found = np.bincount(drawn, minlength=degree)
    expected = len(drawn) / degree
    free = (degree - 1) / (degree - count) if count < degree else 1.0
    return float(((found - expected) ** 2 / expected).sum()) * free


@pytest.mark.parametrize(("degree", "count"), [(10, 1), (10, 3), (10, 9), (40, 20)])
def test_every_position_is_drawn_equally_often(store_of: Any, degree: int, count: int) -> None:
    # 4,000 destinations, each with the same `degree` sources; their draws are independent of each other.
    repeats = 4000
    edges = [(s, degree + v) for v in range(repeats) for s in range(degree)]
    batch = sampled(store_of(edges, degree + repeats), np.arange(degree, degree + repeats), [count])
    statistic = chi_square(batch.ids[batch.indices], degree, count)
    # Mean degree - 1, standard deviation sqrt(2 (degree - 1)): 4 of them is one case in ten thousand, and the key is
    # fixed. A range of 0 .. j - 1 in place of 0 .. j is 20 and more away.
    assert abs(statistic - (degree - 1)) < 4 * np.sqrt(2 * (degree - 1))


def test_every_subset_is_drawn_equally_often(store_of: Any) -> None:
    repeats, degree, count = 6000, 5, 2
    edges = [(s, degree + v) for v in range(repeats) for s in range(degree)]
    batch = sampled(store_of(edges, degree + repeats), np.arange(degree, degree + repeats), [count])
    low, high = np.sort(batch.ids[batch.indices].reshape(-1, 2), axis=1).T
    found = np.bincount(low * degree + high)
    found = found[found > 0]
    assert len(found) == 10
    statistic = ((found - repeats / 10) ** 2 / (repeats / 10)).sum()
    assert statistic < 9 + 4 * np.sqrt(18)  # 9 degrees of freedom, 4 standard deviations, fixed key


@pytest.mark.parametrize("change", [{"seed": 1}, {"pool_index": 1}, {"index": 1}])
def test_another_key_draws_other_neighbours(random_store: Any, change: dict[str, int]) -> None:
    ids = np.arange(50)
    assert not same(sampled(random_store, ids, [5]), sampled(random_store, ids, [5], **change))


def test_hops_draw_with_different_keys(store_of: Any) -> None:
    """Two nodes with the same sources, met in different hops, and one node as a seed and as a neighbour."""
    store = store_of([(s, 0) for s in range(1, 60)], 60)
    first = sampled(store, [0], [5])
    later = sampled(store_of([(s, 0) for s in range(1, 60)] + [(0, 60)], 61), [60], [5, 5])
    assert edges_of(first)[0] != edges_of(later)[1]


def test_counts_are_the_smaller_of_degree_and_fanout(random_store: Any) -> None:
    batch = sampled(random_store, np.arange(60), [7, 4, 2])
    counts = np.diff(batch.indptr)
    fanout = np.repeat([7, 4, 2], np.diff(batch.num_nodes[:-1], prepend=0))
    assert counts.tolist() == np.minimum(fanout, in_degrees(random_store, batch.ids[: len(counts)])).tolist()


def test_no_position_is_drawn_twice(store_of: Any) -> None:
    store = store_of([(s, 0) for s in range(1, 100)], 100)
    (edges,) = edges_of(sampled(store, [0], [98]))
    assert len(set(edges)) == 98


def test_no_node_is_listed_twice(random_store: Any) -> None:
    ids = sampled(random_store, np.arange(0, 200, 3), [10, 10]).ids
    assert len(set(ids.tolist())) == len(ids)


def test_a_neighbourhood_taken_whole_keeps_its_order(random_store: Any) -> None:
    batch = sampled(random_store, np.arange(190), [60])
    sources = batch.ids[batch.indices]
    assert all((np.diff(sources[a:b]) >= 0).all() for a, b in pairwise(batch.indptr))


@pytest.mark.parametrize("hops", [1, 2])
def test_fanout_minus_one_is_the_whole_neighbourhood(random_store: Any, hops: int) -> None:
    ids = np.array([5, 60, 120])
    batch = sampled(random_store, ids, [-1] * hops)
    src, dst, n = random_store.src, random_store.dst, random_store.num_nodes
    adjacency = sp.csr_matrix((np.ones(len(src)), (dst, src)), shape=(n, n))
    within = np.zeros(n)
    within[ids] = 1
    for _ in range(hops):
        expected = adjacency.multiply((within > 0)[:, None]).tocsr()  # rows of all nodes within hops - 1
        within = within + adjacency.T @ within
    assert sorted(batch.ids.tolist()) == np.flatnonzero(within).tolist()
    into = np.repeat(batch.ids[: len(batch.indptr) - 1], np.diff(batch.indptr))
    found = sp.csr_matrix((np.ones(len(into)), (into, batch.ids[batch.indices])), shape=(n, n))
    assert (found != expected).nnz == 0


def test_fanout_zero_takes_nothing_and_ends_the_tree(random_store: Any) -> None:
    batch = sampled(random_store, [1, 2, 3], [0, 5])
    assert (batch.num_nodes.tolist(), len(batch.indices)) == ([3, 3, 3], 0)


def test_no_fanouts_give_the_seeds_alone(random_store: Any) -> None:
    batch = sampled(random_store, [4, 2], [])
    assert (batch.ids.tolist(), batch.num_nodes.tolist(), batch.indptr.tolist()) == ([4, 2], [2], [0])


def test_inner_hops_do_not_depend_on_the_outer_fanouts(random_store: Any) -> None:
    inner = sampled(random_store, np.arange(20), [4, 3])
    outer = sampled(random_store, np.arange(20), [4, 3, 9])
    assert edges_of(inner) == edges_of(outer)[:2]
    assert inner.ids.tolist() == outer.ids[: len(inner.ids)].tolist()


def test_an_isolated_seed_has_no_edges_and_stays_an_input_node(random_store: Any) -> None:
    batch = sampled(random_store, [195, 199], [5, 5])
    assert (batch.ids.tolist(), len(batch.indices), batch.degree.tolist()) == ([195, 199], 0, [0, 0])


def test_a_graph_without_edges_can_be_sampled(store_of: Any) -> None:
    batch = sampled(store_of([], 4), [3, 0], [-1, 5])
    assert batch.num_nodes.tolist() == [2, 2, 2]


def test_a_self_loop_is_an_edge_to_the_node_itself(store_of: Any) -> None:
    batch = sampled(store_of([(1, 1), (0, 1)], 2), [1], [-1])
    assert (batch.ids.tolist(), edges_of(batch)) == ([1, 0], [[(0, 1), (1, 1)]])


def test_parallel_edges_are_all_kept_and_make_one_input_node(store_of: Any) -> None:
    batch = sampled(store_of([(1, 0)] * 3, 2), [0], [2])
    assert (batch.ids.tolist(), edges_of(batch), batch.degree.tolist()) == ([0, 1], [[(1, 0), (1, 0)]], [3, 0])


def test_parallel_edges_are_drawn_as_often_as_they_are_there(store_of: Any) -> None:
    # Source 0 has 3 of 4 positions: of 4,000 single draws 3,000 +- 27 (one standard deviation), fixed key.
    edges = [(s, 2 + v) for v in range(4000) for s in (0, 0, 0, 1)]
    batch = sampled(store_of(edges, 4002), np.arange(2, 4002), [1])
    assert abs((batch.ids[batch.indices] == 0).sum() - 3000) < 4 * 27


def test_many_new_nodes_make_the_table_grow(store_of: Any, slow_sample: Any) -> None:
    store = store_of([(s, 0) for s in range(1, 3000)], 3000)
    rings, _ = slow_sample(store, [0], [-1], (0, 0, 0))
    assert rings_of(sampled(store, [0], [-1])) == rings


def test_what_a_sampler_made_before_does_not_matter(random_store: Any) -> None:
    sampler = TreeSampler(random_store.graph, [5, 5], seed=0)
    batches = [SeedBatch(index=k, ids=np.arange(10 * k, 10 * k + 10)) for k in range(6)]
    forward = [sampler.sample(b) for b in batches]
    assert all(same(sampler.sample(b), a) for a, b in reversed(list(zip(forward, batches, strict=True))))


def test_threads_can_share_a_sampler(random_store: Any) -> None:
    sampler = TreeSampler(random_store.graph, [8, 8], seed=0)
    batches = [SeedBatch(index=k, ids=np.arange(k, 200, 7)) for k in range(7)]
    expected = [sampler.sample(b) for b in batches]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(b.index for b in batches * 5 if not same(sampler.sample(b), expected[b.index]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_labels_are_those_of_the_seeds_only(random_store: Any) -> None:
    batch = sampled(random_store, [9, 4], [5])
    assert batch.labels is not None
    assert batch.labels.tolist() == random_store.classes[[9, 4]].tolist()


@pytest.mark.parametrize("ids", [[-1], [3, 200]])
def test_a_seed_outside_the_graph_is_refused(random_store: Any, ids: list[int]) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-204.*outside \[0, 200\)"):
        sampled(random_store, ids, [2])


@pytest.mark.parametrize("options", [{"fanouts": [-2]}, {"fanouts": [5, 2**31]}, {"seed": -1}, {"pool_index": -1}])
def test_arguments_out_of_range_are_refused(random_store: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TreeSampler(random_store.graph, **{"fanouts": [1], "seed": 0, **options})


def test_a_kernel_may_be_handed_a_map(random_store: Any, tmp_path: Any) -> None:
    def mapped(array: np.ndarray, name: str) -> np.ndarray:
        array.tofile(tmp_path / name)
        return np.memmap(tmp_path / name, dtype=array.dtype, mode="r")

    class Mapped:
        graph = type(random_store.graph)(
            mapped(random_store.graph.indptr, "a"), mapped(random_store.graph.indices, "b")
        )
        labels: Callable[[], None] = staticmethod(lambda: None)

    assert same(sampled(Mapped, [1, 2, 3], [4, 4]), sampled(random_store, [1, 2, 3], [4, 4]))


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 2**63 - 1))
def test_stamps_and_a_hash_table_number_nodes_alike(
    store_of: Any, graph: tuple[int, Any, list[int], list[int]], seed: int
) -> None:
    num_nodes, edges, ids, fanouts = graph
    store = store_of(edges, num_nodes)
    samplers = [TreeSampler(store.graph, fanouts, seed=seed, stamped=stamped) for stamped in (False, True)]
    for index in range(3):  # later batches find what earlier ones left behind
        batch = SeedBatch(index=index, ids=np.roll(np.array(ids), index)[: len(ids) - index % 2])
        assert same(*[sampler.sample(batch) for sampler in samplers])


def test_stamps_start_over_before_they_run_out() -> None:
    numbering = Stamps(100)
    numbering._base = np.iinfo(np.int32).max - 130  # room for one more batch of 40 nodes
    for ids in (np.arange(40), np.arange(20, 60), np.arange(100)):
        out = np.empty(len(ids), dtype=np.int32)
        numbering.begin(ids[:5])
        numbering.number(ids[::-1].copy(), out)
        assert numbering.count == len(ids)
        assert numbering.ids[out].tolist() == ids[::-1].tolist()
