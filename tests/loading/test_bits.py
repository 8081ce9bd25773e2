"""`x` is `x[n_id]` bit for bit in every layout, whatever the values, the row size, the graph and the cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.loading.loader import Loader
from tests.loading.conftest import BATCH, FANOUTS, make_pack, make_store

ROWS = [
    ("<f4", 1),
    ("<f4", 25),  # 100 bytes: crosses pages
    ("<f4", 1024),  # a page
    ("<f4", 1500),  # 6000 bytes
    ("<f2", 7),  # 14 bytes: not even a multiple of 4
    ("|u1", 1),
    ("|u1", 4095),
    ("|i1", 3),
]


def random_bits(dtype: str, num_rows: int, columns: int) -> np.ndarray:
    """Any finite value: random bits for integers, random numbers for floats, with both zeros and subnormals."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind != "f":
        return rng.integers(0, 256, (num_rows, columns * np.dtype(dtype).itemsize), dtype=np.uint8).view(dtype)
    x = rng.normal(size=(num_rows, columns)).astype(dtype)
    x.reshape(-1)[:3] = (-0.0, 0.0, np.finfo(dtype).smallest_subnormal)
    return x


@pytest.mark.parametrize(("dtype", "columns"), ROWS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_every_layout_delivers_the_rows_as_stored(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, columns: int, data: st.DataObject
) -> None:
    nodes = data.draw(st.integers(3, 120))
    x = random_bits(dtype, nodes, columns)
    folder = tmp_path_factory.mktemp("bits")
    store = make_store(folder / "store", x, nodes=nodes, edges=data.draw(st.integers(0, 600)))
    cached = data.draw(st.sampled_from([0, 1, nodes // 2, nodes]))
    pack = make_pack(folder / "pack", store, cache_rows=cached)
    for rows in ("packed", "direct", "mapped", "memory"):
        _assert_rows(Loader(pack, rows=rows), x)
    _assert_rows(Loader(store, fanouts=FANOUTS, batch_size=BATCH), x)


def _assert_rows(loader: Loader, x: np.ndarray) -> None:
    with loader:
        assert len(loader) > 0
        for batch in loader:
            assert isinstance(batch.x, torch.Tensor)
            assert batch.x.numpy().dtype == x.dtype
            assert batch.x.numpy().tobytes() == x[batch.n_id.numpy()].tobytes()
