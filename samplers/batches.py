"""Cut seeds into batches: order by a counter-based permutation, negatives by counter-based draws, made when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from gnnsys.errors import ConfigError
from gnnsys.keys import derive, draws, permutation
from gnnsys.samplers.seeds import Exclude, Seeds

_NEGATIVES = 0
"""Where a hop number stands in the keys of neighbours (1, 2, ...), the keys of negatives have this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedBatch:
    """Who one batch is for. Shapes: B seeds, P pairs."""

    index: int
    ids: np.ndarray
    """(B,) int64 distinct node ids."""
    pairs: np.ndarray | None = None
    """(P, 2) int64 positions in `ids`: the pairs given, then their negatives."""
    pair_label: np.ndarray | None = None
    """(P,) float32: 1 for an edge, 0 for a negative."""
    t: np.ndarray | None = None
    """(P,) int64; a negative has the time of its pair."""
    exclude: Exclude = "none"


class SeedBatches(Sequence[SeedBatch]):
    """All batches of one pass over the seeds; see `seed_batches`."""

    def __init__(self, seeds: Seeds, batch_size: int, seed: int, pool_index: int) -> None:
        self._seeds = seeds
        self._batch_size = batch_size
        self._key = (seed, pool_index)
        self._order = permutation(len(seeds), derive(seed, pool_index)) if seeds.order == "shuffle" else None

    def __len__(self) -> int:
        return -(-len(self._seeds) // self._batch_size)

    @overload
    def __getitem__(self, k: int) -> SeedBatch: ...
    @overload
    def __getitem__(self, k: slice) -> list[SeedBatch]: ...
    def __getitem__(self, k: int | slice) -> SeedBatch | list[SeedBatch]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        if not 0 <= k < len(self):
            raise IndexError(f"batch {k} of {len(self)}")
        part = slice(k * self._batch_size, (k + 1) * self._batch_size)
        chosen = part if self._order is None else self._order[part]
        if self._seeds.ids is not None:
            return SeedBatch(index=k, ids=self._seeds.ids[chosen])
        return self._links(k, chosen)

    def _links(self, k: int, chosen: slice | np.ndarray) -> SeedBatch:
        seeds = self._seeds
        assert seeds.pairs is not None and seeds.pair_label is not None
        pairs, label = seeds.pairs[chosen], seeds.pair_label[chosen]
        t = None if seeds.t is None else seeds.t[chosen]
        positive = np.repeat(np.flatnonzero(label), seeds.negatives)
        drawn = self._draw(k, len(positive))
        pairs = np.concatenate([pairs, np.stack([pairs[positive, 0], drawn], axis=1)])
        ids, positions = _first_appearance(pairs.reshape(-1))
        return SeedBatch(
            index=k,
            ids=ids,
            pairs=positions.reshape(-1, 2),
            pair_label=np.append(label, np.zeros(len(positive))).astype(np.float32),
            t=None if t is None else np.append(t, t[positive]),
            exclude=seeds.exclude,
        )

    def _draw(self, k: int, count: int) -> np.ndarray:
        """(count,) int64 uniform nodes: draw i is for negative i % n of positive pair i // n of batch k."""
        u = draws(derive(*self._key, k, _NEGATIVES), 0, count)
        return ((u >> np.uint64(12)).astype(np.float64) * 2.0**-52 * self._seeds.num_nodes).astype(np.int64)


def seed_batches(seeds: Seeds, batch_size: int, seed: int, pool_index: int = 0) -> SeedBatches:
    """The batches of one pass over `seeds`, made one by one as they are indexed.

    Args:
        seeds: from `as_seeds`, so that they are known to be nodes of the graph.
        batch_size: node ids, or pairs given (negatives not counted), per batch; the last batch may be short.
        seed: not negative.
        pool_index: number of the pass, not negative; another one gives another order.

    Raises:
        ConfigError: an argument is out of range.
    """
    if batch_size < 1:
        raise ConfigError("GS-CFG-204", f"batch size is {batch_size}; it must be at least 1")
    check_key(seed, pool_index)
    if seeds.num_nodes == 0:
        raise ConfigError(
            "GS-CFG-205", f"{seeds.name}: not checked against a graph", hint="Use as_seeds(store, seeds)."
        )
    return SeedBatches(seeds, batch_size, seed, pool_index)


def check_key(seed: int, pool_index: int) -> None:
    """Raise ConfigError unless both fit a random key."""
    for what, value in (("seed", seed), ("pool_index", pool_index)):
        if not 0 <= value < 1 << 63:
            raise ConfigError("GS-CFG-206", f"{what} is {value}; it must be 0 or more, and less than 2**63")


def _first_appearance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in order of first appearance, and for every value its position among them."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[inverse]
