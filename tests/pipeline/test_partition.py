"""Parts of equal cost with few edges between them, on graphs of every shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError
from gnnsys.pipeline.partition import NODE_COST, SLACK, edge_cut, partition, relabel

Graph = tuple[np.ndarray, np.ndarray]


def graph(source: np.ndarray, to: np.ndarray, num_nodes: int) -> Graph:
    """In-edges by destination."""
    order = np.argsort(to, kind="stable")
    indptr = np.searchsorted(to[order], np.arange(num_nodes + 1)).astype(np.int64)
    return indptr, source[order].astype(np.int32)


def powerlaw(num_nodes: int = 2000) -> Graph:
    rng = np.random.default_rng(0)
    source = (num_nodes * rng.random(8 * num_nodes) ** 3).astype(np.int64)
    return graph(source, rng.integers(0, num_nodes, 8 * num_nodes), num_nodes)


def star(num_nodes: int = 500) -> Graph:
    """All edges into node 0."""
    return graph(np.arange(1, num_nodes), np.zeros(num_nodes - 1, np.int64), num_nodes)


def path(num_nodes: int = 1000) -> Graph:
    steps = np.arange(num_nodes - 1)
    numbers = np.random.default_rng(0).permutation(num_nodes)  # neighbours have numbers far apart
    return graph(numbers[steps], numbers[steps + 1], num_nodes)


def islands(count: int = 8, size: int = 100) -> Graph:
    """Rings of equal size without edges between them, their nodes shuffled."""
    nodes = np.arange(count * size)
    after = nodes - nodes % size + (nodes + 1) % size
    numbers = np.random.default_rng(0).permutation(count * size)
    return graph(numbers[nodes], numbers[after], count * size)


def communities() -> tuple[Graph, np.ndarray]:
    """Eight of 500 nodes, nine of ten edges inside one; and who is in which."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 4000, 60_000)
    inside = source // 500 * 500 + rng.integers(0, 500, 60_000)
    to = np.where(rng.random(60_000) < 0.9, inside, rng.integers(0, 4000, 60_000))
    numbers = rng.permutation(4000)
    planted = np.empty(4000, np.int64)
    planted[numbers] = np.arange(4000) // 500
    return graph(numbers[source], numbers[to], 4000), planted


def empty(num_nodes: int = 30) -> Graph:
    return np.zeros(num_nodes + 1, np.int64), np.zeros(0, np.int32)


@pytest.mark.parametrize("make", [powerlaw, star, path, islands, empty])
@pytest.mark.parametrize("num_parts", [1, 2, 7, 30])
def test_parts_are_balanced_and_none_is_empty(make: Callable[[], Graph], num_parts: int) -> None:
    indptr, indices = make()
    part = partition(indptr, indices, num_parts)
    weight = np.diff(indptr) + NODE_COST
    load = np.bincount(part, weights=weight, minlength=num_parts)
    mean = weight.sum() / num_parts
    assert len(load) == num_parts
    assert load.min() > 0
    assert load.max() <= max(SLACK * mean, mean + weight.max())


def test_mending_leaves_no_part_light() -> None:
    indptr, indices = powerlaw()
    weight = np.diff(indptr) + NODE_COST
    for num_parts in (2, 7, 30):
        load = np.bincount(partition(indptr, indices, num_parts), weights=weight)
        assert load.min() >= 0.79 * weight.sum() / num_parts


def test_planted_communities_are_found() -> None:
    (indptr, indices), planted = communities()
    assert edge_cut(indptr, indices, partition(indptr, indices, 8)) <= 1.01 * edge_cut(indptr, indices, planted)


def test_islands_are_not_torn_apart_much() -> None:
    indptr, indices = islands()
    assert edge_cut(indptr, indices, partition(indptr, indices, 8)) <= 0.05 * len(indices)


@pytest.mark.parametrize("make", [powerlaw, path])
def test_fewer_edges_are_cut_than_by_chance(make: Callable[[], Graph]) -> None:
    indptr, indices = make()
    part = partition(indptr, indices, 8)
    shuffled = np.random.default_rng(0).permutation(part)
    assert edge_cut(indptr, indices, part) < 0.8 * edge_cut(indptr, indices, shuffled)


def test_a_real_graph_is_cut_to_a_seventh_of_chance(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    cora = data_file("static/planetoid-cora/cora.npz")
    graph = gs.ingest(f"npz:{cora}", tmp_path / "store", undirected=True).graph
    indptr, indices = np.array(graph.indptr), np.array(graph.indices)
    part = partition(indptr, indices, 8)
    assert edge_cut(indptr, indices, part) < 0.125 * len(indices)  # by chance it is 7 / 8
    assert np.array_equal(part, partition(indptr, indices, 8))


def test_places_go_part_after_part() -> None:
    order, bounds = relabel(np.array([2, 0, 2, 3, 0]), 4)
    assert order.tolist() == [1, 4, 0, 2, 3]
    assert bounds.tolist() == [0, 2, 2, 4, 5]


@pytest.mark.parametrize("num_parts", [0, 31])
def test_more_parts_than_nodes_are_refused(num_parts: int) -> None:
    with pytest.raises(ConfigError, match="30 nodes cannot be split"):
        partition(*empty(), num_parts)


def test_the_cut_counts_edges_between_parts() -> None:
    indptr, indices = graph(np.array([0, 1, 2, 2]), np.array([1, 0, 1, 1]), 3)
    assert edge_cut(indptr, indices, np.array([0, 0, 1])) == 2
