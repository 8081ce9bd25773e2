"""The memory promise, measured from outside: growth of every verb over the same verb on an 8-node graph."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.programme import measured

MEMORY = 64 << 20
NODES = 1_320_000
"""Rows of 512 bytes: ten times the memory."""

COUNTED = ("RssAnon:", "RssShmem:", "VmSwap:")


def _counted(pid: int) -> int:
    """Anonymous + shared + swapped bytes of one process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(COUNTED))


def _peak(*arguments: str) -> int:
    """Highest counted bytes of the command's process tree, looked at every few milliseconds."""
    child = subprocess.Popen(
        [sys.executable, "-m", "gnnsys", *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    tree = psutil.Process(child.pid)
    peak = 0
    while child.poll() is None:
        try:
            pids = [child.pid, *(p.pid for p in tree.children(recursive=True))]
        except psutil.NoSuchProcess:
            break
        peak = max(peak, sum(map(_counted, pids)))
        time.sleep(0.005)
    _, stderr = child.communicate()
    assert child.returncode == 0, stderr.decode()
    return peak


def _source(nodes: int) -> str:
    return f"synthetic:powerlaw:nodes={nodes},edges={nodes * 8},feat=128,classes=4,train={max(0.02, 4 / nodes)}"


def _verbs(folder: Path, nodes: int) -> dict[str, list[str]]:
    budget = ["--memory", str(MEMORY)]
    sampling = ["--fanouts", "10,5", "--batch-size", "512"]
    training = ["--model", "sage", "--hidden", "64", "--epochs", "1", "--out", str(folder / "run")]
    return {
        "ingest": ["ingest", _source(nodes), str(folder / "store"), *budget],
        "plan": ["plan", str(folder / "store"), *sampling, *budget],
        "pack": ["pack", str(folder / "store"), str(folder / "pack"), *sampling, *budget],
        "train": ["train", str(folder / "pack"), *training, *budget],
        "evaluate": ["evaluate", str(folder / "run"), "--split", "test", *budget],
        "predict": ["predict", str(folder / "run"), "--out", str(folder / "all.csv"), *budget],
    }


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Bytes by which each verb grew on ten times the memory, over the same verb on eight nodes."""
    small = {verb: _peak(*a) for verb, a in _verbs(tmp_path_factory.mktemp("small"), 8).items()}
    large = {verb: _peak(*a) for verb, a in _verbs(tmp_path_factory.mktemp("large"), NODES).items()}
    grown = {verb: large[verb] - small[verb] for verb in small}
    measured("MiB beyond --memory, seen from outside", max(0, max(grown.values()) - MEMORY) >> 20)
    return grown


@pytest.mark.parametrize("verb", ["ingest", "plan", "pack", "train", "evaluate", "predict"])
def test_a_verb_stays_inside_its_budget(verb: str, growth: dict[str, int]) -> None:
    assert growth[verb] <= MEMORY
