"""SAGE on Tolokers, ten given splits: two classes of unequal size, so the metric is ROC AUC.

    python examples/tolokers_sage.py ../shared/data/static/yandex-tolokers/tolokers.npz

The file stores every undirected edge once; `undirected=True` adds the reverses.
"""

import sys
import time
from pathlib import Path

import _results

import gnnsys as gs

SPLITS = range(10)


def main(data: Path, work: Path) -> None:
    scores, started = [], time.perf_counter()
    for split in SPLITS:
        store = gs.ingest(f"npz:{data}", work / f"store-{split}", split=f"given:{split}", undirected=True)
        model = gs.build(
            "sage",
            in_channels=store.table_columns("x"),
            hidden_channels=128,
            num_layers=3,
            out_channels=store.num_classes,
            dropout=0.2,
            seed=split,
        )
        run = gs.train(
            model,
            gs.Loader(store, fanouts=[10, 5, 5], batch_size=1024, seed=split),
            task=gs.NodeClassification(store.num_classes, metric="rocauc"),
            epochs=80,
            lr=0.01,
            eval_every=5,
            seed=split,
            out=work / f"run-{split}",
        )
        scores.append(run.metrics["test"]["rocauc"])
        print(f"split {split}: test ROC AUC {scores[-1]:.4f} at epoch {run.result['best_epoch']}")
    _results.save(
        __file__,
        name="Tolokers, SAGE 3 x 128",
        setting="ten given splits, undirected, ROC AUC",
        goal=">= 81 %",
        values=scores,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main(*_results.arguments(sys.argv, default="static/yandex-tolokers/tolokers.npz"))
