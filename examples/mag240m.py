"""GraphSAGE on the papers of MAG240M, citations made undirected: accuracy on valid and the files that OGB-LSC asks for.

    python examples/mag240m.py dataset          --epochs, --work, --memory, --seed

`dataset` is the folder that ogb keeps its downloads in. The labels of `test-dev` and `test-challenge` are not in the
download: their predictions are written by ogb's own evaluator into `WORK/submission`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ogb.lsc import MAG240MEvaluator

import gnnsys as gs

HIDDEN = ("test-dev", "test-challenge")


def main(given: argparse.Namespace) -> None:
    store = gs.ingest(f"ogb:mag240m:{given.root}", given.work / "store", undirected=True, memory=given.memory)
    pack = gs.pack(store, given.work / "pack", fanouts=[15, 10], batch_size=1024, memory=given.memory)
    model = gs.build(
        "sage",
        in_channels=store.table_columns("x"),
        hidden_channels=512,
        num_layers=2,
        out_channels=store.num_classes,
        dropout=0.5,
        seed=given.seed,
    )
    run = gs.train(
        model,
        pack,
        task=gs.NodeClassification(store.num_classes),
        epochs=given.epochs,
        seed=given.seed,
        memory=given.memory,
        out=given.work / "run",
    )
    print(f"valid accuracy {run.metrics['valid']['acc']:.2%}")
    for split in HIDDEN:
        submit(run, store, split, given.root, given.work)


def submit(run: gs.Run, store: gs.Store, split: str, root: Path, work: Path) -> None:
    """Predictions of a hidden split in ogb's order, which need not be that of node numbers."""
    file = work / f"{split}.npy"
    run.predict(file, split=split, replace=True)
    with torch.serialization.safe_globals(NUMPY):
        asked = torch.load(root / "mag240m_kddcup2021" / "split_dict.pt", weights_only=True)[split]
    classes = np.load(file)[np.searchsorted(store.split(split), asked)]
    MAG240MEvaluator().save_test_submission({"y_pred": classes}, str(work / "submission"), split)
    print(f"{split}: {len(classes):,} predictions in {work / 'submission'}")


NUMPY = [np.ndarray, np.dtype, np.dtypes.Int64DType, np._core.multiarray._reconstruct]
"""What an array in a `.pt` file is made with."""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="papers of MAG240M")
    parser.add_argument("root", type=Path, nargs="?", default=Path("dataset"))
    parser.add_argument("--work", type=Path, default=Path("out/mag240m"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", default="32GiB")
    main(parser.parse_args())
