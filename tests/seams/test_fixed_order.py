"""Seam of temporal models: ordered events, mutable rows, and exact prefetch of what the next batches will touch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gnnsys as gs

NODES, EVENTS = 60, 240


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    folder = tmp_path_factory.mktemp("events")
    source = f"synthetic:powerlaw:nodes={NODES},edges=600,feat=8,classes=2,seed=4"
    store = gs.ingest(source, folder / "store", memory="64MiB")
    rng = np.random.default_rng(0)
    events = rng.integers(0, NODES, (EVENTS, 2))
    seeds = gs.Seeds.links(events, t=np.sort(rng.integers(0, 1000, EVENTS)), order="fixed", negatives=0, exclude="none")
    return gs.pack(store, folder / "pack", seeds=seeds, fanouts=[3], batch_size=16, memory="64MiB", seed=0)


def test_events_come_in_the_order_of_time_in_every_epoch(pack: gs.Pack) -> None:
    with gs.Loader(pack) as loader:
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            times = torch.cat([batch.t for batch in loader if batch.t is not None])
            assert len(times) == EVENTS
            assert bool((times[1:] >= times[:-1]).all())


def test_upcoming_names_exactly_the_nodes_of_the_next_batches(pack: gs.Pack) -> None:
    with gs.Loader(pack) as loader:
        expected = loader.upcoming(2)
        for batch in loader:
            assert np.array_equal(expected[0], batch.n_id.numpy())
            expected = loader.upcoming(2)
        assert expected == []


def _replay(pack: gs.Pack, memory: gs.MutableTable, prefetch: bool) -> np.ndarray:
    """Every batch adds one to the rows it touches, after reading them ahead of time or on time."""
    seen = []
    with gs.Loader(pack) as loader:
        ahead: dict[int, np.ndarray] = {}
        for batch in loader:
            ids = batch.n_id.numpy()
            fresh = memory.read(ids)
            if prefetch:
                rows = np.stack([ahead.get(i, row) for i, row in zip(ids.tolist(), fresh, strict=True)])
            else:
                rows = fresh
            seen.append(rows.sum())
            memory.write(ids, rows + 1)
            coming = loader.upcoming(1)
            ahead = dict(zip(coming[0].tolist(), memory.read(coming[0]), strict=True)) if coming else {}
    return np.array(seen)


def test_rows_prefetched_through_upcoming_are_those_read_on_time(pack: gs.Pack) -> None:
    late = _replay(pack, gs.MutableTable(np.zeros((NODES, 4), dtype=np.float32)), prefetch=False)
    early = _replay(pack, gs.MutableTable(np.zeros((NODES, 4), dtype=np.float32)), prefetch=True)
    assert late.sum() > 0
    assert np.array_equal(early, late)
