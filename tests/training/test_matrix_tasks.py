"""Tasks on label matrices: unknown values have no loss, and a run is scored by its kind, on its Store or another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, huber_loss

import gnnsys as gs
from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.training.run import train_from_config
from tests.graphs import ingest_arrays

N, T = 300, 4
KINDS = {"multilabel": gs.MultilabelClassification, "regression": gs.NodeRegression}


def make_store(folder: Path, kind: str, seed: int = 0, columns: int = 6) -> gs.Store:
    """Labels are functions of the rows, a fifth of them unknown."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, columns)).astype(np.float32)
    y = x[:, :T] * 2 + x[:, [1]]
    y = (y > 0).astype(np.float32) if kind == "multilabel" else y
    y = np.arange(N) % T if kind == "class" else np.where(rng.random((N, T)) < 0.2, np.nan, y)
    splits = {"train": np.arange(0, 200), "valid": np.arange(200, 250), "test": np.arange(250, N)}
    edges = rng.integers(0, N, (2, 4 * N))
    return ingest_arrays(folder, *edges, N, x=x, y=y, splits=splits, label_kind=kind)


def batch_of(y: Tensor) -> Batch:
    seeds = torch.arange(len(y))
    return Batch(seeds=seeds, n_id=seeds, num_nodes=(len(y),), blocks=(), degree=seeds.int(), y=y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_sum_over_known_values_and_no_gradient_comes_from_others(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    out = torch.randn(6, T, generator=rng, requires_grad=True)
    y = torch.randint(0, 2, (6, T), generator=rng).float()
    y[0], y[3, 2] = torch.nan, torch.nan
    total, count = KINDS[kind](T).loss(out, batch_of(y))
    slow = 0.0
    for value, truth in zip(out.detach().double().flatten(), y.double().flatten(), strict=True):
        if not truth.isnan():
            p = torch.sigmoid(value)
            bce = -(truth * p.log() + (1 - truth) * (1 - p).log())
            slow += float(bce if kind == "multilabel" else (value - truth) ** 2)
    assert (float(total.detach()), count) == (pytest.approx(slow, rel=1e-6), 6 * T - T - 1)
    total.backward()
    assert out.grad is not None
    assert bool((out.grad[y.isnan()] == 0).all())
    assert bool(out.grad.isfinite().all())


def huber(out: Tensor, y: Tensor) -> Tensor:
    return huber_loss(out, y, reduction="none")


def test_a_loss_of_ones_own_is_used_and_named_in_the_run() -> None:
    task = gs.NodeRegression(2, loss=huber)
    out, y = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, torch.nan]])
    assert task.loss(out, batch_of(y)) == (torch.tensor(2.5), 1)
    assert task.identity()["loss"].startswith("huber sha256:")


def test_a_loss_of_ones_own_sees_labelled_seeds_of_classes_only() -> None:
    def twice(out: Tensor, y: Tensor) -> Tensor:
        assert bool((y >= 0).all())
        return 2 * cross_entropy(out, y, reduction="none")

    out, y = torch.randn(5, 3), torch.tensor([0, -1, 2, 1, -1])
    (own, count), (usual, _) = (gs.NodeClassification(3, loss=f).loss(out, batch_of(y)) for f in (twice, None))
    assert (float(own), count) == (pytest.approx(2 * float(usual), rel=1e-6), 3)


@pytest.mark.parametrize("task", [gs.NodeClassification(3, loss=cross_entropy), gs.NodeRegression(3, loss=torch.dist)])
def test_a_loss_that_was_added_up_already_is_refused(task: Any) -> None:
    y = torch.zeros(4, 3) if isinstance(task, gs.NodeRegression) else torch.zeros(4).long()
    with pytest.raises(ConfigError, match="GS-CFG-904"):
        task.loss(torch.zeros(4, 3), batch_of(y))


@pytest.mark.parametrize(("kind", "metric"), [("multilabel", "rocauc"), ("regression", "r2")])
def test_training_learns_what_the_labels_ask_for(tmp_path: Path, kind: str, metric: str, one_thread: None) -> None:
    store = make_store(tmp_path / "store", kind)
    gs.pack(store, tmp_path / "pack", fanouts=[3], batch_size=50)
    options = {"model": "sage", "hidden": 16, "epochs": 40, "lr": 0.03, "dropout": 0.0, "metric": metric}
    run = train_from_config(tmp_path / "pack", options, tmp_path / "run")
    assert run.metrics["test"][metric] > 0.8
    again = gs.Run.open(tmp_path / "run").evaluate("test")
    assert again["metrics"]["test" if "test" in again["metrics"] else metric] == run.metrics["test"][metric]
    assert again["same_graph"] is True


@pytest.mark.parametrize("kind", ["multilabel", "regression", "class"])
@pytest.mark.parametrize("how", [{"chunks": 3}, {"fanouts": [3], "batch_size": 64, "micro_batches": 2}])
def test_chunks_and_micro_batches_take_matrices(tmp_path: Path, kind: str, how: dict[str, Any]) -> None:
    store = make_store(tmp_path / "store", kind)
    usual = {"class": "acc", "multilabel": "rocauc", "regression": "rmse"}[kind]
    options = {"model": "gcn", "hidden": 8, "epochs": 2, "layers": 1, "threads": 1, **how}
    run = train_from_config(store.path, options, tmp_path / "run")
    assert list(run.metrics["valid"]) == [usual]


@pytest.mark.parametrize(
    ("options", "code"),
    [({"metric": "rmse"}, "GS-CFG-503"), ({"metric": "accuracy"}, "GS-CFG-501"), ({"loss": "l1"}, "GS-CFG-905")],
)
def test_what_is_for_other_labels_is_refused(tmp_path: Path, options: dict[str, Any], code: str) -> None:
    store = make_store(tmp_path / "store", "multilabel")
    with pytest.raises(ConfigError, match=code):
        train_from_config(store.path, {"fanouts": [2], "epochs": 1, **options}, tmp_path / "run")


def test_a_task_refuses_labels_of_another_kind_or_width(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", "multilabel")
    with pytest.raises(ConfigError, match="GS-CFG-902"):
        gs.NodeClassification(T).seeds(store, "train")
    with pytest.raises(ConfigError, match="GS-CFG-902"):
        gs.NodeRegression(T).seeds(store, "train")
    with pytest.raises(ConfigError, match="GS-CFG-506"):
        gs.MultilabelClassification(T + 1).seeds(store, "train")


def test_several_answers_have_probabilities_and_no_class(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", "multilabel")
    run = train_from_config(store.path, {"fanouts": [2], "epochs": 1, "threads": 1}, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"GS-CFG-887.*has no class"):
        run.predict(tmp_path / "p.csv")
    for what in ("outputs", "probabilities"):
        for suffix in ("csv", "npy"):
            run.predict(tmp_path / f"{what}.{suffix}", what=what)
    outputs, found = (np.load(tmp_path / f"{what}.npy") for what in ("outputs", "probabilities"))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-outputs.astype(float))), rtol=1e-5)
    header, *lines = (tmp_path / "probabilities.csv").read_text().splitlines()
    assert header == ",".join(["node", *(f"p{t}" for t in range(T))])
    np.testing.assert_array_equal(np.array([line.split(",")[1:] for line in lines], dtype=np.float32), found)


def test_numbers_have_outputs_alone(run: gs.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-887.*has no probabilities"):
        run.predict(tmp_path / "p.csv", what="probabilities", store=run.path.parent / "store")
    run.predict(tmp_path / "p.csv", what="outputs", store=run.path.parent / "store")
    assert (tmp_path / "p.csv").read_text().startswith(",".join(["node", *(f"out{t}" for t in range(T))]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gs.Run:
    folder = tmp_path_factory.mktemp("inductive")
    store = make_store(folder / "store", "regression")
    return train_from_config(store.path, {"fanouts": [2], "epochs": 1, "threads": 1}, folder / "run")


def test_a_run_is_scored_on_another_store_as_its_weights_say(run: gs.Run, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", "regression", seed=9)
    found = run.evaluate("test", on=other)
    assert (found["store"], found["same_graph"]) == (other.id, False)
    trained = gs.Store.open(run.path.parent / "store")
    assert found["metrics"] != run.evaluate("test", store=trained)["metrics"]
    loader = gs.Loader(other, seeds="test", fanouts=[-1], batch_size=50, order="fixed")
    task, model = gs.NodeRegression(T), run.load_model()
    with loader, torch.no_grad():
        for batch in loader:
            task.score(task.outputs(model, batch), batch)
    # Whole graph at once or in batches: sums of float32 in another order.
    assert found["metrics"]["rmse"] == pytest.approx(task.metric.compute(), rel=1e-5)


def test_another_store_needs_the_word_for_it(run: gs.Run, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", "regression", seed=9)
    with pytest.raises(gs.GnnsysError, match="GS-IN-301"):
        run.evaluate("test", store=other)
    with pytest.raises(ConfigError, match="GS-CFG-903"):
        run.evaluate("test", store=other, on=other)


def test_another_store_must_have_the_same_rows_and_labels(run: gs.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-886"):
        run.evaluate("test", on=make_store(tmp_path / "wide", "regression", columns=7))
    with pytest.raises(ConfigError, match="GS-CFG-902"):
        run.evaluate("test", on=make_store(tmp_path / "classes", "class"))
