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

    def labels(self) -> np.ndarray | None:
        return self.classes

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


def _floyd(key: int, node: int, degree: int, count: int) -> list[int]:
    """`count` of 0 .. degree - 1 in the order drawn, by the same keys as the kernel."""
    if count == degree:
        return list(range(degree))
    with np.errstate(over="ignore"):
        stream = int(mix(np.array([key], dtype=np.uint64) + np.uint64(node + 1) * GOLDEN)[0])
    taken: list[int] = []
    for u, j in zip(draws(stream, 0, count).tolist(), range(degree - count, degree), strict=True):
        t = int((u >> 12) * 2.0**-52 * (j + 1))
        taken.append(j if t in taken else t)
    return taken


@pytest.fixture(scope="session")
def slow_sample() -> Callable[..., tuple[list[list[int]], list[list[tuple[int, int]]]]]:
    """Rings of node ids and, per hop, (source, destination) ids in order; `hidden` edges are left out."""

    def sample(
        store: MemoryStore,
        ids: list[int],
        fanouts: list[int],
        key: tuple[int, int, int],
        hidden: frozenset[tuple[int, int]] = frozenset(),
    ) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        rings, hops, known = [list(ids)], [], set(ids)
        for h, fanout in enumerate(fanouts, start=1):
            ring: list[int] = []
            edges: list[tuple[int, int]] = []
            for node in rings[-1]:
                visible = [s for s in store.sources(node) if (s, node) not in hidden]
                count = len(visible) if fanout < 0 else min(fanout, len(visible))
                for place in _floyd(derive(*key, h), node, len(visible), count):
                    edges.append((visible[place], node))
                    if visible[place] not in known:
                        known.add(visible[place])
                        ring.append(visible[place])
            rings.append(ring)
            hops.append(edges)
        return rings, hops

    return sample
