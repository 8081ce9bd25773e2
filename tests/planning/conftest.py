"""Small stores and pools; speeds that no disk was asked for; no waiting for the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnnsys.planning.calibrate import Speeds
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability is tested by real kills in tests/crash; here a sync only costs time."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)


@pytest.fixture(scope="session")
def speeds() -> Speeds:
    return Speeds(read=1e9, write=5e8, random=5e4, copy=5e9)


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Store]:
    """`make_store(folder, nodes, columns)`: a skewed random graph with F32 features; every third node is a seed."""

    def make(folder: Path, num_nodes: int = 900, columns: int = 100, edges: int = 6) -> Store:
        rng = np.random.default_rng(0)
        src = (num_nodes * rng.random(edges * num_nodes) ** 3).astype(np.int64)
        dst = rng.integers(0, num_nodes, edges * num_nodes)
        x = rng.random((num_nodes, columns), dtype=np.float32)
        return ingest_arrays(folder, src, dst, num_nodes, x=x, splits={"train": np.arange(0, num_nodes, 3)})

    return make
