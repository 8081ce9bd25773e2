"""OGB's own folders, written small in their exact layouts and read beside the ogb package itself."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion import ingest
from gnnsys.storage.store import Store
from tests.ingestion.ogb_folders import EDGES, NODES, all_sets, column, text

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:GS-IN-137"),  # of ogbn-mag, asked for in a test of its own
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),  # ogb imports torch_geometric
]

Edges = Callable[[Store], list[tuple[int, int]]]
NAMES = ["ogbn-arxiv", "ogbn-products", "ogbn-mag", "ogbn-papers100M"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    all_sets(tmp_path)
    return tmp_path


def by_ogb(name: str, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """What ogb reads: edges (2, E), features, labels and splits; of mag the papers."""
    from ogb.nodeproppred import NodePropPredDataset

    dataset = NodePropPredDataset(name, root=str(root))
    graph, labels = dataset[0]
    split = dataset.get_idx_split()
    if name == "ogbn-mag":
        cites = graph["edge_index_dict"]["paper", "cites", "paper"]
        return cites, graph["node_feat_dict"]["paper"], labels["paper"], {k: v["paper"] for k, v in split.items()}
    return graph["edge_index"], graph["node_feat"], labels, split


@pytest.mark.parametrize("memory", [4000, "4GiB"])
@pytest.mark.parametrize("name", NAMES)
def test_the_store_holds_what_ogb_reads(
    name: str, memory: int | str, root: Path, tmp_path: Path, edges_of: Edges
) -> None:
    store = ingest(f"ogb:{name}:{root}", tmp_path / "s", memory=memory)
    edge_index, x, labels, split = by_ogb(name, root)
    assert edges_of(store) == sorted(zip(*edge_index.tolist(), strict=True), key=lambda edge: (edge[1], edge[0]))
    assert np.array_equal(store.table().read(np.arange(NODES)), x)
    expected = np.where(np.isnan(labels), -1, labels) if labels.dtype.kind == "f" else labels
    assert np.array_equal(store.labels(), expected[:, 0])
    assert {n: store.split(n).tolist() for n in store.split_names} == {n: sorted(ids) for n, ids in split.items()}


@pytest.mark.parametrize(("name", "split"), [("ogbn-arxiv", "split/time"), ("ogbn-mag", "split/time")])
def test_a_pickled_split_takes_precedence_as_in_ogb(name: str, split: str, root: Path, tmp_path: Path) -> None:
    ids = {"train": np.array([3, 1]), "valid": np.array([0]), "test": np.array([9, 7, 8])}
    nested = {key: {"paper": part} for key, part in ids.items()} if name == "ogbn-mag" else ids
    torch.save(nested, root / name.replace("-", "_") / split / "split_dict.pt")
    store = ingest(f"ogb:{name}:{root}", tmp_path / "s")
    assert {n: store.split(n).tolist() for n in store.split_names} == {n: sorted(part) for n, part in ids.items()}


def test_an_archive_is_streamed_and_takes_no_scratch(root: Path, tmp_path: Path) -> None:
    """Of the archive only the numbers of nodes and edges are unpacked."""
    from gnnsys.ingestion.ogb import OgbSource

    written: list[str] = []
    source = OgbSource("ogbn-papers100M", root)
    prepare = source.prepare

    def watched(job: Any) -> None:
        prepare(job)
        written.extend(path.name for path in job.stage.work.iterdir() if "member" in path.name)

    source.prepare = watched  # type: ignore[method-assign]
    ingest(source, tmp_path / "s")
    assert sorted(written) == ["member-num_edges_list.bin", "member-num_nodes_list.bin"]


@pytest.mark.parametrize("memory", ["64KiB", "4GiB"])
def test_proteins_are_answers_and_means_of_edges(memory: str, root: Path, tmp_path: Path, edges_of: Edges) -> None:
    """ogb repeats the features of an edge for its reverse; a node has the mean of those that reach it."""
    from ogb.nodeproppred import NodePropPredDataset

    store = ingest(f"ogb:ogbn-proteins:{root}", tmp_path / "s", memory=memory)
    dataset = NodePropPredDataset("ogbn-proteins", root=str(root))
    graph, labels = dataset[0]
    edge_index, features = graph["edge_index"], graph["edge_feat"].astype(np.float64)
    assert edges_of(store) == sorted(zip(*edge_index.tolist(), strict=True), key=lambda edge: (edge[1], edge[0]))
    means = [features[edge_index[1] == v].mean(axis=0) if (edge_index[1] == v).any() else 0 for v in range(NODES)]
    expected = np.stack([np.broadcast_to(mean, 8) for mean in means])
    assert np.allclose(store.table().read(np.arange(NODES)), expected, rtol=1e-6, atol=0)
    assert np.array_equal(store.labels(), labels.astype(np.float32))
    found = dataset.get_idx_split()
    assert {n: store.split(n).tolist() for n in store.split_names} == {n: sorted(ids) for n, ids in found.items()}


def test_as_many_edge_features_as_edges(root: Path, tmp_path: Path) -> None:
    text(root / "ogbn_proteins/raw/edge-feat.csv.gz", np.ones((EDGES - 1, 8)))
    with pytest.raises(InputDataError, match=f"{EDGES - 1} rows for {EDGES} edges"):
        ingest(f"ogb:ogbn-proteins:{root}", tmp_path / "s")


def test_reverse_edges_are_numbered_as_by_ogb(root: Path) -> None:
    """Edge 2i is the raw edge i, 2i + 1 its reverse, wherever a block begins."""
    from gnnsys.ingestion.ogb import OgbSource

    edge_index = by_ogb("ogbn-products", root)[0]
    source = OgbSource("ogbn-products", root)
    ingest(source, root / "s")
    assert source.num_edges == 2 * EDGES
    for start, stop in [(0, 2 * EDGES), (1, 2), (3, 8), (4, 7), (2 * EDGES - 1, 2 * EDGES), (5, 5)]:
        assert np.array_equal(np.stack(source.edges(start, stop)), edge_index[:, start:stop])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _page(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def _longer_row(path: Path) -> None:
    text(path, np.array([1, 2]))
    with gzip.open(path, "at") as file:
        file.write("1,2,3\n")


def _half(path: Path) -> None:
    text(path, np.zeros((EDGES // 2, 2), dtype=np.int64))


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("raw/edge.csv.gz", Path.unlink, "no such file"),
        ("raw/edge.csv.gz", _cut, "cannot be unpacked"),
        ("raw/node-label.csv.gz", _page, r"GS-IN-108: .*node-label.csv.gz: (?s:.*)Download it again"),
        ("raw/edge.csv.gz", _longer_row, "Expected 2 fields in line 2, saw 3"),
        ("raw/edge.csv.gz", lambda path: text(path, np.array([["a", "b"]])), "after row 0"),
        ("raw/edge.csv.gz", lambda path: text(path, np.array([[1], [2]])), r"expected integers \(2, 2\)"),
        ("raw/edge.csv.gz", lambda path: text(path, np.full((EDGES, 2), NODES)), "outside"),
        ("raw/edge.csv.gz", _half, "GS-IN-136: .*90 edges, num-edge-list.csv.gz says 180"),
        ("raw/node-feat.csv.gz", lambda path: text(path, np.zeros((3, 2))), f"3 rows for {NODES} nodes"),
        ("raw/num-node-list.csv.gz", lambda path: text(path, column([20, 30])), "2 graphs, expected one"),
        ("split/time/train.csv.gz", Path.unlink, "no such file"),
        ("split/time/split_dict.pt", lambda path: path.write_bytes(b""), "cannot be read"),
        ("split/time/split_dict.pt", lambda path: torch.save({"train": np.arange(3)}, path), "has no array 'valid'"),
    ],
)
def test_what_is_wrong_is_named(
    file: str, harm: Callable[[Path], None], message: str, root: Path, tmp_path: Path
) -> None:
    harm(root / "ogbn_arxiv" / file)
    with pytest.raises(InputDataError, match=message):
        ingest(f"ogb:ogbn-arxiv:{root}", tmp_path / "s")


def test_edges_of_mag_and_of_an_archive_are_counted_too(root: Path, tmp_path: Path) -> None:
    _half(root / "ogbn_mag/raw/relations/paper___cites___paper/edge.csv.gz")
    with pytest.raises(InputDataError, match=r"GS-IN-136: .*90 edges"):
        ingest(f"ogb:ogbn-mag:{root}", tmp_path / "mag")
    with np.load(root / "ogbn_papers100M/raw/data.npz") as held:
        members = dict(held)
    np.savez(root / "ogbn_papers100M/raw/data.npz", **{**members, "edge_index": members["edge_index"][:, :7]})
    with pytest.raises(InputDataError, match=r"GS-IN-136: .*7 edges, num_edges_list says 180"):
        ingest(f"ogb:ogbn-papers100M:{root}", tmp_path / "papers")


def test_what_of_mag_is_left_out_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="GS-IN-137: of ogbn-mag .* left out are authors") as warned:
        ingest(f"ogb:ogbn-mag:{root}", tmp_path / "s")
    assert warned[0].filename == __file__


def test_a_download_that_does_not_count_its_edges_is_taken(root: Path, tmp_path: Path) -> None:
    (root / "ogbn_arxiv/raw/num-edge-list.csv.gz").unlink()
    assert ingest(f"ogb:ogbn-arxiv:{root}", tmp_path / "s").num_edges == EDGES


def test_the_folder_of_the_data_set_itself_is_answered_with_its_parent(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "ogbn_arxiv")
    for given in (root / "ogbn_arxiv", "."):
        with pytest.raises(InputDataError, match=f"(?s)GS-IN-135.*Write ogb:ogbn-arxiv:{root}\\.$"):
            ingest(f"ogb:ogbn-arxiv:{given}", tmp_path / "s")


def test_unknown_names_are_answered_with_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-115.*did you mean ogbn-arxiv"):
        ingest("ogb:ogbn-arxive", "s")


def test_a_missing_folder_is_downloaded_by_ogb(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The archive holds the folder under the name that ogb's own table gives."""
    import shutil

    from ogb.utils import url

    home, packed = tmp_path / "home", tmp_path / "packed"
    shutil.copytree(root / "ogbn_arxiv", packed / "arxiv")
    archive = shutil.make_archive(str(tmp_path / "arxiv"), "zip", packed)
    monkeypatch.setattr(url, "decide_download", lambda address: True)
    monkeypatch.setattr(url, "download_url", lambda address, folder: shutil.copy(archive, folder))
    downloaded = ingest(f"ogb:ogbn-arxiv:{home}", tmp_path / "a")
    assert [path.name for path in home.iterdir()] == ["ogbn_arxiv"]
    assert downloaded.digest == ingest(f"ogb:ogbn-arxiv:{root}", tmp_path / "b").digest
    said = capsys.readouterr()
    assert "ogb downloads ogbn-arxiv from http" in said.err
    assert said.out == ""


@pytest.mark.parametrize("kept", [False, True])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders that were there before stay."""
    from ogb.utils import url

    def fail(address: str) -> bool:
        raise OSError("no route to host")

    home = tmp_path / "my" / "home"
    if kept:
        home.mkdir(parents=True)
    monkeypatch.setattr(url, "decide_download", fail)
    with pytest.raises(InputDataError, match="no route to host") as caught:
        ingest(f"ogb:ogbn-arxiv:{home}", tmp_path / "s")
    assert f"looked for in {home}" in caught.value.hint
    assert list(tmp_path.rglob("*")) == ([home.parent, home] if kept else [])


def test_a_declined_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ogb.utils import url

    monkeypatch.setattr(url, "decide_download", lambda address: False)
    with pytest.raises(ConfigError, match="GS-CFG-116"):
        ingest(f"ogb:ogbn-arxiv:{tmp_path / 'home'}", tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
