"""What a pool would ask for, judged from a few of its batches before it is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.planning.access import Access, histogram, hottest_rows
from gnnsys.planning.cost import Workload
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.sample import ORDER_BYTES
from gnnsys.samplers.seeds import as_seeds
from gnnsys.samplers.tree import TreeSampler, checked_fanouts, working_bytes
from gnnsys.storage.blob import Coding, encode
from gnnsys.storage.pages import pages_touched
from gnnsys.storage.store import Store

BATCHES = 32


@dataclass(frozen=True)
class Sampled:
    """A few batches, and the workload of all K when the others are like them.

    Attributes:
        work: every array has K values, those of the sampled batches over and over.
        ids: of every sampled batch.
        counts: (N,) uint32, how many of them ask for a node.
        order: `shuffle` or `fixed`.
    """

    work: Workload
    ids: list[np.ndarray]
    counts: np.ndarray
    order: str

    @property
    def num_sampled(self) -> int:
        return len(self.ids)

    @property
    def requested_rows(self) -> int:
        """Distinct nodes of the sampled batches: the pool asks for at least these."""
        return int(np.count_nonzero(self.counts))

    def cold(self, rows: int) -> tuple[np.ndarray, int]:
        """Rows of every batch outside a cache of `rows`, (K,) int64, and how many rows that cache would hold.

        Exact when every batch was sampled. Else a batch is judged by the requests of the others: its own do not
        speak for it. Of equally hot nodes that fit only in part, that part counts as cached.
        """
        levels = histogram(self.counts)
        if self.num_sampled == len(self.work.nodes):
            cached = hottest_rows(Access(self.counts, levels, self.work.pages), rows)
            hits = [np.count_nonzero(cached.mask(ids, self.counts[ids])) for ids in self.ids]
            return np.array([len(ids) - hit for ids, hit in zip(self.ids, hits, strict=True)]), cached.rows
        held = min(rows, self.work.num_nodes)
        share = _cached_share(levels, held)
        others = np.concatenate([share[:1], share[:-1]])
        cold = np.array([round(len(ids) - others[self.counts[ids]].sum()) for ids in self.ids], dtype=np.int64)
        return np.resize(cold, len(self.work.nodes)), held


def sample_batches(
    store: Store, *, seeds: Any, fanouts: Sequence[int], batch_size: int, seed: int, memory: int
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
    sampler = TreeSampler(store.graph, checked, seed=seed, pool_index=0, labels=store.labels(), budget=budget)
    coding = Coding.of(checked, store.num_nodes, store.max_degree)
    counts, ids = np.zeros(store.num_nodes, dtype=np.uint32), list[np.ndarray]()
    sizes = list[tuple[int, ...]]()
    for k in range(min(BATCHES, len(batches))):
        batch = sampler.sample(batches[k])
        needed = working_bytes(len(batch.ids), len(batch.indices)) * 5 // 4
        if k and budget.left < needed + batch.ids.nbytes:
            break
        ids.append(batch.ids.astype(store.id_dtype))
        budget.reserve(sum(part.nbytes for part in ids), "ids of the batches looked at")
        counts[batch.ids] += np.uint32(1)  # the ids of a batch are distinct
        sizes.append(
            (
                len(batch.ids),
                len(batch.indices),
                int(batch.num_nodes[max(len(checked) - 1, 0)]),
                int(batch.num_nodes[0]),
                len(encode(batch, coding).data),
                pages_touched(batch.ids, store.row_bytes()),
            )
        )
        del batch  # or it would be held beside the next one
    columns = np.resize(np.array(sizes, dtype=np.int64), (len(batches), len(sizes[0]))).T
    nodes, edges, inner_nodes, of_seeds, pool_bytes, pages = np.ascontiguousarray(columns)
    work = Workload(
        num_nodes=store.num_nodes,
        row_bytes=store.row_bytes(),
        columns=store.table_columns(),
        id_bytes=store.id_dtype.itemsize,
        nodes=nodes,
        edges=edges,
        inner_nodes=inner_nodes,
        seeds=of_seeds,
        pool_bytes=pool_bytes,
        pages=pages,
    )
    return Sampled(work, ids, counts, found.order)


def _cached_share(levels: np.ndarray, rows: int) -> np.ndarray:
    """(levels,) share of the nodes asked for 0, 1, 2, ... times that a cache of the hottest `rows` holds."""
    above = np.cumsum(levels[::-1])[::-1] - levels
    return np.asarray(np.clip((rows - above) / np.maximum(levels, 1), 0.0, 1.0))
