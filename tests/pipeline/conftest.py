"""A small pack of four hops, and the command line to train on it in one process or several."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    """Four hops, 10 batches of at most 64 seeds; some nodes have no neighbours."""
    folder = tmp_path_factory.mktemp("pipeline")
    source = "synthetic:powerlaw:nodes=3000,edges=9000,feat=24,classes=4,train=0.2,seed=1"
    store = gs.ingest(source, folder / "store", memory="64MiB")
    return gs.pack(store, folder / "pack", seeds="train", fanouts=[5, 4, 3, 2], batch_size=64, memory="64MiB", seed=0)


BASE = ("--hidden", "16", "--epochs", "2", "--json", "--threads", "1")


def command(source: Path | str, out: Path, *options: str) -> list[str]:
    """`gnnsys train` with the options of these tests; four micro-batches where it is not chunks."""
    micro = () if "--chunks" in options else ("--micro-batches", "4")
    return ["-m", "gnnsys", "train", str(source), "--out", str(out), *BASE, *micro, *options]


def train(source: Path | str, out: Path, *options: str) -> dict[str, Any]:
    """Its result.

    Raises:
        AssertionError: it failed, with what it said.
    """
    done = run([sys.executable, *command(source, out, *options)])
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def torchrun(*options: str) -> list[str]:
    """The launcher that people know, on loopback."""
    return [sys.executable, "-m", "torch.distributed.run", *options]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=240, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def two_hosts() -> Any:
    """Run a command under two launchers, as if on two hosts of one rank each; returns their exit codes."""

    def start(arguments: list[str], *options: str) -> list[int]:
        where = f"127.0.0.1:{free_port()}"
        meet = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", where)
        hosts = [
            subprocess.Popen(
                [*torchrun(*meet, "--rdzv-id", "test", "--local-addr", "127.0.0.1", *options), *arguments],
                env=environment(),
                stdout=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        return [host.wait(timeout=240) for host in hosts]

    return start
