"""Seam of temporal models: ordered events, mutable rows, and exact prefetch of what the next batches will touch."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import gnnsys as gs
from gnnsys.errors import GnnsysError

NODES, EVENTS = 60, 240


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    folder = tmp_path_factory.mktemp("events")
    source = f"synthetic:powerlaw:nodes={NODES},edges=600,feat=8,classes=2,seed=4"
    store = gs.ingest(source, folder / "store", memory="64MiB")
    rng = np.random.default_rng(0)
    events = rng.integers(0, NODES, (EVENTS, 2))
    seeds = gs.Seeds.links(events, t=np.sort(rng.integers(0, 1000, EVENTS)), order="fixed", negatives=1, exclude="none")
    return gs.pack(store, folder / "pack", seeds=seeds, fanouts=[3], batch_size=16, memory="64MiB", seed=0)


def test_events_come_in_the_order_of_time_in_every_epoch(pack: gs.Pack) -> None:
    with gs.Loader(pack) as loader:
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            times = torch.cat([batch.t[batch.pair_label == 1] for batch in loader])
            assert len(times) == EVENTS
            assert bool((times[1:] >= times[:-1]).all())


def test_upcoming_names_exactly_the_nodes_of_the_next_batches(pack: gs.Pack) -> None:
    with gs.Loader(pack) as loader:
        expected = loader.upcoming(2)
        for batch in loader:
            assert np.array_equal(expected[0], batch.n_id.numpy())
            expected = loader.upcoming(2)
        assert expected == []


class Remembering:
    """Scores events by features and by what is remembered of their ends; remembers a little of every event.

    The rows of the next batch are fetched ahead, as soon as the present one has written its own.
    """

    order = "fixed"

    def __init__(self, loader: gs.Loader) -> None:
        self._loader = loader
        self.memory = gs.MutableTable(np.zeros((NODES, 2), dtype=np.float32))
        self._ahead: np.ndarray | None = None
        self.fetched_ahead = 0

    def seeds(self, store: gs.Store, split: str) -> gs.Seeds:
        raise NotImplementedError("the pool has them")

    def before_step(self, batch: gs.Batch) -> gs.Batch:
        rows = torch.from_numpy(self._rows(batch.n_id.cpu().numpy()))
        return replace(batch, x=torch.cat([batch.x, rows.to(batch.x.device)], dim=1))

    def outputs(self, model: nn.Module, batch: gs.Batch) -> Tensor:
        ends = model(batch)[batch.pairs]  # (P, 2, H)
        return ends.prod(dim=1).sum(dim=1)

    def loss(self, out: Tensor, batch: gs.Batch) -> tuple[Tensor, int]:
        return binary_cross_entropy_with_logits(out, batch.pair_label, reduction="sum"), len(out)

    def after_step(self, out: Tensor, batch: gs.Batch) -> None:
        seeds = batch.seeds.cpu().numpy()
        self.memory.write(seeds, self.memory.read(seeds) * np.float32(0.5) + np.float32(out.mean().item()))
        coming = self._loader.upcoming(1)
        self._ahead = self.memory.read(coming[0]) if coming else None

    def state_dict(self) -> dict[str, Tensor]:
        return {"memory": torch.from_numpy(self.memory.read(np.arange(NODES)))}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.memory.write(np.arange(NODES), state["memory"].numpy())
        self._ahead = None

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        rows, self._ahead = self._ahead, None
        if rows is None:  # the first batch, or the first one after a resume
            return self.memory.read(ids)
        self.fetched_ahead += 1
        return rows


class ReadingOnTime(Remembering):
    """The slow twin: no row is fetched before it is needed."""

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        return self.memory.read(ids)


class Ends(nn.Module):
    """One linear map of features and memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8 + 2, 4)

    def forward(self, batch: gs.Batch) -> Tensor:
        return self.lin(batch.x)[: batch.batch_size]


def _train(
    kind: type[Remembering], pack: gs.Pack, out: Path, stop_at: float = np.inf
) -> tuple[str, np.ndarray, Remembering]:
    """Weights digest and memory after two epochs, stopped (with a checkpoint) once `stop_at` epochs were done."""
    torch.manual_seed(0)
    stop = threading.Event()

    def watch(_stage: str, done: float, _total: float) -> None:
        if done >= stop_at:
            stop.set()

    with gs.Loader(pack) as loader:
        task = kind(loader)
        run = gs.train(Ends(), loader, task=task, epochs=2, lr=0.05, out=out, threads=1, stop=stop, progress=watch)
        return run.result["weights_digest"], task.memory.read(np.arange(NODES)), task


def test_memory_fetched_ahead_trains_like_memory_read_on_time(pack: gs.Pack, tmp_path: Path) -> None:
    on_time, ahead = _train(ReadingOnTime, pack, tmp_path / "late"), _train(Remembering, pack, tmp_path / "early")
    assert ahead[0] == on_time[0]
    assert np.array_equal(ahead[1], on_time[1])
    assert np.count_nonzero(ahead[1]) > NODES
    assert ahead[2].fetched_ahead > 2 * (EVENTS // 16) - 4  # all but the first batch of every epoch


def test_memory_survives_an_interruption_inside_an_epoch(pack: gs.Pack, tmp_path: Path) -> None:
    whole = _train(Remembering, pack, tmp_path / "whole")
    with pytest.raises(GnnsysError, match="GS-TRAIN-002"):
        _train(Remembering, pack, tmp_path / "cut", stop_at=1.5)
    resumed = _train(Remembering, pack, tmp_path / "cut")
    assert resumed[0] == whole[0]
    assert np.array_equal(resumed[1], whole[1])
