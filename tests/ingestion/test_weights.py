"""Weights of edges: each at its place in the topology, whatever was done to the edges and however little memory."""

from __future__ import annotations

import gzip
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gnnsys as gs
from gnnsys.errors import ConfigError, InputDataError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch.jit, which PyG uses
    from torch_geometric.data import Data
    from torch_geometric.utils import to_undirected

Weighted = dict[tuple[int, int], list[float]]


def stored(store: gs.Store) -> Weighted:
    """Weights by (source, destination), in the order of the topology."""
    weights, found = store.edge_weights(), defaultdict(list)
    assert weights is not None
    for v in range(store.num_nodes):
        for k in range(store.graph.indptr[v], store.graph.indptr[v + 1]):
            found[int(store.graph.indices[k]), v].append(float(weights[k]))
    return dict(found)


def expected(edges: list[tuple[int, int, float]], *, both: bool, unique: bool, loops: bool) -> Weighted:
    """The same from a dictionary. Sums of small whole numbers are exact in any order."""
    found = defaultdict(list)
    for s, d, w in edges:
        if s == d and not loops:
            continue
        found[s, d].append(w)
        if both and s != d:
            found[d, s].append(w)
    return {pair: [sum(ws)] if unique or both else ws for pair, ws in found.items()}


EDGE = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9).map(float))


@settings(max_examples=60, deadline=None)
@given(st.lists(EDGE, max_size=40), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 50))
def test_every_edge_keeps_its_weight(
    edges: list[tuple[int, int, float]],
    both: bool,
    unique: bool,
    loops: bool,
    places: int,
) -> None:
    src, dst, weights = (np.array(part) for part in zip(*edges, strict=True)) if edges else np.zeros((3, 0), int)
    source = gs.ArraySource((src, dst), 6, edge_weight=weights)
    options: dict[str, Any] = {"undirected": both, "dedup": unique, "no_self_loops": not loops}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnnsys.ingestion.weights._BYTES_PER_PLACE", (8 << 20) // places)
        store = gs.ingest(source, f"{folder}/store", memory="16MiB", workers=1, **options)
        assert stored(store) == expected(edges, both=both, unique=unique, loops=loops)
        assert store.verify(deep=True) == []


def test_undirected_weights_are_those_of_pyg(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    edges, weights = (
        torch.from_numpy(rng.integers(0, 30, (2, 200))),
        torch.from_numpy(rng.random(200, dtype=np.float32)),
    )
    store = gs.ingest(Data(edge_index=edges, edge_weight=weights, num_nodes=30), tmp_path / "s", undirected=True)
    # PyG counts a self loop twice, once per direction
    loops = edges[0] == edges[1]
    index, summed = to_undirected(edges, torch.where(loops, weights / 2, weights), num_nodes=30)
    ours = {pair: ws[0] for pair, ws in stored(store).items()}
    theirs = {(int(s), int(d)): float(w) for s, d, w in zip(*index, summed, strict=True)}
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[pair] - theirs[pair]) for pair in ours) < 1e-6


def test_nodes_that_are_renumbered_take_their_weights_along(tmp_path: Path) -> None:
    source = gs.ArraySource(([0, 5, 7, 2], [5, 7, 5, 3]), 9, edge_weight=[1, 2, 3, 4])
    store = gs.ingest(source, tmp_path / "store", largest_component=True)
    assert stored(store) == {(0, 1): [1.0], (1, 2): [2.0], (2, 1): [3.0]}  # 0, 5, 7 are 0, 1, 2


def test_bad_edges_are_left_out_with_their_weights(tmp_path: Path) -> None:
    source = gs.ArraySource(([0, 9, 1], [1, 0, 0]), 2, edge_weight=[1, 2, 3])
    assert stored(gs.ingest(source, tmp_path / "store", on_bad_edge="drop")) == {(0, 1): [1.0], (1, 0): [3.0]}


def test_values_of_a_matrix_are_weights_where_they_tell_anything(tmp_path: Path) -> None:
    matrix = scipy.sparse.csr_matrix(np.array([[0, 2.5], [1, 0]]))
    assert stored(gs.ingest(matrix, tmp_path / "weighted")) == {(0, 1): [2.5], (1, 0): [1.0]}
    assert gs.ingest(matrix != 0, tmp_path / "plain").edge_weights() is None


@pytest.mark.parametrize("weights", [[1.0], [1.0, float("nan")], [1.0, 1e300], [1.0, -0.5], [[1.0, 2.0], [3.0, 4.0]]])
def test_what_is_no_weight_is_refused(weights: list[Any], tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-174"):
        gs.ingest(gs.ArraySource(([0, 1], [1, 0]), edge_weight=weights), tmp_path / "store")


def test_merged_weights_stay_finite(tmp_path: Path) -> None:
    source = gs.ArraySource(([0, 0], [1, 1]), edge_weight=[3e38, 3e38])
    with pytest.raises(InputDataError, match="GS-IN-174"):
        gs.ingest(source, tmp_path / "store", dedup=True)


def test_a_killed_ingest_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnsys.ingestion.weights._BYTES_PER_PLACE", (8 << 20) // 100)
    rng = np.random.default_rng(0)
    source = gs.ArraySource(rng.integers(0, 50, (2, 900)), edge_weight=rng.random(900))
    calls = []

    def stop(what: str, done: float, _of: float) -> None:
        calls.append(what)
        if calls.count("write graph/weights.bin") == 5 and done:
            raise KeyboardInterrupt

    golden = gs.ingest(source, tmp_path / "golden", memory="16MiB", workers=1)
    with pytest.raises(KeyboardInterrupt):
        gs.ingest(source, tmp_path / "killed", memory="16MiB", workers=1, progress=stop)
    assert gs.ingest(source, tmp_path / "killed", workers=2).digest == golden.digest


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_column_of_a_text_holds_them(tmp_path: Path, named: bool, suffix: str) -> None:
    rng = np.random.default_rng(0)
    edges = [
        (int(u), int(v), float(w)) for u, v, w in zip(*rng.integers(0, 30, (2, 400)), rng.random(400), strict=True)
    ]
    name = "n{}".format if named else str
    lines = ["src,dst,year,weight", *(f"{name(u)},{name(v)},1999,{w!r}" for u, v, w in edges), "# a comment", ""]
    path = tmp_path / f"edges{suffix}"
    with gzip.open(path, "wt") if suffix.endswith(".gz") else path.open("w") as file:
        file.write("\n".join(lines))
    store = gs.ingest(f"edges:{path}", tmp_path / "store", edge_weights=4, memory="16MiB")
    number = (
        {name: i for i, name in enumerate(store.names(np.arange(store.num_nodes)))}
        if named
        else {str(i): i for i in range(30)}
    )
    found: Weighted = defaultdict(list)
    for u, v, w in edges:
        found[number[name(u)], number[name(v)]].append(float(np.float32(w)))
    assert stored(store) == dict(found)
    assert store.manifest.counts["ignored_columns"] == 1  # the year


def test_a_file_beside_the_edges_holds_them(tmp_path: Path) -> None:
    np.save(tmp_path / "edges.npy", np.array([[0, 1], [1, 2], [2, 0]]))
    np.save(tmp_path / "weights.npy", np.array([3.0, 2.0, 1.0]))
    store = gs.ingest(f"edges:{tmp_path}/edges.npy", tmp_path / "store", edge_weights=tmp_path / "weights.npy")
    assert stored(store) == {(0, 1): [3.0], (1, 2): [2.0], (2, 0): [1.0]}
    np.save(tmp_path / "weights.npy", np.ones(2))
    with pytest.raises(InputDataError, match=r"GS-IN-174.* for 3 edges"):
        gs.ingest(f"edges:{tmp_path}/edges.npy", tmp_path / "other", edge_weights=tmp_path / "weights.npy")


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("2,0", "GS-IN-177.*row 3 has 2 columns"),
        ("2,0,much", "GS-IN-177.*'much'"),
        ("2,0,nan", "GS-IN-174"),
        ("2,0,-1", "GS-IN-174: .*row 3: the weight is -1"),
        ("2,0,1e39", r"GS-IN-174: .*row 3: the weight is 1e\+39, expected a finite float32"),
        (f"2,0,1{'0' * 40}", r"GS-IN-174: .*row 3: the weight is 1e\+40"),
    ],
)
def test_a_row_without_a_weight_is_named(tmp_path: Path, row: str, code: str) -> None:
    (tmp_path / "e.csv").write_text(f"0,1,0.5\n1,2,1\n{row}\n")
    with pytest.raises(InputDataError, match=code):
        gs.ingest(f"edges:{tmp_path}/e.csv", tmp_path / "store", edge_weights=3)


def test_a_column_of_ends_holds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("0,1,0.5\n")
    np.save(tmp_path / "e.npy", np.zeros((3, 2), dtype=int))
    for file, column in (("e.csv", 2), ("e.npy", 3)):
        with pytest.raises(ConfigError, match="GS-CFG-974"):
            gs.ingest(f"edges:{tmp_path}/{file}", tmp_path / "store", edge_weights=column)


def test_sampling_draws_by_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, 50, (2, 2000))
    weights = np.where(src % 2, 0.0, 1.0)
    splits = {"train": np.arange(50)}
    source = gs.ArraySource((src, dst), x=np.ones((50, 2), np.float32), edge_weight=weights, splits=splits)
    store = gs.ingest(source, tmp_path / "store")
    made = gs.pack(store, tmp_path / "pack", fanouts=[5], batch_size=10, weights=store.edge_weights())
    with gs.Loader(made) as loader:
        drawn = [batch.n_id[batch.blocks[0].indices] for batch in loader]
    assert not (torch.cat(drawn) % 2).any()
