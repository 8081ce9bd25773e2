"""Ctrl-C where `gs.train` was called, in a script or in a cell."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import gnnsys as gs
from gnnsys.training.events import read_events
from tests.graphs import ingest_arrays

CLASSES, OPTIONS = 3, {"fanouts": [3], "batch_size": 8, "epochs": 3, "lr": 0.05, "threads": 1, "memory": "512MiB"}
STEPS = 5
"""Of an epoch."""


@pytest.fixture(autouse=True)
def python_handles_ctrl_c() -> Iterator[None]:
    """As in a foreground; a process that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting(gs.NodeClassification):
    """Ctrl-C, once or more often, in a step, counted from 1 over all epochs."""

    def __init__(self, at: int, times: int = 1) -> None:
        super().__init__(CLASSES)
        self._left, self._times = at, times

    def identity(self) -> dict[str, Any]:
        return {"the same": True}

    def after_step(self, _out: Tensor, _batch: gs.Batch) -> None:
        self._left -= 1
        for _ in range(self._times if self._left == 0 else 0):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 60, (2, 400))
    x, y = rng.standard_normal((60, 4)).astype(np.float32), rng.integers(0, CLASSES, 60)
    return ingest_arrays(tmp_path_factory.mktemp("s") / "s", *edges, 60, x=x, y=y, splits={"train": np.arange(40)})


def _train(store: gs.Store, out: Path, task: gs.NodeClassification, **given: Any) -> gs.Run:
    model = gs.build("sage", in_channels=4, hidden_channels=4, num_layers=1, out_channels=CLASSES, seed=0)
    return gs.train(model, store, task=task, out=out, **given, **OPTIONS)


@pytest.fixture(scope="module")
def digest(store: gs.Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = _train(store, tmp_path_factory.mktemp("whole") / "run", Interrupting(0))
    return str(run.result["weights_digest"])


@pytest.mark.parametrize("step", [1, 7, 3 * STEPS])
def test_the_step_is_finished_and_kept(tmp_path: Path, store: gs.Store, digest: str, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(store, tmp_path / "run", Interrupting(step))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    kept = [event["step"] for event in read_events(tmp_path / "run" / "events.jsonl") if event["kind"] == "checkpoint"]
    assert kept[-1] == step
    run = _train(store, tmp_path / "run", Interrupting(0))
    assert run.result["weights_digest"] == digest


def test_a_second_ctrl_c_ends_in_the_step(tmp_path: Path, store: gs.Store, digest: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(store, tmp_path / "run", Interrupting(STEPS + 2, times=2))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert _train(store, tmp_path / "run", Interrupting(0)).result["weights_digest"] == digest


def test_a_handler_or_an_event_of_the_caller_stays(tmp_path: Path, store: gs.Store, digest: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(store, tmp_path / "event", Interrupting(3), stop=threading.Event())
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        run = _train(store, tmp_path / "handler", Interrupting(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT]
    assert run.result["weights_digest"] == digest


def test_training_in_another_thread_is_left_alone(tmp_path: Path, store: gs.Store, digest: str) -> None:
    runs: list[gs.Run] = []
    worker = threading.Thread(target=lambda: runs.append(_train(store, tmp_path / "run", Interrupting(0))))
    worker.start()
    worker.join()
    assert runs[0].result["weights_digest"] == digest
