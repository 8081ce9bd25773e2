"""Real kill -9 at random moments of ingest, pack and train: nothing finished is lost, the end is the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOURCE = "synthetic:powerlaw:nodes=60000,edges=600000,feat=64,classes=4,train=0.2,seed=3"


@dataclass(frozen=True)
class Verb:
    """One command to kill: how it is typed for a folder, and what of its result must not change."""

    name: str
    arguments: tuple[str, ...]
    lasting: tuple[str, ...]


INGEST = Verb("ingest", ("ingest", SOURCE, "{out}/store", "--memory", "16MiB"), ("store_id", "store_digest"))
PACK = Verb(
    "pack",
    ("pack", "{golden}/store", "{out}/pack", "--fanouts", "10,5", "--batch-size", "128", "--memory", "32MiB"),
    ("pool_id", "pool_digest", "pack_id", "pack_digest"),
)
TRAIN = Verb(
    "train",
    (
        *("train", "{golden}/pack", "--model", "sage", "--hidden", "32", "--dropout", "0.5", "--epochs", "2"),
        *("--checkpoint-steps", "5", "--threads", "1", "--memory", "256MiB", "--out", "{out}/run"),
    ),
    ("weights_digest", "losses", "metrics", "best_epoch"),
)


def _start(verb: Verb, golden: Path, out: Path) -> subprocess.Popen[str]:
    arguments = [a.format(golden=golden, out=out) for a in verb.arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "gnnsys", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = child.communicate(timeout=240)
    assert child.returncode == 0, stderr
    result: dict[str, Any] = json.loads(stdout)
    return result


@dataclass
class Golden:
    """What uninterrupted runs made, and how long each verb takes."""

    folder: Path
    results: dict[str, dict[str, Any]]
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    folder = tmp_path_factory.mktemp("golden")
    made = Golden(folder, {}, {})
    for verb in (INGEST, PACK, TRAIN):
        start = time.monotonic()
        made.results[verb.name] = _finish(_start(verb, folder, folder))
        made.seconds[verb.name] = time.monotonic() - start
    return made


def _kill_and_repeat(verb: Verb, golden: Golden, out: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Start `verb` again and again until `kills` of its processes were killed, then let it end.

    One that ends first was faster than its kill: the work begins anew in another folder, so that every kill counts.
    """
    killed, finished = 0, 0
    while killed < kills:
        child = _start(verb, golden.folder, out / str(finished))
        try:
            child.wait(timeout=rng.uniform(0.2, 1.0) * golden.seconds[verb.name])
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        _, stderr = child.communicate()
        assert child.returncode in (0, -signal.SIGKILL), stderr
        killed += child.returncode != 0
        finished += child.returncode == 0
    return _finish(_start(verb, golden.folder, out / str(finished)))


def _litter(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if ".tmp" in p.name or p.name == ".work"]


def _check(verb: Verb, golden: Golden, tmp_path: Path, kills: int, seed: int) -> None:
    result = _kill_and_repeat(verb, golden, tmp_path, kills, random.Random(seed))
    expected = golden.results[verb.name]
    assert {key: result[key] for key in verb.lasting} == {key: expected[key] for key in verb.lasting}
    assert _litter(tmp_path) == []


@pytest.mark.parametrize("verb", [INGEST, PACK, TRAIN], ids=lambda v: v.name)
def test_two_kills_leave_the_same_result(verb: Verb, golden: Golden, tmp_path: Path) -> None:
    _check(verb, golden, tmp_path, kills=2, seed=1)


@pytest.mark.crash
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("verb", "kills"), [(INGEST, 2), (PACK, 3), (TRAIN, 4)], ids=["ingest", "pack", "train"])
def test_chains_of_kills_leave_the_same_result(
    verb: Verb, kills: int, seed: int, golden: Golden, tmp_path: Path
) -> None:
    _check(verb, golden, tmp_path, kills, seed=100 + seed)
