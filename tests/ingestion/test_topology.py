"""Topology by external sorting: equal to sorting in memory, for any memory and number of workers."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnsys.errors import CorruptStoreError, InputDataError
from gnnsys.ingestion import ArraySource, ingest
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays

Edges = Callable[[Store], list[tuple[int, int]]]

GRAPHS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=60))
)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _ingest(graph: tuple[int, list[tuple[int, int]]], **options: object) -> Store:
    nodes, edges = graph
    src, dst = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return ingest_arrays(tempfile.mkdtemp(), src, dst, nodes, **options)  # type: ignore[arg-type]


def _largest_component(nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """Slow twin: node ids of the largest weakly connected component, the one with the smallest node of equal ones."""
    src, dst = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    matrix = scipy.sparse.coo_matrix((np.ones(len(src)), (src, dst)), shape=(nodes, nodes))
    _, part = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    best = max(range(part.max() + 1), key=lambda p: ((part == p).sum(), -np.argmax(part == p)))
    return np.flatnonzero(part == best).tolist()


@pytest.mark.usefixtures("tiny")
@quick
@given(graph=GRAPHS, memory=st.sampled_from([64, 400, 1 << 24]), workers=st.integers(1, 3))
def test_edges_come_back_by_destination_then_source(
    graph: tuple[int, list[tuple[int, int]]], memory: int, workers: int, edges_of: Edges
) -> None:
    store = _ingest(graph, memory=memory, workers=workers)
    assert edges_of(store) == sorted(graph[1], key=lambda e: (e[1], e[0]))
    assert store.verify(deep=True) == []


@pytest.mark.usefixtures("tiny")
@quick
@given(graph=GRAPHS, memory=st.sampled_from([32, 200, 1 << 24]))
def test_undirected_is_the_set_of_edges_and_their_reverses(
    graph: tuple[int, list[tuple[int, int]]], memory: int, edges_of: Edges
) -> None:
    store = _ingest(graph, memory=memory, undirected=True)
    both = [*graph[1], *((b, a) for a, b in graph[1] if a != b)]
    assert edges_of(store) == sorted(set(both), key=lambda e: (e[1], e[0]))
    assert store.manifest.counts["merged"] == len(both) - len(set(both))


@pytest.mark.usefixtures("tiny")
@quick
@given(graph=GRAPHS, memory=st.sampled_from([32, 200, 1 << 24]))
def test_the_largest_component_equals_scipys(
    graph: tuple[int, list[tuple[int, int]]], memory: int, edges_of: Edges
) -> None:
    # Numbers of every node are held in memory: 2 * 4 bytes each at most, for 12 nodes.
    store = _ingest(graph, memory=max(memory, 96), largest_component=True)
    kept = _largest_component(*graph)
    new = {old: i for i, old in enumerate(kept)}
    inside = [(new[a], new[b]) for a, b in graph[1] if a in new]
    assert store.num_nodes == len(kept)
    assert edges_of(store) == sorted(inside, key=lambda e: (e[1], e[0]))


@pytest.mark.usefixtures("tiny")
@quick
@given(graph=GRAPHS)
def test_counts_are_those_of_the_graph(graph: tuple[int, list[tuple[int, int]]]) -> None:
    counts = _ingest(graph, memory=64).manifest.counts
    edges = graph[1]
    assert counts["edges"] == len(edges)
    assert counts["self_loops"] == sum(a == b for a, b in edges)
    assert counts["parallel_edges"] == len(edges) - len(set(edges))
    assert counts["max_degree"] == max(np.bincount([b for _, b in edges], minlength=1))


@pytest.mark.usefixtures("tiny")
@quick
@given(graph=GRAPHS, undirected=st.booleans(), largest=st.booleans())
def test_loops_and_parallel_edges_are_left_out_when_asked_to(
    graph: tuple[int, list[tuple[int, int]]], undirected: bool, largest: bool, edges_of: Edges
) -> None:
    options = {"undirected": undirected, "largest_component": largest}
    plain = _ingest(graph, memory=1 << 20, **options)
    store = _ingest(graph, memory=96, dedup=True, no_self_loops=True, **options)
    expected = sorted({(a, b) for a, b in edges_of(plain) if a != b}, key=lambda e: (e[1], e[0]))
    assert edges_of(store) == expected
    counts = store.manifest.counts
    assert (counts["self_loops"], counts["parallel_edges"]) == (0, 0)
    assert counts["dropped_loops"] == sum(a == b for a, b in graph[1])


@pytest.mark.usefixtures("tiny")
def test_edges_left_out_are_counted_alike_after_a_kill(tmp_path: Path) -> None:
    src, dst = np.random.default_rng(0).integers(0, 5, (2, 300))

    def kill(stage: str, done: float, _total: float) -> None:
        if stage == "sort edges" and done > 200:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"dedup": True, "no_self_loops": True, "memory": 512}
    with pytest.raises(KeyboardInterrupt):
        ingest_arrays(tmp_path, src, dst, progress=kill, **options)
    counts = ingest_arrays(tmp_path, src, dst, **options).manifest.counts
    assert counts["dropped_loops"] == int((src == dst).sum())
    assert counts["merged"] + counts["edges"] + counts["dropped_loops"] == 300


@pytest.mark.usefixtures("tiny")
def test_options_that_change_the_graph_change_its_id(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"dedup": True}, {"no_self_loops": True}, {"undirected": True}]
    src = np.array([0, 1])
    made = [ingest_arrays(tmp_path / str(i), src, src[::-1], **options).id for i, options in enumerate(changes)]
    assert len(set(made)) == len(changes)


@pytest.mark.usefixtures("tiny")
def test_bytes_do_not_depend_on_memory_or_workers(tmp_path: Path) -> None:
    src, dst = np.random.default_rng(0).integers(0, 50, (2, 700))
    made = [
        ingest_arrays(tmp_path / f"{memory}-{workers}", src, dst, 60, memory=memory, workers=workers, undirected=True)
        for memory in (2000, 10_000, "4GiB")
        for workers in (1, 2, 4)
    ]
    assert len({store.digest for store in made}) == 1


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("undirected", [False, True])
def test_more_copies_of_one_edge_than_fit_into_memory(tmp_path: Path, undirected: bool, edges_of: Edges) -> None:
    src, dst = np.array([3] * 100 + [1] * 5), np.array([2] * 100 + [4] * 5)
    store = ingest_arrays(tmp_path, src, dst, 6, memory=64, undirected=undirected)
    plain = [(3, 2)] * 100 + [(1, 4)] * 5
    both = sorted({*plain, *((b, a) for a, b in plain)}, key=lambda e: (e[1], e[0]))
    assert edges_of(store) == (both if undirected else plain)
    assert store.manifest.counts["merged" if undirected else "parallel_edges"] == (206 if undirected else 103)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("nodes", [0, 1, 5, 200_000])
def test_a_graph_without_edges_is_supported(tmp_path: Path, nodes: int) -> None:
    empty = np.empty(0, dtype=np.int64)
    store = ingest_arrays(tmp_path, empty, empty, nodes, memory=1 << 20)
    assert (store.num_nodes, store.num_edges, store.max_degree) == (nodes, 0, 0)
    assert not store.graph.indptr.any()
    assert store.verify(deep=True) == []


@pytest.mark.usefixtures("tiny")
def test_nodes_after_the_last_edge_are_isolated(tmp_path: Path) -> None:
    store = ingest_arrays(tmp_path, np.array([0]), np.array([1]), 100_000, memory=64)
    assert store.graph.indptr[[0, 1, 2, 100_000]].tolist() == [0, 0, 1, 1]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("edge", "code", "what"),
    [((-4, 1), "GS-IN-101", "edge 37: node id -4 is negative"), ((1, 50), "GS-IN-102", r"edge 37: node id 50 is out")],
)
def test_a_bad_edge_is_named(tmp_path: Path, edge: tuple[int, int], code: str, what: str) -> None:
    src, dst = np.random.default_rng(0).integers(0, 50, (2, 100))
    src[37], dst[37] = edge
    with pytest.raises(InputDataError, match=f"{code}.*{what}"):
        ingest_arrays(tmp_path, src, dst, 50, memory=256)


@pytest.mark.usefixtures("tiny")
def test_bad_edges_can_be_dropped_and_are_counted(tmp_path: Path, edges_of: Edges) -> None:
    src, dst = np.array([0, -1, 2, 1]), np.array([1, 1, 9, 0])
    store = ingest_arrays(tmp_path, src, dst, 3, on_bad_edge="drop")
    assert edges_of(store) == [(1, 0), (0, 1)]
    assert store.manifest.counts["dropped_edges"] == 2


@pytest.mark.usefixtures("tiny")
def test_a_scratch_run_that_changed_is_noticed(tmp_path: Path) -> None:
    src, dst = np.random.default_rng(0).integers(0, 50, (2, 100))
    damaged = []

    def damage(stage: str, _done: float, _total: float) -> None:
        run = tmp_path / ".work/run-1.bin"
        if stage == "write topology" and not damaged:
            data = bytearray(run.read_bytes())
            data[-8] ^= 1
            run.write_bytes(data)
            damaged.append(run)

    with pytest.raises(CorruptStoreError, match="GS-STORE-010"):
        ingest(ArraySource((src, dst), 50), tmp_path, memory=256, progress=damage)


@pytest.mark.usefixtures("tiny")
def test_copies_of_a_loop_count_alike_in_any_memory(tmp_path: Path) -> None:
    loops = np.full(100, 3)
    made = [ingest_arrays(tmp_path / str(m), loops, loops, 6, memory=m, undirected=True) for m in (64, 10_000)]
    assert [store.manifest.counts["self_loops"] for store in made] == [1, 1]


@pytest.mark.usefixtures("tiny")
def test_ids_that_are_not_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-104: the destinations of edges are float64"):
        ingest_arrays(tmp_path, np.array([0]), np.array([1.7]), 3)


@pytest.mark.usefixtures("tiny")
def test_equal_bytes_of_another_type_are_another_input(tmp_path: Path) -> None:
    wide, narrow = np.array([1, 2]), np.array([1, 0, 2, 0], dtype=np.int32)
    assert ingest_arrays(tmp_path / "a", wide, wide, 3).id != ingest_arrays(tmp_path / "b", narrow, narrow, 3).id
