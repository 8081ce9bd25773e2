"""Features that are made on request: degrees and noise, the same for any memory, threads and renumbering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError

N = 500
EDGES = np.random.default_rng(0).integers(0, N - 10, (2, 3000))


def made(out: Path, features: str, **options: object) -> gs.Store:
    return gs.ingest(gs.ArraySource(EDGES, N), out, features=features, **options)


def test_degrees_are_those_of_the_graph_that_is_stored(tmp_path: Path) -> None:
    store = made(tmp_path / "store", "degree", dedup=True, largest_component=True)
    assert store.num_nodes < N
    rows = store.table().read(np.arange(store.num_nodes))
    assert np.array_equal(rows[:, 0], np.bincount(pairs_into(store), minlength=store.num_nodes))
    assert store.table_dtype() == "F32"


def pairs_into(store: gs.Store) -> np.ndarray:
    """Destination of every stored edge, by a loop."""
    ends = [v for v in range(store.num_nodes) for _ in range(store.graph.indptr[v], store.graph.indptr[v + 1])]
    return np.array(ends)


def test_noise_is_a_function_of_node_and_seed(tmp_path: Path) -> None:
    first = made(tmp_path / "first", "random:64:7")
    again = made(tmp_path / "again", "random:64:7", memory="16MiB", workers=1)
    other = made(tmp_path / "other", "random:64")
    rows, others = (store.table().read(np.arange(N)) for store in (first, other))
    assert first.digest == again.digest
    assert (first.id != other.id, np.array_equal(rows, others)) == (True, False)
    assert abs(rows.mean()) < 0.03
    assert abs(rows.std() - 1) < 0.03
    assert abs(np.corrcoef(rows[:, 0], others[:, 0])[0, 1]) < 0.2


@pytest.mark.parametrize("features", ["random:", "random:0", "random:x", "random:3:-1"])
def test_what_cannot_be_made_is_refused(features: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-972"):
        made(tmp_path / "store", features)


def test_features_that_are_there_are_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-972.*has features"):
        gs.ingest(gs.ArraySource(EDGES, x=np.ones((N, 2), np.float32)), tmp_path / "store", features="degree")
