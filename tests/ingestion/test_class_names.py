"""Classes with names: numbered in the order of the names, told by them in predictions, never mixed up with others."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.ingestion.class_names import MAX_CLASSES

EDGES = "a,b\nb,c\nc,d\nd,e\n"


def _ingest(folder: Path, labels: str | bytes, edges: str = EDGES, **options: Any) -> gs.Store:
    folder.mkdir(exist_ok=True)
    (folder / "e.csv").write_text(edges)
    (folder / "y.csv").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    return gs.ingest(f"edges:{folder / 'e.csv'}", folder / "s", labels=folder / "y.csv", memory="16MiB", **options)


@pytest.mark.parametrize("header", ["", "node,topic\n"])
def test_classes_are_numbered_in_the_order_of_their_names(tmp_path: Path, header: str) -> None:
    store = _ingest(tmp_path, f"{header}c,zoo\na,\nb,art\ne,zoo\nd,Öl\n")
    assert store.class_names == ("art", "zoo", "Öl")
    assert store.labels().tolist() == [-1, 0, 1, 2, 1]
    assert (store.num_classes, store.label_kind) == (3, "class")
    again = _ingest(tmp_path / "other", "e,zoo\nd,Öl\nb,art\nc,zoo\n")
    assert (again.class_names, again.labels().tolist()) == (store.class_names, store.labels().tolist())


def test_nodes_may_be_numbers_and_the_first_rows_unlabelled(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "0,\n1,\n3,b c\n2,a\n", "0,1\n")
    assert store.class_names == ("a", "b c")
    assert store.labels().tolist() == [-1, -1, 0, 1]


def test_names_stay_when_their_nodes_are_left_out(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "a,x\ny,m\nb,z\n", "a,b\nb,a\ny,y\n", largest_component=True)
    assert store.class_names == ("m", "x", "z")
    assert store.labels().tolist() == [1, 2]


def test_classes_as_numbers_have_no_names(tmp_path: Path) -> None:
    assert _ingest(tmp_path, "a,1\nb,0\n").class_names is None


@pytest.mark.parametrize(
    ("labels", "code", "problem"),
    [
        ("a,x\nb,1\n", "GS-IN-181", "row 2 has the class '1', expected a name"),
        (b"a,x\nb,\xff\n", "GS-IN-181", "row 2 has the class"),
        (f"a,x\nb,{'y' * 201}\n", "GS-IN-181", "row 2 has the class 'yyy"),
        ('a,"x"\n', "GS-IN-181", "row 1 has the class '\"x\"'"),
        ("a,x\nb,NA\n", "GS-IN-181", "row 2 has the class 'NA'"),
        ("a,None\nb,x\n", "GS-IN-181", "row 1 has the class 'None'"),
        ("a,1\nb,x\n", "GS-IN-179", "row 2 has no number in column 2: 'x'"),
        ("a,x\nb,x,y\n", "GS-IN-179", "row 2 has 3 columns, expected 2"),
        ("q,x\na,y\nb,x\n", "GS-IN-179", "row 1 is of node 'q', which no edge has"),
    ],
)
def test_names_and_numbers_are_not_mixed(tmp_path: Path, labels: str | bytes, code: str, problem: str) -> None:
    with pytest.raises(InputDataError, match=rf"{code}: .*y\.csv {re.escape(problem)}"):
        _ingest(tmp_path, labels)


def test_a_column_that_is_no_class_is_told(tmp_path: Path) -> None:
    labels = "".join(f"{node},title of {node}\n" for node in range(MAX_CLASSES + 1))
    with pytest.raises(InputDataError, match=r"GS-IN-181: .*the 10,001th different class: is that a class at all"):
        _ingest(tmp_path, labels, f"0,{MAX_CLASSES}\n")


def test_names_are_of_classes_alone(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-132: labels: names such as 'x', expected numbers"):
        _ingest(tmp_path, "a,x\n", label_kind="regression")


@pytest.mark.parametrize("names", [["x", 1], "xy", None])
def test_names_of_columns_that_are_no_texts_are_damage(tmp_path: Path, names: Any) -> None:
    store = _ingest(tmp_path, "a,x\nb,y\n")
    with pytest.raises(CorruptStoreError, match="GS-STORE-001"):
        gs.Store(store.path, _with_counts(store, {**store.manifest.counts, "feature_names": names}))


@pytest.mark.parametrize("names", [["x"], ["x", "x"], ["x", 1], "xy", None])
def test_names_that_are_not_those_of_the_classes_are_damage(tmp_path: Path, names: Any) -> None:
    store = _ingest(tmp_path, "a,x\nb,y\n")
    counts = {**store.manifest.counts, "class_names": names}
    with pytest.raises(CorruptStoreError, match="GS-STORE-001"):
        gs.Store(store.path, _with_counts(store, counts))


def _with_counts(store: gs.Store, counts: dict[str, Any]) -> Any:
    return replace(store.manifest, counts=counts)


def _graph(folder: Path, classes: list[str], seed: int = 0, titles: str = "") -> gs.Store:
    """40 nodes whose feature is their class."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(40) % len(classes))
    folder.mkdir(exist_ok=True)
    (folder / "x.csv").write_text(
        titles + "".join(f"n{v},{int(label[v] == 0)},{int(label[v] == 1)}\n" for v in range(40))
    )
    edges = "".join(f"n{v},n{(v + 1) % 40}\n" for v in range(40))
    labels = "".join(f"n{v},{classes[label[v]]}\n" for v in rng.permutation(40))
    return _ingest(folder, labels, edges, features=folder / "x.csv", split="random:50/20/30")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gs.Run:
    folder = tmp_path_factory.mktemp("run")
    store = _graph(folder, ["cat", "a dog"])
    model = gs.build("mlp", in_channels=2, hidden_channels=8, num_layers=2, out_channels=2, dropout=0.0, seed=0)
    options = {"fanouts": [0, 0], "epochs": 30, "lr": 0.05, "memory": "512MiB", "threads": 1}
    return gs.train(model, store, task=gs.NodeClassification(2), out=folder / "run", **options)


def test_predictions_are_told_by_name(tmp_path: Path, run: gs.Run) -> None:
    run.predict(tmp_path / "p.csv", what="probabilities", split="test")
    with (tmp_path / "p.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["node", "class", "p_a dog", "p_cat"]
    named = dict(zip(header[2:], (0, 1), strict=True))
    for _, name, *chances in rows:
        assert float(chances[named[f"p_{name}"]]) == max(map(float, chances))
    truth = dict(
        line.split(",", 1)
        for line in (Path(run.config["source_path"]).parent / "y.csv").read_text().split("\n")
        if line
    )
    assert {row[0]: row[1] for row in rows} == {node: truth[node] for node, *_ in rows}


def test_nan_is_no_class_wherever_it_stands(tmp_path: Path) -> None:
    """As pandas writes it with na_rep="nan"."""
    store = _ingest(tmp_path, "n0,nan\nn1,cat\nn2,NaN\nn3,a dog\n", "n0,n1\nn2,n3\n")
    assert store.class_names == ("a dog", "cat")
    labels = store.labels()
    assert labels is not None
    assert labels.tolist() == [-1, 1, -1, 0]


def test_a_run_is_not_scored_on_classes_of_other_names(tmp_path: Path, run: gs.Run) -> None:
    same = _graph(tmp_path / "same", ["cat", "a dog"], seed=3)
    assert run.evaluate("test", on=same)["metrics"]["acc"] == 1.0
    for name, classes in (("other", ["cat", "bird"]), ("more", ["cat", "a dog", "bird"]), ("numbers", ["0", "1"])):
        other = _graph(tmp_path / name, classes)
        with pytest.raises(ConfigError, match=r"GS-CFG-890: .*was trained on 2 \(a dog, cat\)"):
            run.evaluate("test", on=other)
        run.predict(tmp_path / "p.csv", on=other, replace=True)
        assert "a dog" in (tmp_path / "p.csv").read_text()


def test_classes_of_another_graph_are_told_by_name(tmp_path: Path, run: gs.Run) -> None:
    cats = _graph(tmp_path / "cats", ["cat"])
    assert cats.class_names == ("cat",)
    assert run.config["class_names"] == ["a dog", "cat"]
    run.predict(tmp_path / "p.csv", on=cats, split="test")
    told = [line.split(",")[1] for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    assert run.evaluate("test", on=cats)["metrics"]["acc"] == told.count("cat") / len(told)
    with pytest.raises(ConfigError, match=r"GS-CFG-890: .*its classes are 1 \(cat\)"):
        run.evaluate("test", on=cats, task=gs.NodeClassification(2))


def test_a_run_is_not_scored_on_columns_of_another_order(tmp_path: Path, run: gs.Run) -> None:
    titles = "id,is_dog,is_cat\n"
    store = _graph(tmp_path / "a", ["cat", "a dog"], titles=titles)
    model = gs.build("mlp", in_channels=2, hidden_channels=4, num_layers=1, out_channels=2, dropout=0.0, seed=0)
    options = {"fanouts": [0], "epochs": 1, "memory": "512MiB", "threads": 1}
    named = gs.train(model, store, task=gs.NodeClassification(2), out=tmp_path / "run", **options)
    other = _graph(tmp_path / "b", ["cat", "a dog"], titles="id,is_cat,is_dog\n")
    for use in (lambda: named.evaluate("test", on=other), lambda: named.predict(tmp_path / "p.csv", on=other)):
        with pytest.raises(
            ConfigError, match=r"GS-CFG-891: .*\(is_cat, is_dog\), .*was trained on 2 \(is_dog, is_cat\)"
        ):
            use()
    named.evaluate("test", on=_graph(tmp_path / "c", ["cat", "a dog"]))


def test_classes_that_no_node_has_are_counted(tmp_path: Path) -> None:
    assert _ingest(tmp_path, "a,2020\nb,2021\n").manifest.counts["empty_classes"] == 2020
    assert "empty_classes" not in _ingest(tmp_path / "full", "a,0\nb,1\n").manifest.counts


def test_seeds_without_a_label_are_nothing_to_train_on(tmp_path: Path) -> None:
    labels = "a,x\nb,y\nc,x\nd,y\n"
    store = _ingest(tmp_path, labels, features="random:3", split="random:50/25/25")
    store = gs.add(store, splits={"nolab": [4]})
    model = gs.build("mlp", in_channels=3, hidden_channels=4, num_layers=1, out_channels=2, dropout=0.0, seed=0)
    pool = gs.sample(store, tmp_path / "pool", seeds="nolab", fanouts=[1])
    options = {"task": gs.NodeClassification(2), "epochs": 1, "memory": "512MiB"}
    with pytest.raises(InputDataError, match=r"GS-IN-505: .*none of the 1 seeds to train on has a label"):
        gs.train(model, pool, out=tmp_path / "run", **options)


def test_the_run_knows_the_names_without_the_store(run: gs.Run) -> None:
    assert json.loads((run.path / "config.json").read_text())["class_names"] == ["a dog", "cat"]
