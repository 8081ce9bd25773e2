"""One small artefact of every kind, made once: what corruption and fuzz tests damage copies of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import gnnsys as gs
from gnnsys.cli.inspect import problems_of
from gnnsys.training.checkpoint import Checkpoints
from gnnsys.training.folder import BEST, CONFIG, FINAL, read_json, read_result
from gnnsys.training.tensors import read_weights

NODES, COLUMNS, CLASSES = 300, 20, 3


def make_golden(folder: Path, seed: int = 0) -> None:
    """In `folder`: `store` (with names, additions), `pool`, `pack`, `folded` (pre-aggregated), `run`."""
    rng = np.random.default_rng(seed)
    rows = [f"n{i}\tn{(i + 1) % NODES}\n" for i in range(NODES)]
    rows += [f"n{a}\tn{b}\n" for a, b in rng.integers(0, NODES, (4 * NODES, 2)).tolist()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "edges.tsv").write_text("".join(rows))
    np.save(folder / "x.npy", rng.normal(size=(NODES, COLUMNS)).astype(np.float32))
    np.save(folder / "y.npy", np.arange(NODES) % CLASSES)
    store = gs.ingest(
        f"edges:{folder / 'edges.tsv'}",
        folder / "store",
        features=folder / "x.npy",
        labels=folder / "y.npy",
        split="per-class:20/20",
        memory="64MiB",
    )
    emb, mine = rng.normal(size=(NODES, 4)).astype(np.float32), np.arange(0, NODES, 7)
    store = gs.add(store, tables={"emb": emb}, splits={"mine": mine}, memory="64MiB")
    sampled = {"fanouts": [4, 3], "batch_size": 16, "seed": 1, "memory": "64MiB"}
    gs.sample(store, folder / "pool", **sampled).close()
    gs.pack(store, folder / "folded", layout="pre-aggregated", aggregate="mean", **sampled).close()
    pack = gs.pack(store, folder / "pack", **sampled)
    torch.manual_seed(seed)
    model = gs.build("sage", in_channels=COLUMNS, hidden_channels=8, num_layers=2, out_channels=CLASSES, seed=seed)
    task = gs.NodeClassification(CLASSES)
    options = {"epochs": 2, "threads": 1, "workers": 1, "memory": "512MiB", "checkpoint_steps": 2}
    gs.train(model, pack, task=task, out=folder / "run", **options)
    pack.close()


KINDS = ("store", "pool", "pack", "folded", "run")


def read_everything(kind: str, path: Path) -> None:
    """Read what a user of the artefact at `path` would, each thing once; its own store lies beside it."""
    if kind == "store":
        _read_store(gs.Store.open(path))
    elif kind == "run":
        _read_run(path)
    else:
        with gs.Loader(path, store=path.parent / "store", workers=1) as loader:
            for _ in loader:
                pass
        if kind in ("pack", "folded"):
            str(gs.Pack.open(path).plan)


def _read_store(store: gs.Store) -> None:
    ids = np.arange(store.num_nodes)
    _ = store.graph, store.labels(), [store.split(name) for name in store.split_names]
    if store.has_names:
        store.names(ids)
    for name in store.table_names:
        for backend in ("mapped", "direct", "memory"):
            table = store.table(name, backend)
            table.read(ids)
            table.close()


def _read_run(path: Path) -> None:
    """What evaluation and resuming read."""
    config, result = read_json(path / CONFIG), read_result(path)
    checkpoints = Checkpoints(path / "checkpoints", config["digest"])
    for name in checkpoints.candidates():
        checkpoints.load(name)
    if result is not None:
        for name in (BEST, FINAL):
            model = gs.build("sage", in_channels=COLUMNS, hidden_channels=8, num_layers=2, out_channels=CLASSES)
            read_weights(model, path / name, result["files"][name])


def all_problems(path: Path, deep: bool) -> list[str]:
    """What `gnnsys verify` says."""
    return problems_of(path, deep=deep)
