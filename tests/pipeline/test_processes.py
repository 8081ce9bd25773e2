"""Stages in processes of their own, through the command line: the same weights, bytes as promised, clear errors."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs
from gnnsys.training.tensors import decode
from tests.pipeline.conftest import command, run, torchrun, train

CLASSES, HIDDEN = 4, 16


@pytest.fixture(scope="module")
def alone(pack: gs.Pack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process, no pipeline, dropout on."""
    return train(pack.path, tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_any_number_of_stages_ends_in_the_same_weights(
    pack: gs.Pack, alone: dict[str, Any], tmp_path: Path, stages: int
) -> None:
    found = train(pack.path, tmp_path / "run", "--pipeline", str(stages))
    same = ("weights_digest", "losses", "valid", "metrics", "best_epoch", "files", "steps")
    assert {key: found[key] for key in same} == {key: alone[key] for key in same}
    assert found["bytes_read"] == found["bytes_planned"]
    if stages > 1:
        _check_traffic(pack, found["pipeline"], epochs=2)


def _check_traffic(pack: gs.Pack, told: dict[str, Any], epochs: int) -> None:
    """Per boundary and batch one message each way, of the rows that the layer behind it reads, 4 bytes a value."""
    batches, bounds = pack.pool.num_batches, told["bounds"]
    hops = pack.pool.hops
    rows = [int(pack.pool.num_nodes[:, hops - bound].sum()) for bound in bounds[1:-1]]
    for rank in told["ranks"]:
        beside = rows[max(rank["stage"] - 1, 0) : rank["stage"] + 1]
        assert rank["bytes_sent"] == epochs * 4 * HIDDEN * sum(beside)
        assert rank["messages_sent"] == epochs * batches * len(beside)


def test_the_other_schedule_ends_in_the_same_weights(pack: gs.Pack, alone: dict[str, Any], tmp_path: Path) -> None:
    found = train(pack.path, tmp_path / "run", "--pipeline", "2", "--schedule", "gpipe")
    assert found["weights_digest"] == alone["weights_digest"]


def test_stages_sample_a_store_alike(pack: gs.Pack, tmp_path: Path) -> None:
    options = ("--fanouts", "4,3,2", "--batch-size", "128")
    store = pack.path.parent / "store"
    one, two = (train(store, tmp_path / n, *options, "--pipeline", n) for n in ("1", "2"))
    assert one["weights_digest"] == two["weights_digest"]


def test_replicas_of_stages_share_the_batches(pack: gs.Pack, alone: dict[str, Any], tmp_path: Path) -> None:
    started = torchrun("--standalone", "--nproc-per-node", "4")
    done = run([*started, *command(pack.path, tmp_path / "run", "--pipeline", "2")])
    assert done.returncode == 0, done.stderr
    found = gs.Run.open(tmp_path / "run")
    assert found.result["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert [(r["stage"], r["replica"]) for r in found.result["pipeline"]["ranks"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sum(r["messages_sent"] for r in found.result["pipeline"]["ranks"]) == 2 * 2 * pack.pool.num_batches
    whole = gs.Run.open(alone["run"])
    for name, tensor in decode((whole.path / "model.safetensors").read_bytes(), whole.path).items():
        other = decode((found.path / "model.safetensors").read_bytes(), found.path)[name]
        assert (tensor - other).abs().max() < 1e-5
    again = run([sys.executable, *command(pack.path, tmp_path / "run", "--pipeline", "2")])
    assert again.returncode == 3
    assert "replicas" in again.stderr


def test_two_hosts_under_torchrun_end_in_the_same_weights(
    pack: gs.Pack, alone: dict[str, Any], tmp_path: Path, two_hosts: Any
) -> None:
    assert two_hosts(command(pack.path, tmp_path / "run", "--pipeline", "2")) == [0, 0]
    assert gs.Run.open(tmp_path / "run").result["weights_digest"] == alone["weights_digest"]


CHUNKED = ("--model", "gcnii", "--layers", "4", "--chunks", "6", "--epochs", "4", "--refresh", "3", "--eval-every", "2")


@pytest.fixture(scope="module")
def whole_graph(pack: gs.Pack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process on the whole graph in chunks, dropout on, looking at the exact loss once."""
    store = pack.path.parent / "store"
    return train(store, tmp_path_factory.mktemp("whole") / "run", *CHUNKED, "--guard-every", "3", "--pipeline", "1")


@pytest.mark.parametrize("stages", [2, 4])
def test_chunks_end_in_the_same_weights_for_any_number_of_stages(
    pack: gs.Pack, whole_graph: dict[str, Any], tmp_path: Path, stages: int
) -> None:
    store = gs.Store.open(pack.path.parent / "store")
    recompute = ("--recompute",) if stages == 4 else ()
    options = (*CHUNKED, "--guard-every", "3", "--pipeline", str(stages), *recompute)
    found = train(store.path, tmp_path / "run", *options)
    same = ("weights_digest", "losses", "valid", "metrics", "best_epoch", "files", "steps", "drifts")
    assert {key: found[key] for key in same} == {key: whole_graph[key] for key in same}
    assert found["bytes_read"] == found["bytes_planned"]
    ranks = found["pipeline"]["ranks"]
    steps, sweeps, rows = 4, 2, 2 * HIDDEN  # rows and initial rows; sweeps before the first epoch and for the guard
    assert sum(rank["bytes_sent"] for rank in ranks) == (2 * steps + sweeps) * (stages - 1) * store.num_nodes * rows * 4
    assert sum(rank["messages_sent"] for rank in ranks) == (2 * steps + sweeps) * (stages - 1) * 6


def test_chunks_under_torchrun_go_on_with_another_number_of_stages(
    pack: gs.Pack, whole_graph: dict[str, Any], tmp_path: Path
) -> None:
    store = pack.path.parent / "store"
    half = command(store, tmp_path / "run", *CHUNKED, "--guard-every", "3", "--pipeline", "2", "--epochs", "4")
    started = torchrun("--standalone", "--nproc-per-node", "2")
    assert run([*started, *half]).returncode == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "ckpt-000004")
    (tmp_path / "run" / "result.json").unlink()
    again = train(store, tmp_path / "run", *CHUNKED, "--guard-every", "3", "--pipeline", "1")
    assert again["resumed_from"] == "ckpt-000002"
    assert again["weights_digest"] == whole_graph["weights_digest"]


@pytest.mark.parametrize("what", ["batches", "chunks"])
def test_schedules_and_class_weights_are_those_of_one_process(pack: gs.Pack, tmp_path: Path, what: str) -> None:
    source, chunked = (pack.path, ()) if what == "batches" else (pack.path.parent / "store", CHUNKED)
    options = ("--lr-schedule", "cosine", "--warmup-epochs", "1", "--class-weights", "balanced", "--clip-norm", "0.5")
    one, cut = (train(source, tmp_path / n, *chunked, *options, "--pipeline", n) for n in ("1", "2"))
    assert (cut["weights_digest"], cut["losses"]) == (one["weights_digest"], one["losses"])


def test_what_cannot_be_cut_is_refused_in_one_line(pack: gs.Pack, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(_WITHOUT_LAYERS)
    for options, message in (
        (("--pipeline", "5"), "4 layers cannot be cut into 5 stages"),
        (("--pipeline", "2", "--model", f"{tmp_path / 'net.py'}:Net"), "Net offers no layers"),
        (("--pipeline", "2", "--memory", "10MiB"), "in 2 processes, --memory is 10.0 MiB"),
    ):
        done = run([sys.executable, *command(pack.path, tmp_path / "run", *options)])
        assert done.returncode in (3, 8)
        assert message in done.stderr
        assert done.stderr.count("error ") == 1
        assert not (tmp_path / "run" / "config.json").exists()


_WITHOUT_LAYERS = """
from torch import nn
class Net(nn.Module):
    def __init__(self, in_channels, hidden_channels, num_layers, out_channels, dropout):
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)
    def forward(self, x, edge_index):
        return self.lin(x)
"""


def test_a_world_that_does_not_fit_the_stages_is_refused(pack: gs.Pack, tmp_path: Path) -> None:
    started = torchrun("--standalone", "--nproc-per-node", "2")
    store = pack.path.parent / "store"
    for source, options, message in (
        (pack.path, ("--pipeline", "3"), "GS-CFG-812"),
        (pack.path, ("--micro-batches", "3"), "GS-CFG-813"),
        (store, ("--chunks", "4", "--layers", "2"), "have no replicas"),
    ):
        done = run([*started, *command(source, tmp_path / "run", *options)])
        assert done.returncode != 0
        assert message in done.stderr
