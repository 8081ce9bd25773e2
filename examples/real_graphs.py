"""GCN, GraphSAGE, GAT and an MLP that sees no edges, on five real graphs.

    GNNSYS_DATA=../shared/data python examples/real_graphs.py [photo computers dblp facebook chameleon]

Five random splits of 20 nodes to train on and 30 to validate on per class, the five seeds with them; Chameleon has ten
splits of its own. The same options everywhere; the best epoch is that of the validation nodes, and the learning rate
was chosen among 0.01 and 0.003 by those of two seeds.
"""

import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _results
import numpy as np

import gnnsys as gs

MODELS = {
    "gcn": {},
    "sage": {},
    "gat": {"heads": 8},
    "mlp": {},
}
TRAINING = {"epochs": 100, "eval_every": 10, "lr": 0.003, "weight_decay": 5e-4, "rows": "memory"}


@dataclass(frozen=True)
class Graph:
    """A data set, where it lies, how it is ingested and what others reached."""

    title: str
    path: str
    published: str
    seeds: int = 5
    given: bool = False
    """It has splits of its own."""

    def store(self, data: Path, out: Path, seed: int) -> gs.Store:
        path = data / "static" / self.path
        source: Any = facebook(path) if path.is_dir() else f"npz:{path}"
        if self.given:
            return gs.ingest(source, out, split=f"given:{seed}", undirected=True)
        options = {"split": "per-class:20/30", "split_seed": seed, "undirected": True, "no_self_loops": True}
        return gs.ingest(source, out, largest_component=True, **options)


GRAPHS = {
    "photo": Graph("Amazon Photo", "graphdata-amazon_photo/amazon_photo.npz", "DAGNN 92.0 ± 0.8; GLNN's SAGE >= 89"),
    "computers": Graph("Amazon Computers", "graphdata-amazon_cs/amazon_cs.npz", "DAGNN 84.5 ± 1.2"),
    "dblp": Graph("DBLP (citations)", "graphdata-dblp/dblp.npz", "none known"),
    "facebook": Graph("Facebook pages", "musae-facebook", "none known"),
    "chameleon": Graph(
        "Chameleon (filtered)", "yandex-chameleon_filtered/chameleon_filtered.npz", "none known", seeds=10, given=True
    ),
}


def facebook(folder: Path) -> gs.ArraySource:
    """Lists of features per page as rows of 0 and 1, made a thousand pages at a time."""
    features = json.loads((folder / "features.json").read_text())
    columns = 1 + max(max(ids, default=0) for ids in features.values())
    edges = np.loadtxt(folder / "edges.csv", delimiter=",", skiprows=1, dtype=np.int64).T
    with (folder / "target.csv").open() as file:
        kind = {int(row["id"]): row["page_type"] for row in csv.DictReader(file)}
    names = sorted(set(kind.values()))

    def rows() -> Iterator[np.ndarray]:
        for start in range(0, len(features), 1000):
            pages = range(start, min(start + 1000, len(features)))
            block = np.zeros((len(pages), columns), dtype=np.uint8)
            for i, page in enumerate(pages):
                block[i, features[str(page)]] = 1
            yield block

    return gs.ArraySource(edges, x=rows, y=np.array([names.index(kind[page]) for page in range(len(kind))]))


def score(store: gs.Store, model: str, seed: int, out: Path) -> float:
    """Test accuracy of the weights that were best on valid."""
    sizes = {"in_channels": store.table_columns("x"), "num_layers": 2, "out_channels": store.num_classes}
    run = gs.train(
        gs.build(model, **sizes, **MODELS[model], hidden_channels=64, dropout=0.5, seed=seed),
        store,
        task=gs.NodeClassification(store.num_classes),
        fanouts=[0, 0] if model == "mlp" else [10, 10],
        batch_size=len(store.split("train")),
        seed=seed,
        out=out,
        **TRAINING,
    )
    return run.metrics["test"]["acc"]


def main(name: str, data: Path, work: Path) -> None:
    graph = GRAPHS[name]
    stores = [graph.store(data, work / f"store-{seed}", seed) for seed in range(graph.seeds)]
    for model in MODELS:
        started = time.perf_counter()
        scores = [score(store, model, seed, work / f"{model}-{seed}") for seed, store in enumerate(stores)]
        _results.save(
            __file__,
            variant=f"{name}-{model}",
            name=f"{graph.title}, {model} 2 x 64",
            setting="ten given splits" if graph.given else "20 / 30 per class, largest component, 5 seeds",
            goal=f"published: {graph.published}",
            values=scores,
            seconds=time.perf_counter() - started,
        )


if __name__ == "__main__":
    folder, _ = _results.arguments([], default="")
    for each in sys.argv[1:] or GRAPHS:
        with tempfile.TemporaryDirectory(prefix="gnnsys-example-") as scratch:
            main(each, folder, Path(scratch))
