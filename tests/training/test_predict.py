"""Predictions of a run: what evaluation scores, in the ids of the source, whole or not at all, within memory."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.batch import Batch
from gnnsys.errors import ConfigError, DiskSpaceError, InputDataError, MemoryBudgetError
from gnnsys.models.registry import build
from gnnsys.samplers.seeds import Seeds
from gnnsys.storage import files
from gnnsys.storage.store import Store
from gnnsys.training.run import train_from_config
from tests.graphs import ingest_arrays

NODES, COLUMNS, CLASSES = 120, 5, 3
OPTIONS: dict[str, Any] = {"hidden": 8, "epochs": 2, "memory": "512MiB", "threads": 1, "fanouts": [4, 3]}


def arrays(seed: int, nodes: int = NODES) -> dict[str, Any]:
    """Three classes that features tell apart; every fifth label is missing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, nodes)
    src, dst = rng.integers(0, nodes, (2, 6 * nodes))
    x = (rng.normal(size=(nodes, COLUMNS)) + 2 * np.eye(CLASSES, COLUMNS)[y]).astype(np.float32)
    y[::5] = -1
    order = rng.permutation(nodes)
    half, rest = nodes // 2, 3 * nodes // 4
    splits = {"train": order[:half], "valid": order[half:rest], "test": order[rest:]}
    return {"src": src, "dst": dst, "num_nodes": nodes, "x": x, "y": y, "splits": splits}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return ingest_arrays(tmp_path_factory.mktemp("store") / "store", **arrays(0))


@pytest.fixture(scope="module")
def run(store: Store) -> gs.Run:
    return train_from_config(store.path, OPTIONS, store.path.parent / "run")


@pytest.fixture
def named(tmp_path: Path) -> gs.Run:
    """A run on an edge list whose ids are words, one of them with a comma, in no order."""
    rng = np.random.default_rng(1)
    names = [f"n{i}, jr" if i == 3 else f"n{i}" for i in rng.permutation(40)]
    edges = "".join(f"{names[i]}\t{names[(7 * i + k) % 40]}\n" for i in range(40) for k in range(3))
    (tmp_path / "e.tsv").write_text(edges)
    np.save(tmp_path / "x.npy", rng.normal(size=(40, COLUMNS)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, CLASSES, 40))
    store = gs.ingest(
        f"edges:{tmp_path / 'e.tsv'}",
        tmp_path / "store",
        features=tmp_path / "x.npy",
        labels=tmp_path / "y.npy",
        split="per-class:3/3",
    )
    return train_from_config(store.path, OPTIONS, tmp_path / "run")


def in_one_batch(run: gs.Run, store: Store) -> torch.Tensor:
    """(N, C) outputs of the best weights over the whole graph at once."""
    seeds = Seeds.nodes(np.arange(store.num_nodes), order="fixed", name="all")
    with gs.Loader(store, seeds=seeds, fanouts=[-1, -1], batch_size=store.num_nodes) as loader, torch.no_grad():
        return gs.NodeClassification(CLASSES).outputs(run.load_model(), next(iter(loader)))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_accuracy_of_the_file_is_what_evaluation_says(run: gs.Run, store: Store, tmp_path: Path, split: str) -> None:
    result = run.predict(tmp_path / "p.csv", split=split)
    found = rows(tmp_path / "p.csv")
    labels, nodes = store.labels(), [int(row["node"]) for row in found]
    assert labels is not None
    assert nodes == store.split(split).tolist()
    known = [(int(row["class"]), labels[int(row["node"])]) for row in found if labels[int(row["node"])] >= 0]
    assert np.mean([a == b for a, b in known]) == run.evaluate(split)["metrics"]["acc"]
    assert (result["nodes"], result["evaluation"], result["same_graph"]) == (len(nodes), "layer-wise", True)


def test_both_kinds_of_file_hold_the_same(run: gs.Run, store: Store, tmp_path: Path) -> None:
    """Nine digits give every float32 back, so the files are equal to the bit."""
    for what, prefix in (("probabilities", "p"), ("outputs", "out")):
        gs.predict(run, tmp_path / "p.csv", what=what, replace=True)
        gs.predict(run.path, tmp_path / "p.npy", what=what, replace=True)
        array, found = np.load(tmp_path / "p.npy"), rows(tmp_path / "p.csv")
        assert (array.shape, array.dtype) == ((NODES, CLASSES), np.float32)
        values = [[float(row[f"{prefix}{c}"]) for c in range(CLASSES)] for row in found]
        assert np.array_equal(np.array(values, dtype=np.float32), array)
        assert [int(row["class"]) for row in found] == array.argmax(axis=1).tolist()
    run.predict(tmp_path / "c.npy")
    classes = np.load(tmp_path / "c.npy")
    assert (classes.dtype, classes.tolist()) == (np.int64, array.argmax(axis=1).tolist())


def test_outputs_are_those_of_one_full_batch(run: gs.Run, store: Store, tmp_path: Path) -> None:
    run.predict(tmp_path / "o.npy", what="outputs")
    run.predict(tmp_path / "p.npy", what="probabilities")
    out = in_one_batch(run, store)
    # Sums over neighbours in another order differ in the last bits.
    assert np.allclose(np.load(tmp_path / "o.npy"), out.numpy(), atol=1e-5)
    assert np.allclose(np.load(tmp_path / "p.npy"), out.softmax(1).numpy(), atol=1e-5)


def test_ids_are_those_of_the_source(named: gs.Run, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    named.predict(tmp_path / "p.csv")
    named.predict(tmp_path / "p.npy")
    found = rows(tmp_path / "p.csv")
    assert "n3, jr" in [row["node"] for row in found]
    classes = dict(zip(store.names(range(store.num_nodes)), np.load(tmp_path / "p.npy").tolist(), strict=True))
    assert {row["node"]: int(row["class"]) for row in found} == classes


def test_a_cut_into_pieces_changes_no_byte(run: gs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "a.npy"):
        run.predict(tmp_path / name, what="probabilities")
    monkeypatch.setattr("gnnsys.training.predictions._PIECE_VALUES", 7)
    for name in ("a.csv", "a.npy"):
        run.predict(tmp_path / f"again-{name}", what="probabilities")
        assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_another_graph_with_the_same_columns_is_predicted(run: gs.Run, tmp_path: Path) -> None:
    other = ingest_arrays(tmp_path / "other", **arrays(5, nodes=70))
    result = run.predict(tmp_path / "p.npy", what="outputs", on=other.path)
    assert (result["nodes"], result["same_graph"], result["store"]) == (70, False, other.id)
    assert np.allclose(np.load(tmp_path / "p.npy"), in_one_batch(run, other).numpy(), atol=1e-5)


def test_a_graph_without_labels_is_predicted(run: gs.Run, tmp_path: Path) -> None:
    other = ingest_arrays(tmp_path / "other", **{**arrays(5), "y": None, "splits": {}})
    assert run.predict(tmp_path / "p.npy", on=other)["nodes"] == NODES


def test_a_graph_of_other_columns_is_refused(run: gs.Run, tmp_path: Path) -> None:
    given = arrays(5)
    other = ingest_arrays(tmp_path / "other", **{**given, "x": given["x"][:, :3]})
    with pytest.raises(ConfigError, match=r"GS-CFG-886: .* rows have 3 columns, .* was trained on 5"):
        run.predict(tmp_path / "p.npy", on=other)


@pytest.mark.parametrize(
    ("trained", "other", "what"),
    [
        ({"normalize_features": "row"}, {}, "normalize_features none, .* was trained on row"),
        ({"features": "random:5:0"}, {"features": "random:5:1"}, "features random:5:1, .* was trained on random:5:0"),
        ({}, {"features": "degree"}, "features degree, .* was trained on features of its own"),
    ],
)
def test_x_that_was_made_in_another_way_is_refused(
    tmp_path: Path, trained: dict[str, Any], other: dict[str, Any], what: str
) -> None:
    given = arrays(5)
    given["x"] = None if "features" in trained else np.abs(given["x"])
    stores = [
        ingest_arrays(tmp_path / name, **(given | ({"x": None} if "features" in options else {})), **options)
        for name, options in (("a", trained), ("b", other), ("c", trained))
    ]
    options = {"model": "mlp", "fanouts": [2], "epochs": 1, "threads": 1}
    own = train_from_config(stores[0].path, options, tmp_path / "run")
    with pytest.raises(ConfigError, match=f"GS-CFG-892: .*x was ingested with {what}"):
        own.evaluate("test", on=stores[1])
    assert own.evaluate("test", on=stores[2])["metrics"] == own.metrics["test"]


def test_a_model_of_its_own_is_not_given_other_columns_either(run: gs.Run, store: Store, tmp_path: Path) -> None:
    class Rows(torch.nn.Linear):
        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    options = {"fanouts": [2], "epochs": 1, "threads": 1}
    task = gs.NodeClassification(CLASSES)
    own = gs.train(Rows(5, CLASSES), store, task=task, out=tmp_path / "own", **options)
    given = arrays(5)
    other = ingest_arrays(tmp_path / "other", **{**given, "x": given["x"][:, :3]})
    with pytest.raises(ConfigError, match=r"GS-CFG-886: .* rows have 3 columns, .* was trained on 5"):
        own.evaluate("test", on=other)


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("p.txt", {}, "GS-CFG-884"),
        ("p.csv", {"what": "classes"}, "GS-CFG-885"),
        ("p.csv", {"split": "tset"}, "GS-CFG-020"),
        ("no/p.csv", {}, "GS-IN-541"),
        ("there.csv", {}, "GS-IN-541"),
        ("pipe.csv", {}, "GS-IN-541"),
    ],
)
def test_what_cannot_be_written_is_refused_first(
    run: gs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], code: str
) -> None:
    (tmp_path / "there.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.setattr(gs.Run, "load_model", None)
    with pytest.raises((ConfigError, InputDataError), match=code):
        run.predict(tmp_path / name, **options)


class Linked(gs.NodeClassification):
    """A task that is none of ours."""

    def outputs(self, model: torch.nn.Module, batch: Batch, key: tuple[int, ...] | None = None) -> torch.Tensor:
        return super().outputs(model, batch, key)


class Smoothed(gs.NodeClassification):
    """A loss of the user's own; outputs are of classes as before."""

    def loss(self, out: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
        total, count = super().loss(out, batch)
        return 0.9 * total, count


def test_a_task_with_another_loss_has_classes_all_the_same(store: Store, tmp_path: Path) -> None:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 4, "num_layers": 2, "out_channels": CLASSES}
    options = {**OPTIONS, "epochs": 1}
    options.pop("hidden")
    gs.train(build("sage", **sizes), store, task=Smoothed(CLASSES), out=tmp_path / "run", **options)
    gs.Run.open(tmp_path / "run").predict(tmp_path / "p.csv")
    assert len(rows(tmp_path / "p.csv")) == NODES


def test_only_outputs_are_written_of_other_tasks(store: Store, tmp_path: Path) -> None:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 4, "num_layers": 2, "out_channels": CLASSES}
    options = {**OPTIONS, "epochs": 1}
    options.pop("hidden")
    run = gs.train(build("sage", **sizes), store, task=Linked(CLASSES), out=tmp_path / "run", **options)
    with pytest.raises(ConfigError, match=r"GS-CFG-887: .*'Linked'"):
        run.predict(tmp_path / "p.csv")
    run.predict(tmp_path / "p.npy", what="outputs")
    assert np.load(tmp_path / "p.npy").shape == (NODES, CLASSES)


def test_a_failed_prediction_keeps_the_old_file(run: gs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")
    real = files.write_all

    def full(fd: int, data: bytes, offset: int) -> None:
        real(fd, data[:10], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gnnsys.training.predictions.write_all", full)
    with pytest.raises(DiskSpaceError, match=r"p\.csv"):
        run.predict(path, replace=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("p.csv", "old")]


@pytest.mark.parametrize("name", ["p.csv", "p.npy"])
def test_what_is_something_else_is_not_replaced_unasked(run: gs.Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    run.predict(path)
    good = path.read_bytes()
    run.predict(path)  # the same again
    assert path.read_bytes() == good
    for other in (good[:-1], good + b"\n", good[:-3] + b"9" + good[-2:], good[:6], b"a,b\n1,2\n", b""):
        path.write_bytes(other)
        with pytest.raises(InputDataError, match=rf"GS-IN-543: .*{name}: is there already"):
            run.predict(path)
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, other)]
    run.predict(path, replace=True)
    assert path.read_bytes() == good


def test_too_little_memory_is_refused_with_the_numbers(run: gs.Run, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="the model and small things"):
        run.predict(tmp_path / "p.npy", memory="5MiB")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_in_the_run(run: gs.Run, tmp_path: Path) -> None:
    before = sorted(p.name for p in run.path.iterdir())
    run.predict(tmp_path / "p.npy")
    assert sorted(p.name for p in run.path.iterdir()) == before
