"""What a pool would ask for, judged from a few of its batches before it is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.planning.access import Access, hottest_rows
from gnnsys.planning.cost import Workload
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.seeds import as_seeds
from gnnsys.samplers.tree import TreeSampler, checked_fanouts
from gnnsys.storage.blob import encode
from gnnsys.storage.pages import pages_touched
from gnnsys.storage.store import Store

BATCHES = 32


@dataclass(frozen=True)
class Sampled:
    """A few batches, and the workload of all K when the others are like them.

    Attributes:
        work: every array has K values, those of the sampled batches over and over.
        ids: of every sampled batch.
        order: `shuffle` or `fixed`.
    """

    work: Workload
    ids: list[np.ndarray]
    order: str

    @property
    def num_sampled(self) -> int:
        return len(self.ids)

    @property
    def requested_rows(self) -> int:
        """Distinct nodes of the sampled batches: the pool asks for at least these."""
        seen = np.zeros(self.work.num_nodes, dtype=bool)
        for ids in self.ids:
            seen[ids] = True
        return int(np.count_nonzero(seen))

    def cold(self, rows: int) -> tuple[np.ndarray, int]:
        """Rows of every batch outside a cache of `rows`, (K,) int64, and how many rows that cache would hold.

        Exact when every batch was sampled. Else a batch is judged by the requests of the others: its own do not
        speak for it. Of equally hot nodes that fit only in part, that part counts as cached.
        """
        counts = np.zeros(self.work.num_nodes, dtype=np.uint32)
        for ids in self.ids:
            counts[ids] += np.uint32(1)
        levels = np.bincount(counts, minlength=2)
        if self.num_sampled == len(self.work.nodes):
            cached = hottest_rows(Access(counts, levels, self.work.pages), rows)
            hits = [np.count_nonzero(cached.mask(ids, counts[ids])) for ids in self.ids]
            return np.array([len(ids) - hit for ids, hit in zip(self.ids, hits, strict=True)]), cached.rows
        held = min(rows, self.work.num_nodes)
        share = _cached_share(levels, held)
        others = np.concatenate([share[:1], share[:-1]])
        cold = np.array([round(len(ids) - others[counts[ids]].sum()) for ids in self.ids], dtype=np.int64)
        return np.resize(cold, len(self.work.nodes)), held


def sample_batches(
    store: Store, *, seeds: Any, fanouts: Sequence[int], batch_size: int, seed: int, memory: int
) -> Sampled:
    """Sample the first 32 batches of the pool that `sample` would make of these options; writes nothing.

    Raises:
        MemoryBudgetError: a batch does not fit into `memory`; `sample` would refuse it too.
    """
    found = as_seeds(store, seeds)
    batches = seed_batches(found, batch_size, seed, 0)
    checked = checked_fanouts(fanouts)
    sampler = TreeSampler(store.graph, checked, seed=seed, pool_index=0, labels=store.labels(), budget=Budget(memory))
    drawn = [sampler.sample(batches[k]) for k in range(min(BATCHES, len(batches)))]

    def scaled(values: list[int]) -> np.ndarray:
        return np.resize(np.array(values, dtype=np.int64), len(batches))

    work = Workload(
        num_nodes=store.num_nodes,
        row_bytes=store.row_bytes(),
        columns=store.table_columns(),
        id_bytes=store.id_dtype.itemsize,
        nodes=scaled([len(b.ids) for b in drawn]),
        edges=scaled([len(b.indices) for b in drawn]),
        inner_nodes=scaled([int(b.num_nodes[max(len(checked) - 1, 0)]) for b in drawn]),
        seeds=scaled([int(b.num_nodes[0]) for b in drawn]),
        pool_bytes=scaled([len(encode(b, checked, store.id_dtype).data) for b in drawn]),
        pages=scaled([pages_touched(b.ids, store.row_bytes()) for b in drawn]),
    )
    return Sampled(work, [b.ids for b in drawn], found.order)


def _cached_share(levels: np.ndarray, rows: int) -> np.ndarray:
    """(levels,) share of the nodes asked for 0, 1, 2, ... times that a cache of the hottest `rows` holds."""
    above = np.cumsum(levels[::-1])[::-1] - levels
    return np.asarray(np.clip((rows - above) / np.maximum(levels, 1), 0.0, 1.0))
