"""`--seeds`: which split of a Store an epoch goes over, as if it were the only one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.cli.app import app
from gnnsys.errors import ConfigError
from gnnsys.training.run import train_from_config

NODES, CLASSES = 120, 3
SAMPLED = {"fanouts": [4, 3], "batch_size": 16}
OPTIONS = {"hidden": 8, "epochs": 2, "threads": 1, "memory": "256MiB"}
FIRST = {"train": np.arange(60), "valid": np.arange(60, 90), "test": np.arange(90, NODES)}
SECOND = {"train": np.arange(30, 80), "valid": np.arange(30), "test": np.arange(80, NODES)}


def ingest(out: Path, splits: list[dict[str, np.ndarray]]) -> gs.Store:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NODES, 5)).astype(np.float32)
    source = gs.ArraySource(rng.integers(0, NODES, (2, 900)), x=x, y=np.arange(NODES) % CLASSES, splits=splits)
    return gs.ingest(source, out)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    return ingest(tmp_path_factory.mktemp("both") / "store", [FIRST, SECOND])


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    return ingest(tmp_path_factory.mktemp("second") / "store", [SECOND])


@pytest.mark.parametrize("way", [SAMPLED, {"chunks": 1}, {"chunks": 3}], ids=["sampled", "whole", "chunks"])
def test_a_version_is_trained_on_and_scored_as_if_it_were_the_only_one(
    way: dict[str, object], both: gs.Store, second: gs.Store, tmp_path: Path
) -> None:
    run = train_from_config(both.path, {**OPTIONS, **way, "seeds": "train.1"}, tmp_path / "version")
    alone = train_from_config(second.path, {**OPTIONS, **way}, tmp_path / "alone")
    assert run.result["weights_digest"] == alone.result["weights_digest"]
    assert run.result["losses"] == alone.result["losses"]
    assert run.metrics == {f"{split}.1": scores for split, scores in alone.metrics.items()}


def test_a_model_of_ones_own_takes_it_too(both: gs.Store, tmp_path: Path) -> None:
    def train(out: str, source: object, **options: object) -> str:
        model = gs.build("sage", in_channels=5, hidden_channels=8, num_layers=2, out_channels=CLASSES, seed=0)
        task = gs.NodeClassification(CLASSES)
        run = gs.train(model, source, task=task, out=tmp_path / out, epochs=2, threads=1, **options)  # type: ignore[arg-type]
        return str(run.result["weights_digest"])

    with gs.Loader(both, seeds="train.1", **SAMPLED) as loader:  # type: ignore[arg-type]
        by_loader = train("loader", loader)
        for given in ("train.0", "train"):
            with pytest.raises(ConfigError, match=r"GS-CFG-508: seeds: the Loader has its own"):
                train("refused", loader, seeds=given)
    assert train("name", both, seeds="train.1", **SAMPLED) == by_loader


@pytest.mark.parametrize("splits", [[], [FIRST, SECOND]], ids=["no splits", "versions alone"])
def test_ids_of_no_split_are_trained_on_and_nothing_is_scored(
    splits: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    store = ingest(tmp_path / "store", splits)
    model = gs.build("sage", in_channels=5, hidden_channels=8, num_layers=2, out_channels=CLASSES, seed=0)
    with gs.Loader(store, seeds=range(40), **SAMPLED) as loader:  # type: ignore[arg-type]
        run = gs.train(model, loader, task=gs.NodeClassification(CLASSES), out=tmp_path / "run", epochs=2, threads=1)
        with pytest.raises(ConfigError, match=r"GS-CFG-514: patience is 2"):
            gs.train(model, loader, task=gs.NodeClassification(CLASSES), out=tmp_path / "stops", patience=2)
    assert run.metrics == {}
    assert run.result["valid"] == [None, None]
    assert run.result["best_epoch"] == 1


def test_classes_are_balanced_over_the_split_that_is_trained_on(second: gs.Store, tmp_path: Path) -> None:
    few = np.concatenate([np.arange(0, 60, 3), [1, 2]])
    store = gs.add(ingest(tmp_path / "store", [SECOND]), splits={"few": np.setdiff1d(few, SECOND["valid"])})
    options = {**OPTIONS, **SAMPLED, "class_weights": "balanced"}
    runs = [
        train_from_config(store.path, {**options, "seeds": seeds}, tmp_path / str(seeds)) for seeds in ("few", "train")
    ]
    weights = [run.config["decisive"]["task"]["class_weights"] for run in runs]
    assert weights[0] != weights[1]


def test_the_usual_split_by_its_name_is_the_same_run(second: gs.Store, tmp_path: Path) -> None:
    first = train_from_config(second.path, {**OPTIONS, **SAMPLED}, tmp_path / "run")
    again = train_from_config(second.path, {**OPTIONS, **SAMPLED, "seeds": "train"}, tmp_path / "run")
    assert again.result == first.result


def test_the_command_line_takes_it_and_writes_it_down(
    both: gs.Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--fanouts", "4,3", "--epochs", "1", "--hidden", "8", "--memory", "256MiB", "--threads", "1", "--json"]
    app(["train", str(both.path), "--seeds", "train.1", *usual, "--out", str(tmp_path / "a")], standalone_mode=False)
    first = json.loads(capsys.readouterr().out)
    config = str(tmp_path / "a" / "config.toml")
    app(["train", "-c", config, "--out", str(tmp_path / "b"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["weights_digest"] == first["weights_digest"]
    assert sorted(first["metrics"]) == ["test.1", "train.1", "valid.1"]
    place = ["place", str(both.path), "--devices", "2", "--seeds", "train.1", "--fanouts", "4,3", "--json"]
    app(place, standalone_mode=False)
    assert json.loads(capsys.readouterr().out)


def test_inner_hops_of_a_pack_are_another_run(both: gs.Store, tmp_path: Path) -> None:
    pack = gs.pack(both, tmp_path / "pack", seeds="train.0", memory="64MiB", **SAMPLED)  # type: ignore[arg-type]
    model = gs.build("sage", in_channels=5, hidden_channels=8, num_layers=1, out_channels=CLASSES, seed=0)
    task, out = gs.NodeClassification(CLASSES), tmp_path / "run"
    with gs.Loader(pack, hops=1) as loader:
        run = gs.train(model, loader, task=task, out=out, epochs=1, threads=1)
    assert run.config["options"]["fanouts"] == [4]
    with gs.Loader(pack) as loader, pytest.raises(ConfigError, match=r"GS-CFG-521.*fanouts"):
        gs.train(model, loader, task=task, out=out, epochs=1, threads=1)


def test_it_is_refused_where_it_means_nothing(both: gs.Store, tmp_path: Path) -> None:
    options = {**OPTIONS, **SAMPLED}
    with pytest.raises(ConfigError, match=r"GS-CFG-020: .*'train\.7'"):
        train_from_config(both.path, {**options, "seeds": "train.7"}, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"GS-CFG-020: (?s:.*)choose one, as train\.0"):
        train_from_config(both.path, options, tmp_path / "run")
    pack = gs.pack(both, tmp_path / "pack", seeds="train.0", memory="64MiB", **SAMPLED)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"GS-CFG-508: seeds: .* was sampled already"):
        train_from_config(pack.path, {**OPTIONS, "seeds": "train.0"}, tmp_path / "run")
    for nothing in (3, ""):
        with pytest.raises(ConfigError, match="seeds"):
            train_from_config(both.path, {**options, "seeds": nothing}, tmp_path / "run")
