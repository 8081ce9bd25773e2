"""The verbs that crash tests kill, and what uninterrupted runs of them make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "synthetic:powerlaw:nodes=60000,edges=600000,feat=64,classes=4,train=0.2,seed=3"


@dataclass(frozen=True)
class Verb:
    """One command to kill: how it is typed for a folder, and what of its result must not change."""

    name: str
    arguments: tuple[str, ...]
    lasting: tuple[str, ...]
    made: str
    """Name of the folder that it makes."""


INGEST = Verb("ingest", ("ingest", SOURCE, "{out}/store", "--memory", "16MiB"), ("store_id", "store_digest"), "store")
PACK = Verb(
    "pack",
    ("pack", "{golden}/store", "{out}/pack", "--fanouts", "10,5", "--batch-size", "128", "--memory", "32MiB"),
    ("pool_id", "pool_digest", "pack_id", "pack_digest"),
    "pack",
)
FOLD = Verb(
    "fold",
    (
        *("pack", "{golden}/store", "{out}/folded", "--fanouts", "10,5", "--batch-size", "128", "--memory", "32MiB"),
        *("--layout", "pre-aggregated", "--model", "sage"),
    ),
    PACK.lasting,
    "folded",
)
TRAIN = Verb(
    "train",
    (
        *("train", "{golden}/pack", "--model", "sage", "--hidden", "32", "--dropout", "0.5", "--epochs", "2"),
        *("--checkpoint-steps", "5", "--threads", "1", "--memory", "256MiB", "--out", "{out}/run"),
    ),
    ("weights_digest", "losses", "metrics", "best_epoch"),
    "run",
)

ADD = Verb(
    "add",
    ("add", "{out}/store", "--split", "mine={out}/mine.txt", "--memory", "32MiB"),
    ("tables", "splits"),
    "store",
)
SAMPLE = Verb(
    "sample",
    ("sample", "{golden}/store", "{out}/pool", "--fanouts", "10,5", "--batch-size", "128", "--memory", "32MiB"),
    ("pool_id", "pool_digest"),
    "pool",
)
PACK_POOL = Verb("pack", ("pack", "{golden}/pool", "{out}/pack", "--memory", "32MiB"), PACK.lasting, "pack")
EVALUATE = Verb("evaluate", ("evaluate", "{golden}/run", "--memory", "256MiB"), ("metrics", "seeds"), "run")
PREDICT = Verb(
    "predict", ("predict", "{golden}/run", "--out", "{out}/preds.csv", "--memory", "256MiB"), ("nodes",), "run"
)


def start(verb: Verb, golden: Path, out: Path, *, quiet: bool = True) -> subprocess.Popen[str]:
    """A child process with one verb, in a process group of its own."""
    arguments = [a.format(golden=golden, out=out) for a in verb.arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "gnnsys", *arguments, *(["--json"] if quiet else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed_within(child: subprocess.Popen[str], seconds: float) -> bool:
    """Kill the group of `child` unless it ends well within that time; says whether it was killed."""
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
    _, stderr = child.communicate()
    assert child.returncode in (0, -signal.SIGKILL), stderr
    return child.returncode != 0


def finish(child: subprocess.Popen[str], timeout_s: float = 240) -> dict[str, Any]:
    """What it printed as JSON. Of many epochs that is more than a pipe holds: the child waits until it is read."""
    stdout, stderr = child.communicate(timeout=timeout_s)
    assert child.returncode == 0, stderr
    result: dict[str, Any] = json.loads(stdout)
    return result


@dataclass
class Golden:
    """What uninterrupted runs made, and how long each verb takes."""

    folder: Path
    results: dict[str, dict[str, Any]]
    seconds: dict[str, float]
