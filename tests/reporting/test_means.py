"""Which of several runs have a mean: those of one experiment, of which only seeds or the version of a split differ."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.reporting.report import report
from gnnsys.training.folder import read_json, write_json
from gnnsys.training.run import train_from_config

pytestmark = pytest.mark.filterwarnings("ignore:GS-CFG-975")

NODES, EDGES = 300, 2000
DRAWN: dict[str, Any] = {"fanouts": [3, 3], "batch_size": 64, "memory": "64MiB"}


class Runs:
    """Trains a run per name of what it reads and options, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        orders = [rng.permutation(NODES) for _ in range(2)]
        splits = [
            {"train": order[:150], "half": order[:75], "valid": order[150:220], "test": order[220:]} for order in orders
        ]
        source = gs.ArraySource(
            rng.integers(0, NODES, (2, EDGES)),
            x=rng.standard_normal((NODES, 6)).astype(np.float32),
            y=(rng.random(NODES) < 0.3).astype(np.int64),
            edge_weight=rng.random(EDGES).astype(np.float32),
            splits=splits,
        )
        self.store = gs.ingest(source, folder / "store", allow_overlap=True)
        gs.ingest(source, folder / "plain", allow_overlap=True, split="given:0")
        self.store = gs.add(self.store, splits={"mine": orders[0][:100]})
        for name, options in PACKS.items():
            pool = gs.sample(self.store, folder / f"pool-{name}", **DRAWN, **self._given(options))
            gs.pack(pool, folder / name, memory="64MiB")

    def _given(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | ({"weights": self.store.edge_weights()} if "weights" in options else {})

    def by_options(self, source: str, **options: Any) -> Path:
        out = self.folder / f"{source}-{sorted(options.items())}".replace("/", "")
        sampled = {} if source in PACKS else SAMPLED
        train_from_config(self.folder / source, {**USUAL, **sampled, **options}, out)
        return out

    def some(self, count: int) -> list[int]:
        """Nodes of the split `train`, fewer than all."""
        ids: list[int] = gs.Store.open(self.folder / "plain").split("train")[:count].tolist()
        return ids

    def by_loader(self, source: str, seed: int, **sampled: Any) -> Path:
        out = self.folder / f"loader-{source}-{seed}-{len(sampled.get('seeds', []))}"
        model = gs.build("sage", in_channels=6, hidden_channels=4, num_layers=2, out_channels=2, seed=seed)
        with gs.Loader(self.folder / source, seed=seed, **sampled) as loader:
            gs.train(model, loader, task=gs.NodeClassification(2), out=out, seed=seed, epochs=1, threads=1)
        return out

    def by_script(self, seed: int, first: int = NODES) -> Path:
        """A model of one's own, seeded by the script, on the nodes of `train` below `first`."""
        out = self.folder / f"script-{seed}-{first}"
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gs.train(Net(), self.folder / "plain", task=Below(first), out=out, epochs=1, threads=1, **SAMPLED)
        return out


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, blocks: Any) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


class Below(gs.NodeClassification):
    def __init__(self, first: int) -> None:
        super().__init__(2)
        self.first = first

    def seeds(self, store: gs.Store, split: str) -> gs.Seeds:
        ids = store.split(split)
        return gs.Seeds.nodes(ids[ids < self.first] if split == "train" else ids, name=split)


USUAL = {"model": "sage", "hidden": 4, "epochs": 1, "threads": 1, "memory": "512MiB"}
PACKS: dict[str, dict[str, Any]] = {
    "p0": {"seeds": "train.0"},
    "p1": {"seeds": "train.1"},
    "again": {"seeds": "train.0", "seed": 1},
    "half": {"seeds": "half.0"},
    "weighted": {"seeds": "train.0", "weights": True},
    "replaced": {"seeds": "train.0", "replace": True},
    "mine": {"seeds": "mine"},
    "mine again": {"seeds": "mine", "seed": 1},
}
SAMPLED: dict[str, Any] = {"fanouts": [3, 3], "batch_size": 64}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def means(paths: Sequence[Path], out: Path) -> list[str]:
    return re.findall(r"<td>([^<]* like it, mean ± deviation)</td>", report(paths, out).read_text())


ALIKE: dict[str, Callable[[Runs], list[Path]]] = {
    "seeds": lambda r: [r.by_options("p0", seed=0), r.by_options("p0", seed=1)],
    "seeds of packs": lambda r: [r.by_options("p0", seed=0), r.by_options("again", seed=0)],
    "versions of a split": lambda r: [r.by_options("p0", seed=0), r.by_options("p1", seed=0)],
    "versions, of a store": lambda r: [r.by_options("store", seeds="train.0"), r.by_options("store", seeds="train.1")],
    "seeds of a loader": lambda r: [r.by_loader("p0", 0), r.by_loader("p0", 1)],
    "versions, by loaders": lambda r: [r.by_loader("p0", 0), r.by_loader("p1", 0)],
    "seeds of a loader of a store": lambda r: [r.by_loader("plain", seed, **SAMPLED) for seed in (0, 1)],
    "seeds of a script": lambda r: [r.by_script(0), r.by_script(1)],
    "an added split": lambda r: [r.by_options("mine"), r.by_options("mine again")],
    "versions, balanced": lambda r: [r.by_options(p, class_weights="balanced") for p in ("p0", "p1")],
}
OTHERS: dict[str, Callable[[Runs], list[Path]]] = {
    "other nodes": lambda r: [r.by_options("p0", seed=0), r.by_options("half", seed=0)],
    "other nodes of a store": lambda r: [r.by_options("store", seeds=s) for s in ("train.0", "half.0")],
    "drawn by weight": lambda r: [r.by_options("p0", seed=0), r.by_options("weighted", seed=0)],
    "drawn with replacement": lambda r: [r.by_options("p0", seed=0), r.by_options("replaced", seed=1)],
    "another width": lambda r: [r.by_options("p0", seed=0), r.by_options("p0", seed=1, hidden=5)],
    "the same twice": lambda r: [r.by_options("p0", seed=0), r.by_options("p0", seed=0, checkpoint_steps=1)],
    "a loader of other ids": lambda r: [r.by_loader("plain", 0, seeds=r.some(n), **SAMPLED) for n in (20, 40)],
    "a task of other seeds": lambda r: [r.by_script(0, 100), r.by_script(0, 200)],
    "the usual split by name": lambda r: [r.by_options("plain"), r.by_options("plain", seeds="train")],
}


@pytest.mark.parametrize("case", ALIKE)
def test_runs_of_one_experiment_have_a_mean(case: str, runs: Runs, tmp_path: Path) -> None:
    paths = ALIKE[case](runs)
    assert len(means(paths, tmp_path / "a.html")) == 1


@pytest.mark.parametrize("case", OTHERS)
def test_others_have_none(case: str, runs: Runs, tmp_path: Path) -> None:
    assert means(OTHERS[case](runs), tmp_path / "a.html") == []


def test_a_run_done_twice_counts_once_and_another_graph_apart(runs: Runs, tmp_path: Path) -> None:
    twice = runs.by_options("p0", seed=0, checkpoint_steps=1)
    paths = [Path(shutil.copytree(runs.by_options("p0", seed=seed), tmp_path / str(seed))) for seed in (0, 1, 2)]
    assert means([*paths, twice], tmp_path / "a.html")[0].split(" and ")[1] == "2 like it, mean ± deviation"
    config = read_json(paths[1] / "config.json")
    write_json(paths[1] / "config.json", config | {"graph": config["graph"] | {"id": "another"}})
    assert means(paths[:2], tmp_path / "a.html") == []
    write_json(paths[1] / "config.json", config | {"graph": None})
    assert means(paths[:2], tmp_path / "a.html") == []


def test_runs_that_were_not_scored_have_none_and_a_score_that_one_lacks_neither(runs: Runs, tmp_path: Path) -> None:
    paths = [Path(shutil.copytree(runs.by_options("p0", seed=seed), tmp_path / str(seed))) for seed in (0, 1, 2)]
    results = [read_json(path / "result.json") for path in paths]
    write_json(paths[0] / "result.json", results[0] | {"metrics": results[0]["metrics"] | {"test.0": {"acc": None}}})
    assert "like it, mean ± deviation</td><td>-</td><td>0." in report(paths, tmp_path / "a.html").read_text()
    for path, result in zip(paths, results, strict=True):
        write_json(path / "result.json", result | {"metrics": {}})
    assert means(paths, tmp_path / "a.html") == []
