"""Where batches without rows come from: a Pool that was sampled ahead, or a Store that is sampled now.

Both give the same thing, a PoolBatch, and the same batches for the same seed, so everything behind them is one path.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gnnsys.errors import ConfigError
from gnnsys.samplers.batches import SeedBatches, seed_batches
from gnnsys.samplers.draws import copied_bytes, make_draw
from gnnsys.samplers.seeds import Order, Seeds, as_seeds
from gnnsys.samplers.tree import TreeSampler, checked_fanouts, largest_batch, stamp_bytes, working_bytes
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.checksums import digest
from gnnsys.storage.labels import columns_of
from gnnsys.storage.manifest import canonical_json
from gnnsys.storage.pool import Pool
from gnnsys.storage.scratch import Scratch
from gnnsys.storage.store import Store

_PROBED = 8


class BatchSource(Protocol):
    """Batches by (epoch, number); may be asked by several threads at once."""

    id: str
    """Equal ids give equal batches; a saved position holds it."""
    num_batches: int
    order: str
    """`shuffle` or `fixed`."""
    hops: int
    """Hops of the batches delivered."""
    fanouts: list[int]
    """Of those hops, seed side first."""
    label_bytes: int
    """Of the labels of a seed, at most."""
    drawn: dict[str, Any]
    """How they are sampled, but from which seeds and by which number."""

    @property
    def seeds(self) -> Seeds | None:
        """What a Store is sampled for; a Pool does not keep them apart from its batches."""
        ...

    def draw(self, epoch: int, k: int, scratch: Scratch) -> PoolBatch:
        """Batch k as it is in that epoch."""
        ...

    def ids(self, epoch: int, k: int) -> np.ndarray:
        """(n,) int64 nodes of that batch."""
        ...

    def pool_index(self, epoch: int) -> int: ...

    def num_nodes(self, k: int) -> tuple[int, ...] | None:
        """Cumulative node counts of batch k, per ring, from the index; None where only drawing it tells."""
        ...

    def planned_bytes(self, k: int) -> int:
        """Bytes that `draw` will ask from the disk; a map of the topology counts as none."""
        ...

    def is_same_every_epoch(self) -> bool: ...

    def largest(self) -> tuple[int, int, int]:
        """Upper bounds over all batches: seeds, nodes and edges."""
        ...

    def most_nodes(self) -> int:
        """Number of the batch with the most nodes; among the first few when batches are drawn as they are asked for."""
        ...

    def worker_bytes(self) -> int:
        """Upper bound of what one thread holds while it draws, beyond the batch itself."""
        ...


class PoolSource:
    """Batches of a Pool, or their inner hops.

    Args:
        hops: how many hops to deliver; all when None.
        labels: also read labels and pairs.
        verify: as in `Pool.read`.
    """

    def __init__(self, pool: Pool, *, hops: int | None, labels: bool, verify: str) -> None:
        self._pool = pool
        self.hops = checked_hops(hops, pool.hops)
        self.fanouts = pool.fanouts[: self.hops]
        self._labels, self._verify = labels, verify
        self.id = pool.id
        self.seeds: Seeds | None = None
        self.num_batches, self.label_bytes = pool.num_batches, pool.coding.label_bytes
        self.order, self.drawn = pool.order, pool.drawn
        self._largest_blob = max(self.planned_bytes(k) for k in range(pool.num_batches))

    def draw(self, epoch: int, k: int, scratch: Scratch) -> PoolBatch:
        buffer = scratch.get("blob", self._largest_blob)
        return self._pool.read(k, self.hops, self._labels, buffer, verify=self._verify)

    def ids(self, epoch: int, k: int) -> np.ndarray:
        return self._pool.ids(k, self.hops, verify=self._verify)

    def pool_index(self, epoch: int) -> int:
        return self._pool.pool_index

    def num_nodes(self, k: int) -> tuple[int, ...] | None:
        return tuple(int(n) for n in self._pool.num_nodes[k, : self.hops + 1])

    def planned_bytes(self, k: int) -> int:
        return self._pool.blob_bytes(k, self.hops, self._labels)

    def is_same_every_epoch(self) -> bool:
        return True

    def largest(self) -> tuple[int, int, int]:
        nodes, edges = self._pool.num_nodes, self._pool.num_edges[:, : self.hops].sum(axis=1)
        return int(nodes[:, 0].max()), int(nodes[:, self.hops].max()), int(edges.max(initial=0))

    def most_nodes(self) -> int:
        return int(np.argmax(self._pool.num_nodes[:, self.hops]))

    def worker_bytes(self) -> int:
        _, nodes, edges = self.largest()
        # the blob, and the arrays decoded from it before they are copied into tensors
        return self._largest_blob + 24 * nodes + 8 * edges


class StoreSource:
    """Batches sampled when they are asked for, the same as a Pool sampled with the same arguments would hold.

    Args:
        seeds: name of a split, node ids, or Seeds.
        hops: deliver (and sample) the inner hops only.
        labels: attach labels of the seeds.
        weights, replace: how edges are drawn, as for `sample`.
        resample: sample every epoch anew (pool index = epoch), else every epoch repeats pool index 0.
    """

    def __init__(
        self,
        store: Store,
        *,
        seeds: Any,
        fanouts: Sequence[int],
        batch_size: int,
        order: Order | None,
        weights: np.ndarray | None,
        replace: bool,
        seed: int,
        resample: bool,
        hops: int | None,
        labels: bool,
    ) -> None:
        self._store = store
        self.seeds = _ordered(as_seeds(store, seeds), order)
        self._batch_size, self._seed, self._resample, self._replace = batch_size, seed, resample, replace
        fanouts = checked_fanouts(fanouts)
        self.hops = checked_hops(hops, len(fanouts))
        self._fanouts = self.fanouts = fanouts[: self.hops]
        self._draw, weights_digest = make_draw(weights, replace, store.num_edges)
        self._weights_bytes = copied_bytes(weights)
        self._labels = store.labels() if labels else None
        self.label_bytes = 4 * columns_of(self._labels) or 8
        self.order: str = self.seeds.order
        self.num_batches = len(seed_batches(self.seeds, batch_size, seed))
        self.id = self._identity(fanouts, weights_digest, replace)
        self.drawn = {
            "fanouts": fanouts,
            "batch_size": batch_size,
            "order": self.order,
            "pairs": self.seeds.options,
            "weights": weights_digest,
            "replace": replace,
            "resample": resample,
        }
        # Stamps where they at most double what a batch takes anyway.
        self._stamped = stamp_bytes(store.num_nodes) <= working_bytes(*self.largest()[1:])
        self._lock = threading.Lock()
        self._pass: tuple[int, SeedBatches, TreeSampler] | None = None

    def draw(self, epoch: int, k: int, scratch: Scratch) -> PoolBatch:
        batches, sampler = self._of_pass(self.pool_index(epoch))
        return sampler.sample(batches[k])

    def ids(self, epoch: int, k: int) -> np.ndarray:
        return self.draw(epoch, k, Scratch()).ids

    def pool_index(self, epoch: int) -> int:
        return epoch if self._resample else 0

    def num_nodes(self, k: int) -> tuple[int, ...] | None:
        return None

    def planned_bytes(self, k: int) -> int:
        return 0

    def is_same_every_epoch(self) -> bool:
        return not self._resample

    def largest(self) -> tuple[int, int, int]:
        """See `largest_batch`."""
        store, seeds = self._store, self.seeds.per_batch(self._batch_size)
        bounds = largest_batch(seeds, self._fanouts, store.num_nodes, store.num_edges, store.max_degree, self._replace)
        return min(seeds, store.num_nodes), *bounds

    def most_nodes(self) -> int:
        return int(np.argmax([len(self.ids(0, k)) for k in range(min(_PROBED, self.num_batches))]))

    def worker_bytes(self) -> int:
        _, nodes, edges = self.largest()
        stamps = self._stamped * stamp_bytes(self._store.num_nodes)
        return working_bytes(nodes, edges) + stamps + self._weights_bytes

    def _of_pass(self, pool_index: int) -> tuple[SeedBatches, TreeSampler]:
        """Order of the seeds and sampler of one pass; the last one is kept."""
        with self._lock:
            if self._pass is None or self._pass[0] != pool_index:
                batches = seed_batches(self.seeds, self._batch_size, self._seed, pool_index)
                # Without a budget: `worker_bytes` bounds every draw, and who gives the memory has counted it.
                sampler = TreeSampler(
                    self._store.graph,
                    self._fanouts,
                    seed=self._seed,
                    pool_index=pool_index,
                    labels=self._labels,
                    draw=self._draw,
                    stamped=self._stamped,
                )
                self._pass = (pool_index, batches, sampler)
            return self._pass[1:]

    def _identity(self, fanouts: list[int], *how_drawn: Any) -> str:
        parts = [self._store.id, self.seeds.digest, self.seeds.options, self.seeds.order, *how_drawn]
        return digest(canonical_json([*parts, fanouts, self._batch_size, self._seed, self._resample]))


def checked_hops(hops: int | None, available: int) -> int:
    """How many hops to deliver.

    Raises:
        ConfigError: more than there are, or negative.
    """
    if hops is None:
        return available
    if not 0 <= hops <= available:
        raise ConfigError("GS-CFG-401", f"hops is {hops}; the batches have {available}")
    return hops


def _ordered(seeds: Seeds, order: Order | None) -> Seeds:
    return seeds if order is None else dataclasses.replace(seeds, order=order)
