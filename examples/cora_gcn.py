"""GCN on Cora with the public split: full neighbourhoods, five seeds, in float32 and with bfloat16 products.

    python examples/cora_gcn.py ../shared/data/static/planetoid-cora/cora.npz

The graph is small; the point is that the same calls train on a graph that is not.
"""

import statistics
import sys
import time
from pathlib import Path

import _results

import gnnsys as gs

SEEDS = range(5)


def scores(store: gs.Store, work: Path, precision: str) -> list[float]:
    """Test accuracy of every seed."""
    found = []
    for seed in SEEDS:
        model = gs.build(
            "gcn",
            in_channels=store.table_columns("x"),
            hidden_channels=64,
            num_layers=2,
            out_channels=store.num_classes,
            dropout=0.5,
            seed=seed,
        )
        run = gs.train(
            model,
            gs.Loader(store, fanouts=[-1, -1], batch_size=140, seed=seed),
            task=gs.NodeClassification(store.num_classes),
            epochs=200,
            lr=0.01,
            weight_decay=5e-4,
            precision=precision,
            seed=seed,
            out=work / f"run-{precision}-{seed}",
        )
        found.append(run.metrics["test"]["acc"])
        print(
            f"{precision}, seed {seed}: test accuracy {found[-1]:.2%} at epoch {run.result['best_epoch']}", flush=True
        )
    return found


def main(data: Path, work: Path) -> None:
    store = gs.ingest(f"npz:{data}", work / "store", normalize_features="row")
    setting, started = "public split, rows sum to 1, 5 seeds, accuracy", time.perf_counter()
    exact = scores(store, work, "f32")
    _results.save(
        __file__,
        name="Cora, GCN 2 x 64",
        setting=setting,
        goal=">= 80.5 %",
        values=exact,
        seconds=time.perf_counter() - started,
    )
    started = time.perf_counter()
    _results.save(
        __file__,
        variant="bf16",
        name="Cora, GCN 2 x 64, bf16",
        setting=f"the same; float32: {_results.mean_and_deviation(exact)}",
        goal=f">= {statistics.mean(exact) - 0.005:.2%}, float32 less 0.5 points",
        values=scores(store, work, "bf16"),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main(*_results.arguments(sys.argv, default="static/planetoid-cora/cora.npz"))
