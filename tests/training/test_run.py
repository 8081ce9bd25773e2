"""Runs end to end on a small graph: the same weights from every source, resume, refusals, what a run leaves behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import gnnsys as gs
from gnnsys.errors import (
    ConfigError,
    CorruptStoreError,
    GnnsysError,
    InputDataError,
    InterruptedWorkError,
    MemoryBudgetError,
    StoreBusyError,
)
from gnnsys.models.registry import build
from gnnsys.storage.lock import WriterLock
from gnnsys.training.events import read_events
from gnnsys.training.run import train_from_config
from gnnsys.training.tensors import weights_digest
from gnnsys.units import format_size, parse_size
from tests.graphs import ingest_arrays
from tests.training.conftest import StopAfter

NODES, COLUMNS, CLASSES = 160, 7, 3
OPTIONS: dict[str, Any] = {"hidden": 8, "lr": 0.02, "epochs": 3, "dropout": 0.3, "memory": "512MiB", "threads": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    """Three communities that features and edges tell apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, NODES)
    src, dst = rng.integers(0, NODES, (2, 3000))
    kept = (y[src] == y[dst]) | (rng.random(3000) < 0.2)
    x = (rng.normal(size=(NODES, COLUMNS)) + 2 * np.eye(CLASSES, COLUMNS)[y]).astype(np.float32)
    order = rng.permutation(NODES)
    splits = {"train": order[:80], "valid": order[80:120], "test": order[120:]}
    folder = tmp_path_factory.mktemp("store") / "store"
    return ingest_arrays(folder, src[kept], dst[kept], NODES, x=x, y=y, splits=splits)


@pytest.fixture(scope="module")
def pool(store: gs.Store) -> gs.Pool:
    return gs.sample(store, store.path.parent / "pool", seeds="train", fanouts=[4, 3], batch_size=16, seed=1)


@pytest.fixture(scope="module")
def packs(store: gs.Store, pool: gs.Pool) -> dict[str, gs.Pack]:
    return {
        layout: gs.pack(pool, store.path.parent / f"pack-{layout}", store=store, memory="64MiB", layout=layout)
        for layout in ("packed", "direct")
    }


Train = Callable[..., gs.Run]


@pytest.fixture
def train(tmp_path: Path, store: gs.Store, pool: gs.Pool) -> Train:
    """`train_from_config` into a folder of this test, from the pool unless told otherwise."""

    def run(folder: str = "run", source: Any = None, **options: Any) -> gs.Run:
        passed = {key: options.pop(key) for key in ("resume", "stop", "store", "progress") if key in options}
        path = getattr(source, "path", source) or pool.path
        return train_from_config(path, {**OPTIONS, **options}, tmp_path / folder, **{"store": store.path, **passed})

    return run


LASTING = ("weights_digest", "losses", "metrics", "best_epoch", "valid", "steps")


def lasting(run: gs.Run) -> dict[str, Any]:
    return {key: run.result[key] for key in LASTING}


@pytest.mark.parametrize("rows", ["memory", "direct", "mapped"])
def test_weights_do_not_depend_on_where_rows_come_from(train: Train, rows: str) -> None:
    assert lasting(train("a", rows=rows)) == lasting(train("b", rows="auto"))


@pytest.mark.parametrize("layout", ["packed", "direct"])
def test_weights_do_not_depend_on_the_layout(train: Train, packs: dict[str, gs.Pack], layout: str) -> None:
    assert lasting(train("a", packs[layout])) == lasting(train("b"))


@pytest.mark.parametrize("options", [{"workers": 1, "prefetch": 1}, {"workers": 4, "prefetch": 4}, {"memory": "1GiB"}])
def test_weights_do_not_depend_on_workers_or_memory(train: Train, options: dict[str, Any]) -> None:
    assert lasting(train("a", **options)) == lasting(train("b"))


def test_training_online_equals_training_from_a_pool_of_the_same_key(
    store: gs.Store, pool: gs.Pool, tmp_path: Path
) -> None:
    digests = []
    for name, loader in (
        ("pool", gs.Loader(pool, store=store, seed=1)),
        ("store", gs.Loader(store, fanouts=[4, 3], batch_size=16, seed=1, resample=False)),
    ):
        model = gs_model()
        with loader:
            task, out = gs.NodeClassification(CLASSES), tmp_path / name
            run = gs.train(model, loader, task=task, epochs=2, out=out, store=store, memory="1GiB")
        digests.append(run.result["weights_digest"])
    assert digests[0] == digests[1]


def gs_model() -> nn.Module:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 8, "num_layers": 2, "out_channels": CLASSES}
    return build("sage", **sizes, dropout=0.5)


@pytest.mark.parametrize("model", ["sage", "gcn", "mlp"])
def test_a_store_is_sampled_while_training(train: Train, store: gs.Store, model: str) -> None:
    options: dict[str, Any] = {} if model == "mlp" else {"fanouts": [5, 5]}
    run = train(source=store, model=model, epochs=15, batch_size=16, **options)
    assert run.metrics["test"]["acc"] > 0.6
    assert run.result["evaluation"] == "layer-wise"


def test_bytes_read_equal_bytes_planned(train: Train, packs: dict[str, gs.Pack]) -> None:
    result = train(source=packs["packed"]).result
    assert result["bytes_read"] == result["bytes_planned"]
    assert min(result["bytes_read"]) > 0


@pytest.mark.parametrize("looks", [0, 3, 5, 8])
def test_a_stopped_run_goes_on_to_the_same_result(train: Train, packs: dict[str, gs.Pack], looks: int) -> None:
    options = {"source": packs["packed"], "micro_batches": 2, "checkpoint_steps": 2}
    with pytest.raises(InterruptedWorkError):
        train("cut", stop=StopAfter(looks), **options)
    with pytest.raises(InterruptedWorkError, match="not finished"):
        gs.Run.open(train("whole", **options).path.parent / "cut")
    resumed = train("cut", **options)
    whole = train("whole", **options)
    assert lasting(resumed) == lasting(whole)
    assert resumed.result["resumed_from"].startswith("ckpt-")
    assert resumed.result["bytes_read"] == whole.result["bytes_read"]


def test_a_finished_run_repeated_does_nothing_and_gives_the_same_result(train: Train) -> None:
    first = train()
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*") if p.is_file() and p.name != ".lock"}
    assert train().result == first.result
    after = {p: p.stat().st_mtime_ns for p in first.path.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


class Broken(nn.Module):
    """A model with a bug of its user's."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(COLUMNS, CLASSES)

    def forward(self, batch: gs.Batch) -> Tensor:
        raise ZeroDivisionError("the user's own")


def test_a_bug_in_the_model_is_passed_on_and_leaves_no_run(packs: dict[str, gs.Pack], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        gs.train(Broken(), packs["packed"], task=gs.NodeClassification(CLASSES), epochs=1, out=tmp_path, memory="1GiB")
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


class Greedy(Broken):
    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd a page of advice.")


def test_a_gpu_without_room_is_refused_with_what_helps(packs: dict[str, gs.Pack], tmp_path: Path) -> None:
    """The error that torch raises there, raised here."""
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-005: .*allocate 2 GiB\.\n .*smaller batches"):
        gs.train(Greedy(), packs["packed"], task=gs.NodeClassification(CLASSES), epochs=1, out=tmp_path, memory="1GiB")


@pytest.mark.parametrize("wrong", [{"model": "sgae"}, {"hidden": 1 << 14, "memory": "16MiB"}, {"model": "gone.py:Net"}])
def test_a_first_try_that_was_refused_does_not_stand_in_the_way(train: Train, wrong: dict[str, Any]) -> None:
    with pytest.raises(GnnsysError):
        train(**wrong)
    assert train().metrics


def test_a_finished_run_repeated_from_python_fills_the_model_again(packs: dict[str, gs.Pack], tmp_path: Path) -> None:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 8, "num_layers": 2, "out_channels": CLASSES}
    first, second = build("sage", **sizes), build("sage", **sizes)
    for model in (first, second):
        run = gs.train(
            model, packs["packed"], task=gs.NodeClassification(CLASSES), epochs=2, out=tmp_path, memory="1GiB"
        )
    assert weights_digest(first) == weights_digest(second) == run.result["weights_digest"]
    assert weights_digest(run.load_model(best=False)) == run.result["weights_digest"]


def test_other_options_in_the_same_folder_are_refused_with_the_difference(train: Train) -> None:
    train()
    with pytest.raises(ConfigError, match=r"options.lr was 0.02, now 0.5") as caught:
        train(lr=0.5)
    assert caught.value.code == "GS-CFG-521"
    with pytest.raises(ConfigError, match=r"model.hidden_channels was 8, now 9"):
        train(hidden=9)


def test_another_pool_in_the_same_folder_is_refused(train: Train, store: gs.Store, tmp_path: Path) -> None:
    train()
    other = gs.sample(store, tmp_path / "pool", seeds="train", fanouts=[4, 3], batch_size=16, seed=2)
    with pytest.raises(ConfigError, match=r"source.pool was"):
        train(source=other)


def test_resume_never_refuses_a_folder_with_a_run_in_it(train: Train) -> None:
    train(resume="never")
    with pytest.raises(ConfigError, match="there is a run already"):
        train(resume="never")


def test_a_folder_with_other_files_is_refused_and_left_alone(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(InputDataError, match=r"thesis\.tex"):
        train()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_second_writer_is_refused(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with WriterLock(tmp_path / "run"), pytest.raises(StoreBusyError):
        train()


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedWorkError):
        train(stop=StopAfter(6), checkpoint_steps=1)
    newest = (tmp_path / "run" / "checkpoints" / "latest").read_text().strip()
    (tmp_path / "run" / "checkpoints" / newest / "model.0.safetensors").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=f"passed over.*{newest}"):
        resumed = train(checkpoint_steps=1)
    assert lasting(resumed) == lasting(train("whole"))
    warned = [e for e in read_events(tmp_path / "run" / "events.jsonl") if e["kind"] == "warning"]
    assert newest in warned[0]["msg"]


def test_going_on_with_another_number_of_threads_warns(train: Train) -> None:
    with pytest.raises(InterruptedWorkError):
        train(stop=StopAfter(9), threads=1)
    with pytest.warns(RuntimeWarning, match="started with 1 threads and goes on with 2"):
        train(threads=2)


def test_the_number_of_threads_is_put_back(train: Train) -> None:
    before = torch.get_num_threads()
    train(threads=1)
    assert torch.get_num_threads() == before


def test_too_little_memory_is_refused_with_numbers_that_lead_to_enough(train: Train) -> None:
    with pytest.raises(MemoryBudgetError, match=r"training needs .*model and optimizer .*loader") as first:
        train(memory=100_000)
    assert first.value.code == "GS-MEM-004"
    with pytest.raises(MemoryBudgetError, match=r"training needs .*model and optimizer .*loader .*one step") as second:
        train(memory=first.value.hint.split("--memory ")[1].split(",")[0])
    assert train(memory=second.value.hint.split("--memory ")[1].split(",")[0]).metrics


def test_rows_that_are_kept_in_memory_are_refused_before_they_are_read(
    train: Train, packs: dict[str, gs.Pack], store: gs.Store
) -> None:
    with pytest.raises(MemoryBudgetError, match="rows are kept in memory"):
        train(rows="memory", memory=NODES * COLUMNS * 4 - 1)
    with pytest.raises(MemoryBudgetError, match="rows are kept in memory"):
        train(source=packs["packed"], memory=packs["packed"].generations[0].cache_rows_bytes - 1)


def test_growth_stays_inside_the_budget(train: Train, packs: dict[str, gs.Pack]) -> None:
    result = train(source=packs["packed"], memory="64MiB").result
    assert 0 < result["peak_growth_bytes"] <= 64 << 20
    assert result["baseline_bytes"] > 0


def test_reported_metrics_are_those_of_the_best_validation_epoch(train: Train) -> None:
    result = train(epochs=6).result
    assert result["metrics"]["valid"]["acc"] == result["valid"][result["best_epoch"]] == max(result["valid"])
    assert set(result["metrics"]) == {"train", "valid", "test"}


def test_rocauc_is_a_metric_for_two_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = (rng.normal(size=(60, 3)) + 2 * y[:, None]).astype(np.float32)
    splits = {"train": np.arange(30), "valid": np.arange(30, 45), "test": np.arange(45, 60)}
    ingest_arrays(tmp_path / "s", *rng.integers(0, 60, (2, 200)), 60, x=x, y=y, splits=splits)
    options = {**OPTIONS, "model": "mlp", "metric": "rocauc", "epochs": 10, "batch_size": 8}
    run = train_from_config(tmp_path / "s", options, tmp_path / "run")
    assert run.metrics["test"]["rocauc"] > 0.9


def test_a_class_is_no_model(store: gs.Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-527: model is .*Linear.*, expected a module"):
        gs.train(nn.Linear, store, task=gs.NodeClassification(CLASSES), out=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_run_opens_by_text(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-511: gone: no run there"):
        gs.Run("gone")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_seeds_that_are_scored_as_unseen_are_not_trained_on(
    train: Train, store: gs.Store, tmp_path: Path, split: str
) -> None:
    some = np.concatenate([store.split("train"), store.split(split)[:3]])
    options: dict[str, Any] = {"fanouts": [2, 2], "batch_size": 16}
    whole = gs.sample(store, tmp_path / "whole", seeds=split, **options)
    mixed = gs.sample(store, tmp_path / "mixed", seeds=some, **options)
    for source, says in ((whole, f"40 of the 40 .* split '{split}'"), (mixed, f"3 of the 83 .* split '{split}'")):
        with pytest.raises(ConfigError, match=says) as caught:
            train(source=source)
        assert caught.value.code == "GS-CFG-513"
    with gs.Loader(store, seeds=some, **options) as loader, pytest.raises(ConfigError, match="3 of the 83"):
        gs.train(gs_model(), loader, task=gs.NodeClassification(CLASSES), out=tmp_path / "r")


def test_of_several_versions_of_splits_the_one_trained_on_is_scored(store: gs.Store, tmp_path: Path) -> None:
    ids, labels = np.arange(NODES), store.labels()
    assert labels is not None
    splits = [{name: order[begin:end] for name, begin, end in THIRDS} for order in (ids, ids[::-1])]
    source = gs.ArraySource(np.array([ids, ids]), x=np.ones((NODES, 2), np.float32), y=np.array(labels), splits=splits)
    made = gs.ingest(source, tmp_path / "store")
    pack = gs.pack(made, tmp_path / "pack", seeds="train.1", fanouts=[2], batch_size=16, memory="64MiB")
    run = train_from_config(pack.path, {"hidden": 4, "epochs": 2}, tmp_path / "run")
    assert sorted(run.metrics) == ["test.1", "train.1", "valid.1"]
    assert all(value is not None for value in run.result["valid"])


THIRDS = (("train", 0, 80), ("valid", 80, 120), ("test", 120, NODES))


def test_a_split_that_cannot_be_scored_is_named_before_training(tmp_path: Path) -> None:
    y = np.arange(60) % 2
    splits = {"train": np.arange(30), "valid": np.arange(30, 45), "test": np.arange(46, 60, 2)}
    edges = np.random.default_rng(0).integers(0, 60, (2, 200))
    store = ingest_arrays(tmp_path / "s", *edges, 60, x=np.ones((60, 3), dtype=np.float32), y=y, splits=splits)
    options = {**OPTIONS, "model": "mlp", "metric": "rocauc", "batch_size": 8}
    with pytest.raises(InputDataError, match=r"split 'test': ROC AUC of 0 positives and 7 negatives"):
        train_from_config(store.path, options, tmp_path / "run")
    assert train_from_config(store.path, {**options, "metric": "acc"}, tmp_path / "run").metrics


def test_a_store_without_labels_says_so(tmp_path: Path) -> None:
    edges = np.random.default_rng(0).integers(0, 60, (2, 200))
    splits = {"train": np.arange(30)}
    store = ingest_arrays(tmp_path / "s", *edges, 60, x=np.ones((60, 3), dtype=np.float32), splits=splits)
    with pytest.raises(ConfigError, match="no labels to learn") as caught:
        train_from_config(store.path, {**OPTIONS, "fanouts": [2]}, tmp_path / "run")
    assert caught.value.code == "GS-CFG-506"


def test_evaluating_a_run_gives_the_metrics_that_it_reported(train: Train) -> None:
    run = train()
    again = gs.Run.open(run.path).evaluate("test")
    assert again["metrics"] == run.metrics["test"]
    assert again["evaluation"] == "layer-wise"


def test_too_little_memory_for_evaluation_is_refused_with_numbers_that_lead_to_enough(train: Train) -> None:
    run, memory, tries = train(), "1KiB", 0
    while True:
        try:
            assert run.evaluate("test", memory=memory)["metrics"] == run.metrics["test"]
            break
        except MemoryBudgetError as error:
            assert f"of --memory {format_size(parse_size(memory))}" in error.message
            assert "-" not in error.message.replace("--memory", "").replace("in-neighbours", "")
            memory, tries = error.hint.split("--memory ")[1].split(" ")[0], tries + 1
    assert 1 <= tries <= 4


def test_a_killed_evaluation_leaves_nothing_once_another_ran(train: Train) -> None:
    run = train()
    names = sorted(p.name for p in run.path.iterdir())
    (run.path / ".evaluate-dead" / "inference").mkdir(parents=True)
    (run.path / ".evaluate-alive").mkdir()
    with WriterLock(run.path / ".evaluate-alive"):
        run.evaluate("test")
    assert sorted(p.name for p in run.path.iterdir()) == sorted([*names, ".evaluate-alive"])


def test_a_run_that_cannot_be_written_is_evaluated(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    run, mkdir = train(), os.mkdir

    def read_only(path: str, *rest: Any, **options: Any) -> None:
        if Path(path).is_relative_to(run.path):
            raise PermissionError(errno.EROFS, "Read-only file system", path)
        mkdir(path, *rest, **options)

    monkeypatch.setattr(os, "mkdir", read_only)
    assert run.evaluate("test")["metrics"] == run.metrics["test"]


def test_an_unknown_split_is_named_with_the_ones_there_are(train: Train) -> None:
    with pytest.raises(ConfigError, match="train, valid, test"):
        train().evaluate("holdout")


def test_weights_are_readable_without_us(train: Train) -> None:
    run = train()
    for name, best in (("best.safetensors", True), ("model.safetensors", False)):
        found = safetensors.torch.load_file(run.path / name)
        expected = gs.Run.open(run.path).load_model(best=best).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def test_damaged_weights_are_an_error(train: Train) -> None:
    run = train()
    (run.path / "best.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CorruptStoreError):
        run.load_model()


@pytest.mark.parametrize("name", ["best.safetensors", "model.safetensors"])
def test_a_flipped_bit_in_the_weights_is_an_error_that_names_the_file(train: Train, name: str) -> None:
    run = train()
    data = bytearray((run.path / name).read_bytes())
    data[-3] ^= 1
    (run.path / name).write_bytes(data)
    with pytest.raises(CorruptStoreError, match=name) as caught:
        gs.Run.open(run.path).load_model(best=name.startswith("best"))
    assert caught.value.code == "GS-STORE-004"


def test_damaged_weights_are_not_scored(train: Train) -> None:
    run = train()
    data = bytearray((run.path / "best.safetensors").read_bytes())
    data[-3] ^= 1
    (run.path / "best.safetensors").write_bytes(data)
    with pytest.raises(CorruptStoreError, match=r"best\.safetensors"):
        gs.Run.open(run.path).evaluate("test")


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [("config.json", '"hidden": 8', '"hidden": 9'), ("result.json", '"steps": 15', '"steps": 14')],
)
def test_a_changed_value_in_the_json_of_a_run_is_an_error(train: Train, name: str, was: str, now: str) -> None:
    path = train().path / name
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, now))
    with pytest.raises(CorruptStoreError, match=name) as caught:
        gs.Run.open(path.parent)
    assert caught.value.code == "GS-STORE-009"


class Convolutions(nn.Module):
    """A model of the user's own in PyG's style."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * COLUMNS, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        summed = torch.zeros_like(x).index_add_(0, edge_index[1], x[edge_index[0]])
        return self.lin(torch.cat([x, summed], dim=1))


def test_a_model_of_the_users_own_trains_and_comes_back(packs: dict[str, gs.Pack], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Convolutions()
    with gs.Loader(packs["packed"]) as loader:
        run = gs.train(
            model, loader, task=gs.NodeClassification(CLASSES), epochs=8, lr=0.05, out=tmp_path / "r", memory="1GiB"
        )
    assert run.result["evaluation"] == "full-neighbour"
    assert run.metrics["test"]["acc"] > 0.6
    assert torch.equal(run.load_model(best=False).state_dict()["lin.weight"], model.cpu().lin.weight)
    opened = gs.Run.open(tmp_path / "r")
    with pytest.raises(ConfigError, match="Convolutions"):
        opened.load_model()
    assert opened.evaluate("test", model=Convolutions())["metrics"] == run.metrics["test"]


def test_a_network_that_build_made_comes_back_from_its_folder(packs: dict[str, gs.Pack], tmp_path: Path) -> None:
    model = gs.build("gat", in_channels=COLUMNS, hidden_channels=8, num_layers=2, out_channels=CLASSES, heads=2, seed=5)
    task, options = gs.NodeClassification(CLASSES), {"epochs": 1, "memory": "1GiB"}
    run = gs.train(model, packs["packed"], task=task, out=tmp_path / "run", **options)
    again = gs.Run.open(run.path)
    assert again.evaluate("test")["metrics"] == run.metrics["test"]
    for name, weight in again.load_model(best=False).state_dict().items():
        assert torch.equal(weight, model.cpu().state_dict()[name])


def test_a_task_in_another_order_than_its_batches_is_refused(store: gs.Store, pool: gs.Pool, tmp_path: Path) -> None:
    class Ordered(gs.NodeClassification):
        order = "fixed"

    with pytest.raises(ConfigError, match="'fixed' order"):
        gs.train(Convolutions(), gs.Loader(pool, store=store), task=Ordered(CLASSES), out=tmp_path / "r", store=store)


def test_training_without_a_store_to_evaluate_on_warns_and_keeps_the_last_epoch(
    store: gs.Store, pool: gs.Pool, tmp_path: Path
) -> None:
    alone = shutil.copytree(pool.path, tmp_path / "pool", ignore=shutil.ignore_patterns("hint.json"))
    with (
        gs.Loader(alone, store=store) as loader,
        pytest.warns(RuntimeWarning, match="training without evaluation: .* does not say where its Store is"),
    ):
        run = gs.train(Convolutions(), loader, task=gs.NodeClassification(CLASSES), epochs=2, out=tmp_path / "r")
    assert (run.metrics, run.result["best_epoch"], run.result["evaluation"]) == ({}, 1, "none")


def test_a_pool_is_trained_without_being_told_where_its_store_is(train: Train) -> None:
    assert lasting(train("found", store=None)) == lasting(train("told"))


def test_sampled_options_cannot_contradict_the_pool(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"fanouts is \[9, 9\]"):
        train(fanouts=[9, 9])
    with pytest.raises(ConfigError, match="batch_size is 5"):
        train(batch_size=5)
    with pytest.raises(ConfigError, match="3 layers need 3 hops"):
        train(layers=3)


def test_fewer_layers_than_hops_read_fewer_bytes(train: Train) -> None:
    shallow, deep = train("a", layers=1).result, train("b", layers=2).result
    assert shallow["bytes_read"][0] < deep["bytes_read"][0]


def test_the_folder_tells_what_happened(train: Train) -> None:
    run = train()
    events = list(read_events(run.path / "events.jsonl"))
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "run_start"
    assert {"config_digest", "dataset_digest", "versions", "host", "argv"} <= events[0].keys()
    step = next(event for event in events if event["kind"] == "step")
    assert {"epoch", "loss", "lr", "wait_ms", "io_ms", "compute_ms", "nodes", "edges"} <= step.keys()
    epochs = [event for event in events if event["kind"] == "epoch"]
    assert all(event["seeds_per_s"] > 0 for event in epochs)
    assert kinds[-1] == "run_end"
    assert kinds.count("epoch") == 3
    assert kinds.count("eval") == 3 + 3
    assert json.loads((run.path / "result.json").read_text()) == run.result
    assert json.loads((run.path / "config.json").read_text())["options"]["lr"] == 0.02
    assert sorted(p.name for p in run.path.iterdir()) == [
        ".lock",
        "best.safetensors",
        "checkpoints",
        "config.json",
        "config.toml",
        "events.jsonl",
        "hint.json",
        "model.safetensors",
        "result.json",
    ]


def test_events_say_where_it_ran_and_where_the_time_went(train: Train, store: gs.Store) -> None:
    events = list(read_events(train(micro_batches=2).path / "events.jsonl"))
    start, step, epoch = (next(e for e in events if e["kind"] == kind) for kind in ("run_start", "step", "epoch"))
    assert start["dataset_digest"] == store.digest
    assert start["argv"]
    assert start["host"].keys() >= {"cores", "ram", "gpu"}
    assert step["wall_ms"] == pytest.approx(step["wait_ms"] + step["compute_ms"], abs=0.002)
    assert step["io_ms"] >= 0
    assert epoch["seeds_per_s"] == pytest.approx(80 / epoch["wall_s"], abs=0.1)
    assert epoch["edges_per_s"] > epoch["seeds_per_s"]
    assert epoch["metrics"]["valid"]["acc"] == next(e for e in events if e["kind"] == "eval")["metrics"]["acc"]


def test_how_a_run_ended_is_in_its_events(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedWorkError):
        train(stop=StopAfter(5))
    with pytest.raises(GnnsysError, match=r"not finite|is nan|is inf"):
        train("steep", lr=1e30)
    ends = {name: list(read_events(tmp_path / name / "events.jsonl"))[-2:] for name in ("run", "steep")}
    assert ends["run"][-1]["status"] == "interrupted"
    assert [(e["kind"], e.get("code")) for e in ends["steep"]] == [("error", "GS-TRAIN-001"), ("run_end", None)]
