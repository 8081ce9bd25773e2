"""MAG240M's own folder, written small in its exact layout and read beside the ogb package itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnsys.errors import InputDataError
from gnnsys.ingestion import ingest
from gnnsys.storage.store import Store

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),  # ogb imports torch_geometric
]

Edges = Callable[[Store], list[tuple[int, int]]]
NODES, EDGES, COLUMNS = 40, 150, 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "mag240m_kddcup2021"
    papers, cites = folder / "processed/paper", folder / "processed/paper___cites___paper"
    papers.mkdir(parents=True)
    cites.mkdir()
    (folder / "RELEASE_v1.txt").touch()
    np.save(papers / "node_feat.npy", rng.normal(size=(NODES, COLUMNS)).astype(np.float16))
    y = rng.integers(0, 5, NODES).astype(np.float32)
    ids = rng.permutation(NODES)
    y[ids[15:]] = np.nan  # the test nodes and those without a label
    np.save(papers / "node_label.npy", y)
    np.save(papers / "node_year.npy", rng.integers(2000, 2020, NODES))
    np.save(cites / "edge_index.npy", rng.integers(0, NODES, (2, EDGES)))
    meta = {"paper": NODES, "author": 7, "institution": 3, "num_classes": 6}
    torch.save(meta, folder / "meta.pt")
    split = {"train": ids[:10], "valid": ids[10:15], "test-dev": ids[15:25], "test-challenge": ids[25:30]}
    split["test-whole"] = ids[15:30]
    torch.save(split, folder / "split_dict.pt")
    return tmp_path


def test_the_store_holds_what_ogb_reads(
    root: Path, tmp_path: Path, edges_of: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ogb.lsc import MAG240MDataset

    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path: load(path, weights_only=False))  # as ogb was written for
    theirs = MAG240MDataset(str(root))
    store = ingest(f"ogb:mag240m:{root}", tmp_path / "s")
    edges = theirs.edge_index("paper", "cites", "paper")
    assert edges_of(store) == sorted(zip(*edges.tolist(), strict=True), key=lambda edge: (edge[1], edge[0]))
    x = store.table().read(np.arange(NODES))
    assert x.dtype == np.float16
    assert np.array_equal(x, theirs.paper_feat)
    assert np.array_equal(store.labels(), np.where(np.isnan(theirs.paper_label), -1, theirs.paper_label))
    assert (store.num_nodes, store.num_classes) == (theirs.num_papers, theirs.num_classes)
    assert {n: store.split(n).tolist() for n in store.split_names} == {
        n: sorted(theirs.get_idx_split(n)) for n in ("train", "valid", "test-dev", "test-challenge")
    }


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta.pt", {"author": 7}, "does not say 'paper'"),
        ("meta.pt", {"paper": NODES + 1, "num_classes": 6}, f"x has {NODES} rows for {NODES + 1} nodes"),
        ("split_dict.pt", {"valid": np.arange(3)}, "has no array 'train'"),
        ("split_dict.pt", {"train": 3, "valid": np.arange(3)}, "has no array 'train'"),
    ],
)
def test_what_is_wrong_is_named(file: str, content: object, message: str, root: Path, tmp_path: Path) -> None:
    torch.save(content, root / "mag240m_kddcup2021" / file)
    with pytest.raises(InputDataError, match=message):
        ingest(f"ogb:mag240m:{root}", tmp_path / "s")


def test_edges_of_another_shape_are_refused(root: Path, tmp_path: Path) -> None:
    path = root / "mag240m_kddcup2021/processed/paper___cites___paper/edge_index.npy"
    np.save(path, np.load(path).T.copy())
    with pytest.raises(InputDataError, match=r"expected integers \(2, E\)"):
        ingest(f"ogb:mag240m:{root}", tmp_path / "s")
