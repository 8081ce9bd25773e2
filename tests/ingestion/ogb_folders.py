"""Folders in the exact layouts of OGB's downloads, of a few KiB."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

NODES, EDGES, COLUMNS = 50, 180, 6


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


def proteins(folder: Path) -> None:
    """Features of edges in place of those of nodes, and 112 answers for every node."""
    edges, _, _ = values()
    rng = np.random.default_rng(2)
    (folder / "raw").mkdir(parents=True)
    (folder / "RELEASE_v1.txt").touch()
    for name, array in {
        "edge": edges,
        "edge-feat": rng.random((EDGES, 8)).astype(np.float32),
        "node-label": rng.integers(0, 2, (NODES, 112)),
        "node_species": column([9606] * NODES),
        "num-node-list": column([NODES]),
        "num-edge-list": column([EDGES]),
    }.items():
        text(folder / "raw" / f"{name}.csv.gz", array)
    splits(folder / "split/species")


def papers(folder: Path, x: np.ndarray | None = None) -> None:
    """Archives in place of text, and labels that most nodes lack."""
    edges, usual, y = values()
    x = usual if x is None else x
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


def all_sets(root: Path) -> None:
    """Every data set below `root`, as ogb leaves them."""
    homogeneous(root / "ogbn_arxiv", "time", version=1)
    homogeneous(root / "ogbn_products", "sales_ranking", version=1)
    proteins(root / "ogbn_proteins")
    papers(root / "ogbn_papers100M")
    mag(root / "ogbn_mag")
    for folder in root.iterdir():
        (folder / "processed").mkdir()
