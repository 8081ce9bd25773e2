"""Other ways to draw: by weight and with replacement, beside slow twins and the probabilities that define them."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.errors import InputDataError
from gnnsys.keys import draws
from gnnsys.loading.loader import Loader
from gnnsys.samplers import weighted
from gnnsys.samplers.batches import SeedBatch
from gnnsys.samplers.draws import make_draw
from gnnsys.samplers.sample import sample
from gnnsys.samplers.tree import TreeSampler
from gnnsys.storage.blob import PoolBatch
from tests.loading.conftest import make_store
from tests.samplers.test_tree import edges_of, graphs, rings_of

FANOUTS = [[4, 3], [-1, 2], [0, 3], [50], [1, -1]]


def drawn(
    store: Any, ids: list[int], fanouts: list[int], weights: Any, replace: bool, seed: int = 3, **of_batch: Any
) -> PoolBatch:
    draw, _ = make_draw(weights, replace, len(store.graph.indices))
    batch = SeedBatch(index=1, ids=np.array(ids, dtype=np.int64), **of_batch)
    return TreeSampler(store.graph, fanouts, seed=seed, draw=draw).sample(batch)


def uniforms(stream: int, count: int) -> list[float]:
    return [((u >> 12) + 0.5) * 2.0**-52 for u in draws(stream, 0, count).tolist()]


def pick_replaced(stream: int, visible: list[int], fanout: int) -> list[int]:
    if fanout < 0 or not visible:
        return visible
    return [visible[int((u >> 12) * 2.0**-52 * len(visible))] for u in draws(stream, 0, fanout).tolist()]


def pick_by_clock(weights: np.ndarray) -> Any:
    def pick(stream: int, visible: list[int], fanout: int) -> list[int]:
        clocks = [
            (-math.log(u) / float(weights[p]), p)
            for u, p in zip(uniforms(stream, len(visible)), visible, strict=True)
            if weights[p]
        ]
        if fanout < 0 or fanout >= len(clocks):
            return [p for _, p in clocks]
        return [p for _, p in sorted(clocks)[:fanout]]

    return pick


def pick_by_share(weights: np.ndarray) -> Any:
    def pick(stream: int, visible: list[int], fanout: int) -> list[int]:
        there = [p for p in visible if weights[p]]
        if fanout < 0 or not there:
            return there
        sums = np.cumsum([float(weights[p]) for p in there])
        return [there[min(int((sums <= u * sums[-1]).sum()), len(there) - 1)] for u in uniforms(stream, fanout)]

    return pick


def pickers(weights: np.ndarray) -> dict[tuple[bool, bool], Any]:
    """By (weighted, replace)."""
    return {
        (False, True): pick_replaced,
        (True, False): pick_by_clock(weights),
        (True, True): pick_by_share(weights),
    }


def some_weights(count: int, seed: int = 0) -> np.ndarray:
    """One in four is 0; the rest spread over four orders of magnitude."""
    rng = np.random.default_rng(seed)
    return (10 ** rng.uniform(-2, 2, count) * (rng.random(count) < 0.75)).astype(np.float32)


@pytest.mark.parametrize(("by_weight", "replace"), [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("fanouts", FANOUTS)
def test_a_batch_is_what_the_slow_sampler_makes(
    by_weight: bool, replace: bool, fanouts: list[int], random_store: Any, slow_sample: Any
) -> None:
    ids, weights = [7, 195, 3, 42, 100], some_weights(len(random_store.graph.indices))
    batch = drawn(random_store, ids, fanouts, weights if by_weight else None, replace)
    rings, hops = slow_sample(random_store, ids, fanouts, (3, 0, 1), pick=pickers(weights)[by_weight, replace])
    assert (rings_of(batch), edges_of(batch)) == (rings, hops)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 2**63 - 1), st.sampled_from([(False, True), (True, False), (True, True)]))
def test_on_any_graph_a_batch_is_what_the_slow_sampler_makes(
    store_of: Any, slow_sample: Any, graph: tuple[int, Any, list[int], list[int]], seed: int, how: tuple[bool, bool]
) -> None:
    num_nodes, edges, ids, fanouts = graph
    store, weights = store_of(edges, num_nodes), some_weights(len(edges), seed % 100)
    batch = drawn(store, ids, fanouts, weights if how[0] else None, how[1], seed)
    rings, hops = slow_sample(store, ids, fanouts, (seed, 0, 1), pick=pickers(weights)[how])
    assert (rings_of(batch), edges_of(batch)) == (rings, hops)


@pytest.mark.parametrize(("by_weight", "replace"), [(False, True), (True, False), (True, True)])
def test_target_edges_stay_hidden(by_weight: bool, replace: bool, random_store: Any, slow_sample: Any) -> None:
    """All parallel copies of the positive pairs; the draws are those of the edges that are left."""
    src, dst = (random_store.src[:20].tolist(), random_store.dst[:20].tolist())
    ids = sorted({*src, *dst})
    pairs = np.array([[ids.index(a), ids.index(b)] for a, b in zip(src, dst, strict=True)])
    weights = some_weights(len(random_store.graph.indices))
    batch = drawn(
        random_store,
        ids,
        [5, 2],
        weights if by_weight else None,
        replace,
        pairs=pairs,
        pair_label=np.ones(len(pairs), dtype=np.float32),
        exclude="self",
    )
    cut = frozenset(zip(src, dst, strict=True))
    # only the in-edges of seeds in the first hop: a later hop has no seeds
    rings, hops = slow_sample(random_store, ids, [5, 2], (3, 0, 1), cut, pick=pickers(weights)[by_weight, replace])
    assert (rings_of(batch), edges_of(batch)) == (rings, hops)


def star(store_of: Any, repeats: int, weights: list[float]) -> tuple[Any, np.ndarray]:
    """`repeats` nodes with the same sources 0, 1, .. and the same weights; their draws are independent."""
    degree = len(weights)
    edges = [(s, degree + v) for v in range(repeats) for s in range(degree)]
    return store_of(edges, degree + repeats), np.tile(weights, repeats)


def test_without_replacement_one_after_another_in_proportion_to_what_is_left(store_of: Any) -> None:
    repeats, weights = 20_000, [1.0, 2.0, 5.0]
    store, per_edge = star(store_of, repeats, weights)
    batch = drawn(store, list(range(3, 3 + repeats)), [2], per_edge, replace=False)
    first, second = batch.ids[batch.indices].reshape(-1, 2).T
    for a, b in permutations(range(3), 2):
        share = weights[a] / 8 * weights[b] / (8 - weights[a])
        found = np.count_nonzero((first == a) & (second == b)) / repeats
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / repeats)  # 4 deviations, fixed key


@pytest.mark.parametrize("weights", [[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])
def test_with_replacement_every_draw_is_in_proportion(store_of: Any, weights: list[float]) -> None:
    repeats = 10_000
    store, per_edge = star(store_of, repeats, weights)
    given_weights = None if len(set(weights)) == 1 else per_edge
    batch = drawn(store, list(range(3, 3 + repeats)), [4], given_weights, replace=True)
    sources = batch.ids[batch.indices]
    assert len(sources) == 4 * repeats
    for source, weight in enumerate(weights):
        share = weight / sum(weights)
        found = np.count_nonzero(sources == source) / len(sources)
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / len(sources))


def test_a_node_whose_edges_all_weigh_nothing_has_none(store_of: Any) -> None:
    store = store_of([(1, 0), (2, 0)], 3)
    for fanout in (-1, 5):
        for replace in (False, True):
            assert len(drawn(store, [0], [fanout], np.zeros(2), replace).indices) == 0


@given(st.floats(2.0**-53, 1 - 2.0**-53))
def test_the_logarithm_is_one(x: float) -> None:
    assert weighted.log(x) == pytest.approx(math.log(x), rel=4e-16, abs=1e-300)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        (np.ones(3), "4000 edges"),
        (np.append(np.ones(3999), np.nan), "edge 3999"),
        (np.append(-1.0, np.ones(3999)), "edge 0"),
        (np.append(np.inf, np.ones(3999)), "edge 0"),
    ],
)
def test_impossible_weights_are_refused(weights: np.ndarray, named: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", None)
    with pytest.raises(InputDataError, match=named):
        sample(store, tmp_path / "pool", fanouts=[2], weights=weights)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("options", [{"replace": True}, {"weights": True}, {"weights": True, "replace": True}])
def test_a_pool_is_what_a_loader_samples_and_the_same_for_any_workers(options: dict[str, Any], tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", None)
    if "weights" in options:
        options = {**options, "weights": some_weights(store.num_edges)}
    common: dict[str, Any] = {"fanouts": [5, 3], "batch_size": 32, "seed": 2, **options}
    pools = [sample(store, tmp_path / str(workers), workers=workers, **common) for workers in (1, 3)]
    assert pools[0].digest == pools[1].digest
    assert pools[0].id != sample(store, tmp_path / "plain", fanouts=[5, 3], batch_size=32, seed=2).id
    assert pools[0].verify(deep=True) == []
    with Loader(store, with_x=False, shuffle=False, resample=False, **common) as loader:
        for k, batch in enumerate(loader):
            assert np.array_equal(batch.blocks[0].indices, pools[0].read(k).indices)
