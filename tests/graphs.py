"""Stores of graphs given as arrays, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.ingestion import ArraySource, ingest
from gnnsys.storage.store import Store


def ingest_arrays(
    out: str | Path,
    src: np.ndarray,
    dst: np.ndarray,
    num_nodes: int | None = None,
    *,
    x: Any = None,
    y: Any = None,
    splits: Any = (),
    **options: Any,
) -> Store:
    """Store in `out` of an ArraySource; `options` are those of `ingest`."""
    return ingest(ArraySource((src, dst), num_nodes, x=x, y=y, splits=splits or ()), out, **options)
