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

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),  # ogb imports torch_geometric
]

Edges = Callable[[Store], list[tuple[int, int]]]
NODES, EDGES, COLUMNS = 50, 180, 6
NAMES = ["ogbn-arxiv", "ogbn-products", "ogbn-mag", "ogbn-papers100M"]


def text(path: Path, array: np.ndarray, header: str = "") -> None:
    """A .csv.gz as OGB ships them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(",".join(str(value) for value in row) + "\n" for row in np.atleast_2d(array).tolist())
    with gzip.open(path, "wt") as file:
        file.write((header + "\n" if header else "") + rows)


def column(values: Any) -> np.ndarray:
    return np.asarray(values).reshape(-1, 1)


def splits(folder: Path) -> None:
    ids = np.random.default_rng(1).permutation(NODES)
    for name, part in zip(("train", "valid", "test"), np.split(ids, [20, 30]), strict=True):
        text(folder / f"{name}.csv.gz", column(part))


def values() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges (E, 2), features and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NODES, COLUMNS)).astype(np.float32)
    return rng.integers(0, NODES, (EDGES, 2)), x, rng.integers(0, 5, NODES)


def homogeneous(folder: Path, split: str, version: int) -> None:
    edges, x, y = values()
    (folder / "raw").mkdir(parents=True)
    (folder / f"RELEASE_v{version}.txt").touch()
    for name, array in {
        "edge": edges,
        "node-feat": x,
        "node-label": column(y),
        "node_year": column(y + 2000),
        "num-node-list": column([NODES]),
        "num-edge-list": column([EDGES]),
    }.items():
        text(folder / "raw" / f"{name}.csv.gz", array)
    splits(folder / "split" / split)


def papers(folder: Path) -> None:
    """Archives in place of text, and labels that most nodes lack."""
    edges, x, y = values()
    (folder / "raw").mkdir(parents=True)
    (folder / "RELEASE_v1.txt").touch()
    counts = {"num_nodes_list": np.array([NODES]), "num_edges_list": np.array([EDGES])}
    years = column(y + 2000)
    np.savez_compressed(folder / "raw/data.npz", edge_index=edges.T.copy(), node_feat=x, node_year=years, **counts)
    np.savez_compressed(folder / "raw/node-label.npz", node_label=np.where(column(y) > 1, np.nan, column(y)))
    splits(folder / "split/time")


def mag(folder: Path) -> None:
    edges, x, y = values()
    raw = folder / "raw"
    (raw / "relations").mkdir(parents=True)
    (folder / "RELEASE_v2.txt").touch()
    text(raw / "num-node-dict.csv.gz", np.array([7, NODES]), header="author,paper")
    text(raw / "nodetype-has-feat.csv.gz", np.array([False, True]), header="author,paper")
    text(raw / "nodetype-has-label.csv.gz", np.array([False, True]), header="author,paper")
    triplets = [["author", "writes", "paper"], ["paper", "cites", "paper"]]
    text(raw / "triplet-type-list.csv.gz", np.array(triplets))
    writes = np.stack([np.arange(EDGES) % 7, edges[:, 1]], axis=1)
    for triplet, pairs, relation in zip(triplets, (writes, edges), (0, 1), strict=True):
        relations = raw / "relations" / "___".join(triplet)
        text(relations / "edge.csv.gz", pairs)
        text(relations / "num-edge-list.csv.gz", column([EDGES]))
        text(relations / "edge_reltype.csv.gz", column([relation] * EDGES))
    text(raw / "node-feat/paper/node-feat.csv.gz", x)
    text(raw / "node-feat/paper/node_year.csv.gz", column(y + 2000))
    text(raw / "node-label/paper/node-label.csv.gz", column(y))
    text(folder / "split/time/nodetype-has-split.csv.gz", np.array([False, True]), header="author,paper")
    splits(folder / "split/time/paper")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All data sets, as ogb leaves them."""
    homogeneous(tmp_path / "ogbn_arxiv", "time", version=1)
    homogeneous(tmp_path / "ogbn_products", "sales_ranking", version=1)
    papers(tmp_path / "ogbn_papers100M")
    mag(tmp_path / "ogbn_mag")
    for folder in tmp_path.iterdir():
        (folder / "processed").mkdir()
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
    """Of the archive only the number of nodes is unpacked."""
    from gnnsys.ingestion.ogb import OgbSource

    written: list[str] = []
    source = OgbSource("ogbn-papers100M", root)
    prepare = source.prepare

    def watched(job: Any) -> None:
        prepare(job)
        written.extend(path.name for path in job.stage.work.iterdir() if "member" in path.name)

    source.prepare = watched  # type: ignore[method-assign]
    ingest(source, tmp_path / "s")
    assert written == ["member-num_nodes_list.bin"]


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


def _longer_row(path: Path) -> None:
    text(path, np.array([1, 2]))
    with gzip.open(path, "at") as file:
        file.write("1,2,3\n")


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("raw/edge.csv.gz", Path.unlink, "no such file"),
        ("raw/edge.csv.gz", _cut, "cannot be unpacked"),
        ("raw/edge.csv.gz", _longer_row, "Expected 2 fields in line 2, saw 3"),
        ("raw/edge.csv.gz", lambda path: text(path, np.array([["a", "b"]])), "after row 0"),
        ("raw/edge.csv.gz", lambda path: text(path, np.array([[1], [2]])), r"expected integers \(2, 2\)"),
        ("raw/edge.csv.gz", lambda path: text(path, np.array([[1, NODES]])), "outside"),
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


def test_unknown_names_are_answered_with_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean ogbn-arxiv"):
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


def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ogb.utils import url

    def fail(address: str) -> bool:
        raise OSError("no route to host")

    monkeypatch.setattr(url, "decide_download", fail)
    with pytest.raises(InputDataError, match="no route to host") as caught:
        ingest(f"ogb:ogbn-arxiv:{tmp_path / 'home'}", tmp_path / "s")
    assert "ogb:NAME:ROOT" in caught.value.hint
    assert list((tmp_path / "home").iterdir()) == []
