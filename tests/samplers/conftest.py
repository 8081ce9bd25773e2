"""Small graphs in memory that stand in for a Store, and a slow sampler made of lists and sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gnnsys.keys import GOLDEN, derive, draws, mix
from gnnsys.storage.store import Graph


@dataclass
class MemoryStore:
    """What sampling asks of a Store, from edges in memory."""

    num_nodes: int
    src: np.ndarray
    dst: np.ndarray
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    classes: np.ndarray | None = None
    id_dtype: np.dtype = field(default_factory=lambda: np.dtype(np.int32))
    id: str = "xxh3-128:memory"
    path: Path = Path("memory")

    def __post_init__(self) -> None:
        order = np.lexsort((self.src, self.dst))
        indptr = np.searchsorted(self.dst[order], np.arange(self.num_nodes + 1)).astype(np.int64)
        self.graph = Graph(indptr, self.src[order].astype(self.id_dtype))

    @property
    def max_degree(self) -> int:
        return int(np.diff(self.graph.indptr).max(initial=0))

    @property
    def num_edges(self) -> int:
        return len(self.graph.indices)

    def labels(self) -> np.ndarray | None:
        return self.classes

    def is_added(self, path: str) -> bool:
        return False

    def split(self, name: str) -> np.ndarray:
        return self.splits[name]

    def sources(self, node: int) -> list[int]:
        """Sources of the in-edges of `node`, in list order."""
        return self.graph.indices[self.graph.indptr[node] : self.graph.indptr[node + 1]].tolist()


@pytest.fixture(scope="session")
def store_of() -> Callable[..., MemoryStore]:
    """Make a store from pairs of (source, destination)."""

    def make(edges: object, num_nodes: int, **options: object) -> MemoryStore:
        array = np.array(edges, dtype=np.int64).reshape(-1, 2)
        return MemoryStore(num_nodes, array[:, 0], array[:, 1], **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def random_store() -> MemoryStore:
    """200 nodes; in-degrees 0 to 60; parallel edges and self loops; nodes 190 .. 199 are isolated."""
    rng = np.random.default_rng(0)
    dst = np.repeat(np.arange(190), rng.integers(0, 60, 190))
    src = rng.integers(0, 190, len(dst))
    return MemoryStore(200, src, dst, {"train": np.arange(0, 200, 2)}, rng.integers(-1, 5, 200))


def stream_of(key: int, node: int) -> int:
    """Key of the draws of one node in one hop."""
    with np.errstate(over="ignore"):
        return int(mix(np.array([key], dtype=np.uint64) + np.uint64(node + 1) * GOLDEN)[0])


Pick = Callable[[int, list[int], int], list[int]]
"""(key of its draws, positions that may be drawn, fanout) -> positions in the order drawn."""


def pick_uniformly(stream: int, visible: list[int], fanout: int) -> list[int]:
    """Floyd's sample of min(degree, fanout) positions, by the same draws as the kernel."""
    count = len(visible) if fanout < 0 else min(fanout, len(visible))
    if count == len(visible):
        return visible
    taken: list[int] = []
    for u, j in zip(draws(stream, 0, count).tolist(), range(len(visible) - count, len(visible)), strict=True):
        t = int((u >> 12) * 2.0**-52 * (j + 1))
        taken.append(j if t in taken else t)
    return [visible[place] for place in taken]


@pytest.fixture(scope="session")
def slow_sample() -> Callable[..., tuple[list[list[int]], list[list[tuple[int, int]]]]]:
    """Rings of node ids and, per hop, (source, destination) ids in order; `hidden` edges are left out."""

    def sample(
        store: MemoryStore,
        ids: list[int],
        fanouts: list[int],
        key: tuple[int, int, int],
        hidden: frozenset[tuple[int, int]] = frozenset(),
        pick: Pick = pick_uniformly,
    ) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        rings, hops, known = [list(ids)], [], set(ids)
        for h, fanout in enumerate(fanouts, start=1):
            ring: list[int] = []
            edges: list[tuple[int, int]] = []
            for node in rings[-1]:
                begin = int(store.graph.indptr[node])
                visible = [p for p, s in enumerate(store.sources(node), begin) if (s, node) not in hidden]
                for position in pick(stream_of(derive(*key, h), node), visible, fanout):
                    source = int(store.graph.indices[position])
                    edges.append((source, node))
                    if source not in known:
                        known.add(source)
                        ring.append(source)
            rings.append(ring)
            hops.append(edges)
        return rings, hops

    return sample
