"""Bytes of graph parallelism, counted edge by edge."""

from __future__ import annotations

import numpy as np
from torch import nn

from gnnsys.bench.pipeline import graph_parallel_bytes, halo_rows


def test_a_part_fetches_every_foreign_source_once() -> None:
    indptr, indices = np.array([0, 2, 4, 5, 7, 8]), np.array([1, 3, 3, 4, 3, 0, 1, 3], dtype=np.int32)
    part = np.array([0, 0, 0, 1, 1])
    fetched = {
        (part[to], source)
        for to in range(5)
        for source in indices[indptr[to] : indptr[to + 1]]
        if part[source] != part[to]
    }
    assert halo_rows(indptr, indices, part) == len(fetched) == 4


def test_rows_go_there_and_back_in_every_layer_and_gradients_once_around() -> None:
    model = nn.Linear(3, 2)  # 8 parameters
    there_and_back, ring = 2 * 5 * 16 * 7, 2 * (4 - 1) * 8
    assert graph_parallel_bytes(model, halo=7, layers=5, hidden=16, parts=4) == 4 * (there_and_back + ring)
