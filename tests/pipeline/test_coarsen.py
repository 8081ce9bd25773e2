"""Smaller graphs, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from gnnsys.pipeline.coarsen import Graph, breadth_first, contract, join, symmetric


def random_graph(num_nodes: int = 60, num_edges: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """In-edges with double edges and loops among them."""
    rng = np.random.default_rng(0)
    to = np.sort(rng.integers(0, num_nodes, num_edges))
    return np.searchsorted(to, np.arange(num_nodes + 1)), rng.integers(0, num_nodes, num_edges).astype(np.int32)


def dense(graph: Graph) -> np.ndarray:
    """Edges between every two nodes; nobody is listed twice."""
    indptr, others, edges = graph
    matrix = np.zeros((len(indptr) - 1, len(indptr) - 1), dtype=np.int64)
    rows = np.repeat(np.arange(len(matrix)), np.diff(indptr))
    np.add.at(matrix, (rows, others), edges)
    assert np.count_nonzero(matrix) == len(others)
    return matrix


def test_edges_count_both_ways_and_loops_do_not() -> None:
    indptr, indices = random_graph()
    matrix = np.zeros((60, 60), dtype=np.int64)
    np.add.at(matrix, (np.repeat(np.arange(60), np.diff(indptr)), indices), 1)
    np.fill_diagonal(matrix, 0)
    assert np.array_equal(dense(symmetric(indptr, indices)), matrix + matrix.T)


def test_groups_keep_the_edges_between_them() -> None:
    graph = symmetric(*random_graph())
    group = np.random.default_rng(1).permutation(np.arange(60) % 7)
    member = np.eye(7, dtype=np.int64)[group]
    between = member.T @ dense(graph) @ member
    np.fill_diagonal(between, 0)
    assert np.array_equal(dense(contract(*graph, group, 7)), between)


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_no_group_is_heavier_than_the_limit(limit: int) -> None:
    weight = np.random.default_rng(2).integers(1, 4, 60)
    group, load = join(*symmetric(*random_graph()), weight, limit)
    assert np.array_equal(load, np.bincount(group, weights=weight))
    alone = np.bincount(group)[group] == 1
    assert all(load[group[~alone]] <= limit)
    assert len(load) < 60 or limit == 1


def test_groups_are_found_where_they_are_plain() -> None:
    """Four cliques in a ring."""
    nodes = np.arange(20)
    clique = nodes // 5
    pairs = [(u, v) for u in nodes for v in nodes if u != v and clique[u] == clique[v]]
    pairs += [(5 * c, (5 * c + 9) % 20) for c in range(4)]
    source, to = np.array(sorted(pairs, key=lambda pair: pair[1])).T
    graph = symmetric(np.searchsorted(to, np.arange(21)), source.astype(np.int32))
    group, load = join(*graph, np.ones(20, dtype=np.int64), 5)
    assert load.tolist() == [5, 5, 5, 5]
    assert np.array_equal(group, clique)


def test_breadth_first_goes_by_distance() -> None:
    indptr, indices = np.array([0, 1, 3, 5, 6, 6]), np.array([2, 2, 3, 0, 1, 1], dtype=np.int32)  # 0 - 2 - 1 - 3, 4
    both, others, _ = symmetric(indptr, indices)
    assert breadth_first(both, others).tolist() == [0, 2, 1, 3, 4]
