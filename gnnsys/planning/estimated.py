"""What a pool would ask for, judged from a few of its batches before it is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.planning.access import Access, histogram, hottest_rows
from gnnsys.planning.workload import Sizes
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.draws import copied_bytes, make_draw
from gnnsys.samplers.sample import ORDER_BYTES
from gnnsys.samplers.seeds import as_seeds
from gnnsys.samplers.tree import TreeSampler, checked_fanouts, working_bytes
from gnnsys.storage.blob import Coding, EncodedBatch, encode, ring
from gnnsys.storage.files import PAGE
from gnnsys.storage.labels import columns_of
from gnnsys.storage.pages import pages_touched
from gnnsys.storage.store import Store

BATCHES = 32


@dataclass(frozen=True)
class Sampled:
    """A few batches of a pool of `num_batches`.

    Attributes:
        sizes: of the sampled batches; pages: (S,) int64 of the feature file under each.
        ids: of every sampled batch, in the order of its nodes.
        counts: (N,) uint32, how many of them ask for a node.
        order: `shuffle` or `fixed`.
    """

    sizes: Sizes
    pages: np.ndarray
    ids: list[np.ndarray]
    counts: np.ndarray
    num_batches: int
    order: str

    @property
    def num_sampled(self) -> int:
        return len(self.ids)

    @property
    def requested_rows(self) -> int:
        """Distinct nodes of the sampled batches: the pool asks for at least these."""
        return int(np.count_nonzero(self.counts))

    def whole(self) -> Sizes:
        """Sizes of the pool when all its batches are like these."""
        return self.sizes.repeated(self.num_batches)

    def inner(self) -> Sampled:
        """The same batches without their outermost ring."""
        sizes = self.sizes.num_nodes[:, -2].tolist()
        ids = [of_batch[:size] for of_batch, size in zip(self.ids, sizes, strict=True)]
        return replace(self, ids=ids, counts=_counted(ids, len(self.counts)))

    def cold(self, rows: int) -> tuple[int, np.ndarray]:
        """How many rows a cache of `rows` would hold, and the rows of every batch outside it, (K,) int64.

        Exact when every batch was sampled. Else a batch is judged by the requests of the others: its own do not
        speak for it. Of equally hot nodes that fit only in part, that part counts as cached.
        """
        levels = histogram(self.counts)
        if self.num_sampled == self.num_batches:
            cached = hottest_rows(Access(self.counts, levels, self.pages), rows)
            hits = [np.count_nonzero(cached.mask(ids, self.counts[ids])) for ids in self.ids]
            return cached.rows, np.array([len(ids) - hit for ids, hit in zip(self.ids, hits, strict=True)])
        held = min(rows, len(self.counts))
        share = _cached_share(levels, held)
        others = np.concatenate([share[:1], share[:-1]])
        cold = np.array([round(len(ids) - others[self.counts[ids]].sum()) for ids in self.ids], dtype=np.int64)
        return held, np.resize(cold, self.num_batches)


def sample_batches(
    store: Store,
    *,
    seeds: Any,
    fanouts: Sequence[int],
    batch_size: int,
    seed: int,
    weights: np.ndarray | None,
    memory: int,
) -> Sampled:
    """Sample the first batches of the pool that `sample` would make of these options, 32 of them or as many as
    `memory` holds the ids of; writes nothing.

    Raises:
        MemoryBudgetError: a batch does not fit into `memory`; `sample` would refuse it too.
    """
    found, budget = as_seeds(store, seeds), Budget(memory)
    budget.reserve(ORDER_BYTES * len(found), "the order of the seeds")
    budget.reserve(4 * store.num_nodes, "access counts")
    batches = seed_batches(found, batch_size, seed, 0)
    checked = checked_fanouts(fanouts)
    budget.reserve(copied_bytes(weights), "edge weights")
    draw, _ = make_draw(weights, False, store.num_edges)
    sampler = TreeSampler(
        store.graph, checked, seed=seed, pool_index=0, labels=store.labels(), budget=budget, draw=draw
    )
    coding = Coding.of(checked, store.num_nodes, store.max_degree, columns_of(store.labels()))
    ids, sizes = list[np.ndarray](), list[tuple[Any, ...]]()
    for k in range(min(BATCHES, len(batches))):
        batch = sampler.sample(batches[k])
        needed = working_bytes(len(batch.ids), len(batch.indices)) * 5 // 4
        if k and budget.left < needed + batch.ids.nbytes:
            break
        ids.append(batch.ids.astype(store.id_dtype))
        budget.reserve(sum(part.nbytes for part in ids), "ids of the batches looked at")
        pages = pages_touched(batch.ids, store.row_bytes())
        sizes.append((batch.num_nodes, batch.num_edges, _blob_bytes(encode(batch, coding)), pages))
        del batch  # or it would be held beside the next one
    num_nodes, num_edges, blob_bytes, pages_of = (
        np.array(column, dtype=np.int64) for column in zip(*sizes, strict=True)
    )
    measured = Sizes(num_nodes=num_nodes, num_edges=num_edges, blob_bytes=blob_bytes)
    return Sampled(measured, pages_of, ids, _counted(ids, store.num_nodes), len(batches), found.order)


def _counted(ids: list[np.ndarray], num_nodes: int) -> np.ndarray:
    """(N,) uint32: in how many of the batches every node is."""
    counts = np.zeros(num_nodes, dtype=np.uint32)
    for of_batch in ids:
        counts[of_batch] += np.uint32(1)  # the ids of a batch are distinct
    return counts


def _blob_bytes(encoded: EncodedBatch) -> np.ndarray:
    """(L + 1,) int64: bytes of whole pages up to every ring."""
    rings = slice(ring(0), None, 2)
    return np.asarray(-(-(encoded.offset[rings] + encoded.bytes[rings]) // PAGE) * PAGE)


def _cached_share(levels: np.ndarray, rows: int) -> np.ndarray:
    """(levels,) share of the nodes asked for 0, 1, 2, ... times that a cache of the hottest `rows` holds."""
    above = np.cumsum(levels[::-1])[::-1] - levels
    return np.asarray(np.clip((rows - above) / np.maximum(levels, 1), 0.0, 1.0))
