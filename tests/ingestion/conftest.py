"""Fixtures of the ingest tests: memory so small that tiny graphs take many chunks, and a disk that answers at once."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from gnnsys.storage.store import Store


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any memory is accepted and nothing is flushed: a graph of 100 edges passes through many runs and buckets."""
    monkeypatch.setattr("gnnsys.ingestion.build.MIN_MEMORY", 1)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


@pytest.fixture
def edges_of() -> Callable[[Store], list[tuple[int, int]]]:
    """All edges (source, destination) of a Store, in the order they are stored."""

    def edges(store: Store) -> list[tuple[int, int]]:
        dst = np.repeat(np.arange(store.num_nodes), np.diff(store.graph.indptr))
        return list(zip(store.graph.indices.tolist(), dst.tolist(), strict=True))

    return edges
