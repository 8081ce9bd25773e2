"""Ranks that die, hang or are stopped: the others say so in time, and the run goes on to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs
from tests.pipeline.conftest import command, environment, torchrun, train

pytestmark = pytest.mark.crash
EPOCHS = ("--epochs", "30")


@pytest.fixture(scope="module")
def whole(pack: gs.Pack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the weights of an uninterrupted run."""
    found = train(pack.path, tmp_path_factory.mktemp("whole") / "run", *EPOCHS)
    return str(found["weights_digest"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all_and_the_command_continues_with_other_stages(
    pack: gs.Pack, whole: str, tmp_path: Path, victim: int
) -> None:
    arguments = [sys.executable, *command(pack.path, tmp_path / "run", *EPOCHS, "--pipeline", "2")]
    started = _started(arguments, tmp_path / "run")
    os.kill(_ranks(started.pid)[victim], signal.SIGKILL)
    began = time.monotonic()
    _, said = started.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert started.returncode == 11
    assert said.count("error ") == 1
    assert f"rank {victim} was killed by SIGKILL" in said
    resumed = train(pack.path, tmp_path / "run", *EPOCHS)
    assert resumed["weights_digest"] == whole
    assert resumed["resumed_from"]


def test_a_rank_that_hangs_is_given_up_after_the_timeout(pack: gs.Pack, whole: str, tmp_path: Path) -> None:
    options = (*EPOCHS, "--pipeline", "2")
    arguments = [sys.executable, *command(pack.path, tmp_path / "run", *options, "--stall-timeout", "3")]
    started = _started(arguments, tmp_path / "run")
    os.kill(_ranks(started.pid)[1], signal.SIGSTOP)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 11
    assert said.count("error ") == 1
    assert "rank 0 lost" in said
    assert train(pack.path, tmp_path / "run", *options)["weights_digest"] == whole


def test_a_stopped_pipeline_goes_on_with_one_process_and_back(pack: gs.Pack, whole: str, tmp_path: Path) -> None:
    two = [sys.executable, *command(pack.path, tmp_path / "run", *EPOCHS, "--pipeline", "2")]
    for arguments in (two, [*two[:-1], "1"]):
        started = _started(arguments, tmp_path / "run")
        started.terminate()
        _, said = started.communicate(timeout=60)
        assert started.returncode == 143
        assert said.count("interrupted") == 1
    assert train(pack.path, tmp_path / "run", *EPOCHS, "--pipeline", "4")["weights_digest"] == whole


def test_ranks_end_with_their_launcher(pack: gs.Pack, tmp_path: Path) -> None:
    arguments = [sys.executable, *command(pack.path, tmp_path / "run", "--epochs", "3000", "--pipeline", "2")]
    started = _started(arguments, tmp_path / "run")
    ranks = _ranks(started.pid)
    started.kill()
    started.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(_is_alive(rank) for rank in ranks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_is_alive(rank) for rank in ranks)


def test_torchrun_restarts_a_killed_rank_to_the_same_weights(pack: gs.Pack, whole: str, tmp_path: Path) -> None:
    launcher = torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    arguments = [*launcher, *command(pack.path, tmp_path / "run", *EPOCHS, "--pipeline", "2")]
    started = _started(arguments, tmp_path / "run")
    os.kill(_ranks(started.pid)[1], signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 0, said
    result = gs.Run.open(tmp_path / "run").result
    assert result["weights_digest"] == whole
    assert result["resumed_from"]


def test_torchrun_restarts_chunks_with_their_history_to_the_same_weights(pack: gs.Pack, tmp_path: Path) -> None:
    store = pack.path.parent / "store"
    chunked = ("--model", "resgcn", "--layers", "4", "--chunks", "6", "--refresh", "7", "--eval-every", "4")
    options = (*chunked, "--epochs", "60", "--pipeline", "2")
    whole = train(store, tmp_path / "whole", *options)
    launcher = torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    started = _started([*launcher, *command(store, tmp_path / "run", *options)], tmp_path / "run")
    os.kill(_ranks(started.pid)[1], signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 0, said
    result = gs.Run.open(tmp_path / "run").result
    assert result["resumed_from"]
    same = ("weights_digest", "losses", "drifts")
    assert {key: result[key] for key in same} == {key: whole[key] for key in same}


def _started(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    """The command, some steps after the first checkpoint that it wrote."""
    latest = out / "checkpoints" / "latest"
    before = latest.read_text() if latest.exists() else ""
    process = subprocess.Popen(
        arguments, env=environment(), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not latest.exists() or latest.read_text() == before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


def _ranks(launcher: int) -> list[int]:
    """Process ids of the ranks, by rank."""
    found: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables: Any = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == launcher:
            own = dict(each.partition(b"=")[::2] for each in variables)
            if b"RANK" in own:
                found[int(own[b"RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def _is_alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
