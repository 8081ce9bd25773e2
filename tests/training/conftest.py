"""A small graph cut into batches by hand, and a loader over them: the trainer without any storage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.batch import Batch, Block
from gnnsys.keys import derive, permutation
from gnnsys.models.registry import build
from gnnsys.training.checkpoint import Checkpoints
from gnnsys.training.config import parse_config
from gnnsys.training.events import EventLog
from gnnsys.training.step import StepWork
from gnnsys.training.tasks import NodeClassification
from gnnsys.training.trainer import Trainer

COLUMNS, CLASSES, SEEDS = 6, 3, 4


def random_batch(index: int, seeds: int = SEEDS, dtype: torch.dtype = torch.float32) -> Batch:
    """A two-hop batch of random rings, edges and labels; every third label is missing."""
    rng = np.random.default_rng(index)
    rings = np.cumsum([seeds, rng.integers(1, 6), rng.integers(1, 9)])
    counts = rng.integers(0, 4, rings[1])
    indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    indices = torch.from_numpy(rng.integers(0, rings[2], counts.sum()).astype(np.int32))
    inner = int(indptr[rings[0]])
    indices[:inner] %= int(rings[1])
    degree = torch.from_numpy(rng.integers(4, 9, rings[2]).astype(np.int32))
    n_id = torch.from_numpy(rng.permutation(1000)[: rings[2]])
    return Batch(
        seeds=n_id[:seeds],
        n_id=n_id,
        num_nodes=tuple(int(r) for r in rings),
        blocks=(
            Block(indptr=indptr, indices=indices, degree=degree),
            Block(indptr=indptr[: seeds + 1], indices=indices[:inner], degree=degree[: rings[1]]),
        ),
        degree=degree,
        x=torch.from_numpy(rng.normal(size=(rings[2], COLUMNS))).to(dtype),
        y=torch.from_numpy(np.where(np.arange(seeds) % 3 == 2, -1, rng.integers(0, CLASSES, seeds))),
        index=index,
        io={"bytes_read": 4096.0},
    )


class ListLoader:
    """Batches from a list in a shuffled order per epoch; position as the real Loader keeps it."""

    def __init__(self, batches: list[Batch], seed: int = 0) -> None:
        self.batches, self.seed = batches, seed
        self.epoch = self.next = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        order = permutation(len(self.batches), derive(self.seed, self.epoch))
        while self.next < len(self.batches):
            self.next += 1
            yield self.batches[order[self.next - 1]]

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.next = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.next = state["epoch"], state["next"]

    def planned_bytes(self, _epoch: int) -> int:
        return 4096 * len(self.batches)


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path, one_thread: None) -> MakeTrainer:
    """A Trainer on seven small batches; equal options give equal runs, restored from what is in the folder."""

    def make(
        folder: str = "run",
        *,
        batches: list[Batch] | None = None,
        task: Any = None,
        model: torch.nn.Module | None = None,
        values: list[float] | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Trainer:
        config = parse_config({"hidden": 5, "lr": 0.05, "epochs": 3, **options})
        sizes = {"in_channels": COLUMNS, "hidden_channels": 5, "num_layers": 2, "out_channels": CLASSES}
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        checkpoints = Checkpoints(path / "checkpoints", "digest")
        queue = list(values or [])

        def evaluate() -> float | None:
            return queue[len(trainer.state.history)] if queue else None

        network = model or build("sage", **sizes, dropout=config.dropout, seed=config.seed)
        trainer = Trainer(
            StepWork(network, task or NodeClassification(CLASSES), config, torch.device("cpu")),
            ListLoader(batches or [random_batch(i) for i in range(7)], config.seed),  # type: ignore[arg-type]
            config,
            folder=path,
            checkpoints=checkpoints,
            events=EventLog(path / "events.jsonl", "run"),
            evaluate=evaluate,
            stop=stop,
        )
        found, _ = checkpoints.load_latest()
        if found:
            trainer.restore(found, path)
        return trainer

    return make


class StopAfter(threading.Event):
    """A stop flag that is set once it was looked at that often."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def is_set(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.set()
        return super().is_set()
