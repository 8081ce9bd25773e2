"""Runs on a whole graph: checkpoints with history, the memory given, the guard, and what is refused."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnsys as gs
from gnnsys.errors import ConfigError, GnnsysError, InterruptedWorkError, MemoryBudgetError, VersionError
from gnnsys.pipeline.chunks import ChunkGraph
from gnnsys.pipeline.history import History
from gnnsys.training.chunk_feed import ChunkFeed
from gnnsys.training.config import parse_config
from gnnsys.training.run import train_from_config
from gnnsys.training.stages import Part

OPTIONS: dict[str, Any] = {
    "model": "gcnii",
    "layers": 4,
    "hidden": 8,
    "lr": 0.01,
    "epochs": 7,
    "eval_every": 3,
    "chunks": 5,
    "refresh": 3,
    "guard_every": 2,
    "threads": 1,
    "memory": "64MiB",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    source = "synthetic:powerlaw:nodes=600,edges=2400,feat=12,classes=4,train=0.3,seed=1"
    return gs.ingest(source, tmp_path_factory.mktemp("chunks") / "store", memory="64MiB")


def train(store: gs.Store, out: Path, stop_after: float | None = None, **options: Any) -> gs.Run:
    """A run of these options; asked to stop once that many epochs are done."""
    stop = threading.Event()

    def report(_what: str, done: float, _of: float) -> None:
        if stop_after is not None and done >= stop_after:
            stop.set()

    return train_from_config(store.path, {**OPTIONS, **options}, out, stop=stop, progress=report)


def checkpoints(out: Path) -> list[str]:
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [event["path"] for event in events if event["kind"] == "checkpoint"]


def test_a_network_of_the_callers_tells_how_deep_it_is(store: gs.Store, tmp_path: Path) -> None:
    sizes = {"in_channels": 12, "hidden_channels": 8, "num_layers": 4, "out_channels": 4}
    model, task = gs.build("gcnii", **sizes, dropout=0.5, seed=0), gs.NodeClassification(4)
    options = {key: value for key, value in OPTIONS.items() if key not in ("model", "layers", "hidden")}
    from_python = gs.train(model, store, task=task, out=tmp_path / "python", **options)
    by_name = train(store, tmp_path / "name", dropout=0.5)
    assert from_python.result["weights_digest"] == by_name.result["weights_digest"]


@pytest.mark.parametrize("refresh", [1, 3])
def test_a_run_goes_on_from_its_history_bit_by_bit(store: gs.Store, tmp_path: Path, refresh: int) -> None:
    whole = train(store, tmp_path / "whole", refresh=refresh)
    assert checkpoints(tmp_path / "whole") == ["ckpt-000003", "ckpt-000006", "ckpt-000007"]
    for epochs in (2, 5):
        out = tmp_path / f"stopped-{epochs}"
        with pytest.raises(InterruptedWorkError, match=f"stopped after step {epochs}"):
            train(store, out, stop_after=epochs, refresh=refresh)
        again = train(store, out, refresh=refresh)
        assert again.result["resumed_from"] == f"ckpt-{epochs:06d}"
        assert again.result["weights_digest"] == whole.result["weights_digest"]
        assert again.result["losses"] == whole.result["losses"]


def test_what_cannot_change_the_weights_does_not(store: gs.Store, tmp_path: Path) -> None:
    plain = train(store, tmp_path / "plain")
    other = train(store, tmp_path / "other", recompute=True, rows="memory", guard_every=0, memory="48MiB")
    assert other.result["weights_digest"] == plain.result["weights_digest"]


def test_bf16_trains_near_float32(store: gs.Store, tmp_path: Path) -> None:
    wide, narrow = train(store, tmp_path / "wide"), train(store, tmp_path / "narrow", precision="bf16")
    assert narrow.result["losses"] == pytest.approx(wide.result["losses"], rel=0.02)
    assert narrow.result["weights_digest"] != wide.result["weights_digest"]


@pytest.mark.parametrize(
    "option", [{"chunks": 4}, {"refresh": 2}, {"compensation": 1.0}, {"history": "zero"}, {"shuffle_chunks": False}]
)
def test_what_can_change_the_weights_does(store: gs.Store, tmp_path: Path, option: dict[str, Any]) -> None:
    plain, other = train(store, tmp_path / "plain"), train(store, tmp_path / "other", **option)
    assert other.result["weights_digest"] != plain.result["weights_digest"]
    with pytest.raises(ConfigError, match=next(iter(option))):
        train(store, tmp_path / "plain", **option)


def test_one_chunk_takes_the_steps_of_full_neighbour_batches(store: gs.Store, tmp_path: Path) -> None:
    """A batch of all training nodes with all neighbours gives the same loss; sums are added in another order."""
    common = {"model": "sage", "layers": 2, "dropout": 0.0, "epochs": 5, "eval_every": 5}
    whole = train(store, tmp_path / "whole", **{**common, "chunks": 1})
    sampled = {**OPTIONS, **common, "fanouts": (-1, -1), "batch_size": 600}
    for name in ("chunks", "refresh", "guard_every"):
        del sampled[name]
    batch = train_from_config(store.path, sampled, tmp_path / "batch")
    assert whole.result["losses"] == pytest.approx(batch.result["losses"], rel=1e-4)
    assert whole.metrics == batch.metrics


def test_no_label_of_a_node_that_is_not_trained_on_is_seen(store: gs.Store) -> None:
    trained = len(store.split("train"))
    feed = _feed(store)
    counted = sum(int((feed.batch(chunk).y >= 0).sum()) for chunk in range(5))
    assert counted == trained
    labels = store.labels()
    assert labels is not None
    for chunk in range(5):
        batch = feed.batch(chunk)
        seen = batch.seeds[batch.y >= 0].numpy()
        assert np.isin(seen, store.split("train")).all()
        assert (batch.y[batch.y >= 0].numpy() == labels[seen]).all()


def _feed(store: gs.Store) -> Any:
    return ChunkFeed(store, gs.NodeClassification(4), parse_config(OPTIONS), torch.device("cpu"), Part())


def test_bytes_read_are_those_planned(store: gs.Store, tmp_path: Path) -> None:
    run = train(store, tmp_path / "run", rows="direct")
    assert run.result["bytes_read"] == run.result["bytes_planned"]
    assert min(run.result["bytes_read"]) > 0


def test_nothing_of_a_run_outlives_it(store: gs.Store, tmp_path: Path) -> None:
    """Without the garbage collector, which may not come for long: rows kept are most of the memory of a run."""
    gc.collect()
    gc.disable()
    try:
        train(store, tmp_path / "run")
        assert not [found for found in gc.get_objects() if type(found) in (History, ChunkGraph)]
    finally:
        gc.enable()


def test_what_does_not_fit_is_refused_with_the_shares(store: gs.Store, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="rows kept between chunks"):
        train(store, tmp_path / "run", memory="20MiB", hidden=512, layers=8)
    with pytest.raises(MemoryBudgetError, match=r"cut and hold its whole graph takes 300\.0 KiB"):
        train(store, tmp_path / "run", memory="299KiB")
    with pytest.raises(MemoryBudgetError, match=r"cut and hold its whole graph takes 5\d\.\d KiB in every process"):
        train(store, tmp_path / "run", memory="40KiB", chunks=1)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_network_that_learns_its_stale_rows_is_stopped(store: gs.Store, tmp_path: Path) -> None:
    """The known failure: sums of stale rows, never refreshed. The loss of the chunks falls, the exact one does not."""
    stale = {"history": "zero", "refresh": 1000, "chunks": 30, "shuffle_chunks": False, "guard_every": 4}
    with (
        pytest.warns(RuntimeWarning, match="GS-PIPE-004"),
        pytest.raises(GnnsysError, match="the chunks have diverged") as caught,
    ):
        train(store, tmp_path / "run", model="gin", hidden=16, lr=0.02, dropout=0.0, epochs=60, eval_every=60, **stale)
    assert "--refresh" in (caught.value.hint or "")
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    seen = [event for event in events if event["kind"] == "drift"]
    assert seen[-1]["loss"] < 0.8 * seen[0]["loss"]
    assert seen[-1]["exact"] > seen[0]["exact"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fanouts": (2, 2)}, "fanouts mean nothing"),
        ({"batch_size": 3}, "batch_size mean nothing"),
        ({"micro_batches": 2}, "micro_batches mean nothing"),
        ({"schedule": "1f1b"}, "must be fill-drain"),
        ({"chunks": None}, "'refresh' needs chunks"),
        ({"chunks": 601}, "600 nodes cannot be split into 601 parts"),
        ({"rows": "packed"}, "rows from the Store"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    store: gs.Store, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(store, tmp_path / "run", **options)


def test_reverse_order_is_for_chunks(store: gs.Store) -> None:
    """It would add the gradients of sampled micro-batches in another order than the other schedules do."""
    with pytest.raises(ConfigError, match="fill-drain, which is for chunks"):
        parse_config({"schedule": "fill-drain", "micro_batches": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "which chunks would update more than once"),
        ({"recompute": True}, "which recompute would update more than once"),
    ],
)
def test_running_statistics_are_refused(store: gs.Store, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    class Layer(torch.nn.Module):
        def __init__(self, columns: int, out: int) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(out)
            self.linear = torch.nn.Linear(columns, out)

        def forward(self, h: torch.Tensor, block: Any) -> torch.Tensor:
            return self.norm(self.linear(gs.aggregate(block, h, "mean")))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([Layer(12, 8), Layer(8, 4)])

        def forward(self, x: torch.Tensor, blocks: Any) -> torch.Tensor:
            for layer, block in zip(self.layers, blocks, strict=True):
                x = layer(x, block)
            return x

    with pytest.raises(ConfigError, match=message):
        gs.train(Net(), store, task=gs.NodeClassification(4), chunks=3, layers=2, out=tmp_path / "run", **options)


def test_a_model_without_layers_is_refused(store: gs.Store, tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(12, 4)

        def forward(self, x: torch.Tensor, blocks: Any) -> torch.Tensor:
            return self.linear(x)

    with pytest.raises(ConfigError, match="offers no layers"):
        gs.train(Net(), store, task=gs.NodeClassification(4), chunks=3, layers=1, out=tmp_path / "run")


def test_rows_that_do_not_fit_are_not_read_first(store: gs.Store, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="rows are kept in memory"):
        train(store, tmp_path / "run", rows="memory", memory=10_000)


def test_checkpoints_come_every_so_many_epochs(store: gs.Store, tmp_path: Path) -> None:
    train(store, tmp_path / "run", epochs=6, eval_every=6, checkpoint_steps=4)
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} >= {"ckpt-000004", "ckpt-000006"}


def test_rows_of_other_chunks_are_not_restored(store: gs.Store) -> None:
    task = gs.NodeClassification(4)
    device = torch.device("cpu")
    five, six = (
        ChunkFeed(store, task, parse_config({**OPTIONS, "chunks": chunks}), device, Part()) for chunks in (5, 6)
    )
    five.load_state_dict(five.state_dict())
    with pytest.raises(VersionError, match="cut into other chunks"):
        five.load_state_dict(six.state_dict())


def test_sampled_batches_have_no_chunks(store: gs.Store, tmp_path: Path) -> None:
    pool = gs.sample(store, tmp_path / "pool", seeds="train", fanouts=[2, 2], batch_size=64)
    with pytest.raises(ConfigError, match="chunks are of a whole graph"):
        train_from_config(pool.path, OPTIONS, tmp_path / "run")


def test_layers_that_look_at_edges_are_refused(
    store: gs.Store, tmp_path: Path, write_net: Callable[[str], str]
) -> None:
    with pytest.raises(ConfigError, match="chunks have no 'dst_index'"):
        train(store, tmp_path / "run", model=write_net("EdgeNet"), layers=2)


@pytest.fixture
def write_net(tmp_path: Path) -> Callable[[str], str]:
    def write(name: str) -> str:
        (tmp_path / "net.py").write_text(_EDGE_NET)
        return f"{tmp_path / 'net.py'}:{name}"

    return write


_EDGE_NET = """
from torch import nn
class Layer(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.lin = nn.Linear(a, b)
    def forward(self, h, block):
        out = self.lin(h)
        return out[: block.num_dst].index_add(0, block.dst_index(), out[block.indices])
class EdgeNet(nn.Module):
    def __init__(self, in_channels, hidden_channels, num_layers, out_channels, dropout):
        super().__init__()
        self.layers = nn.ModuleList([Layer(in_channels, hidden_channels), Layer(hidden_channels, out_channels)])
    def forward(self, x, blocks):
        for layer, block in zip(self.layers, blocks):
            x = layer(x, block)
        return x
"""
