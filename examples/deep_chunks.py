"""Deep networks on whole graphs: in chunks through history, against exact training (one chunk).

    python examples/deep_chunks.py [GRAPH [DATA_FOLDER [WORK_FOLDER]]]      GRAPH: cora | chameleon | coauthor

Three seeds each, and all ten splits of Chameleon, which differ among themselves; every difference is that of two means
over the same seeds. A seed that the drift guard stops has no score in either, and the table says so.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _results

import gnnsys as gs
from gnnsys.errors import GnnsysError

MODELS = [("gcnii", 16), ("resgcn", 16), ("gcnii", 32), ("resgcn", 32)]


@dataclass(frozen=True)
class Graph:
    """A data set, how it is split, and how a network is trained on it."""

    title: str
    file: str
    ingest: dict[str, Any]
    split: str
    chunks: int
    epochs: int
    seeds: int = 3

    def store(self, data: Path, folder: Path, seed: int) -> gs.Store:
        options = {key: value.format(seed=seed) if key == "split" else value for key, value in self.ingest.items()}
        if self.split.startswith("20"):
            options["split_seed"] = seed
        return gs.ingest(f"npz:{data / self.file}", folder, **options)


GRAPHS = {
    "cora": Graph(
        "Cora",
        "static/planetoid-cora/cora.npz",
        {"undirected": True, "normalize_features": "row"},
        "public split",
        chunks=8,
        epochs=200,
    ),
    "chameleon": Graph(
        "Chameleon (filtered)",
        "static/yandex-chameleon_filtered/chameleon_filtered.npz",
        {"split": "given:{seed}"},
        "ten given splits",
        chunks=4,
        epochs=200,
        seeds=10,
    ),
    "coauthor": Graph(
        "Coauthor-CS",
        "static/graphdata-coauthor_cs/coauthor_cs.npz",
        {"split": "per-class:20/30", "undirected": True},
        "20 / 30 per class",
        chunks=8,
        epochs=30,
    ),
}


def score(graph: Graph, store: gs.Store, model: str, layers: int, chunks: int, seed: int, out: Path) -> float:
    """Test accuracy of the weights that were best on valid."""
    network = gs.build(
        model,
        in_channels=store.table_columns("x"),
        hidden_channels=64,
        num_layers=layers,
        out_channels=store.num_classes,
        dropout=0.5,
        seed=seed,
    )
    run = gs.train(
        network,
        store,
        task=gs.NodeClassification(store.num_classes),
        layers=layers,
        chunks=chunks,
        epochs=graph.epochs,
        eval_every=10,
        lr=0.01,
        weight_decay=5e-4,
        seed=seed,
        threads=1,
        out=out,
    )
    return run.metrics["test"]["acc"]


def main(name: str, data: Path, work: Path) -> None:
    graph = GRAPHS[name]
    stores = [graph.store(data, work / f"store-{seed}", seed) for seed in range(graph.seeds)]
    for model, layers in MODELS:
        started = time.perf_counter()
        pairs: list[tuple[float, float]] = []
        stopped = ""
        for seed, store in enumerate(stores):
            run = work / f"{model}-{layers}-{seed}"
            exact = score(graph, store, model, layers, 1, seed, run.with_suffix(".exact"))
            try:
                pairs.append(
                    (exact, score(graph, store, model, layers, graph.chunks, seed, run.with_suffix(".chunks")))
                )
            except GnnsysError as error:
                if error.code != "GS-PIPE-003":
                    raise
                stopped += f"; seed {seed} was stopped: {error.message}"
            print(f"{model} {layers}, seed {seed}: exact {exact:.2%}, exact and chunks so far {pairs}", flush=True)
        if not pairs:
            print(f"{model} {layers}: no score{stopped}", flush=True)
            continue
        exacts = [exact for exact, _ in pairs]
        _results.save(
            __file__,
            variant=f"{name}-{model}-{layers}",
            name=f"{graph.title}, {model} {layers} x 64 in {graph.chunks} chunks",
            setting=f"{graph.split}; exact: {_results.mean_and_deviation(exacts)}{stopped}",
            goal=f">= {statistics.mean(exacts) - 0.005:.2%}, exact less 0.5 points",
            values=[chunked for _, chunked in pairs],
            seconds=time.perf_counter() - started,
        )


if __name__ == "__main__":
    chosen = sys.argv[1:2] or list(GRAPHS)
    for each in chosen:
        main(each, *_results.arguments(sys.argv[1:], default=""))
