"""What safety costs: checksums of what is read, checkpoints while training, the way back after a kill.

Checksums: seconds of a cold epoch of rows from a pack that has just been opened, checked as it is first read, against
the same unchecked. Checkpoints: seconds of training with one after every epoch, against the same seconds without what
they took. The way back: from the start of a command that goes on with a run that was killed, until it trains.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gnnsys.bench.harness import Report, drop_caches, report, row, seconds
from gnnsys.ingestion import ingest
from gnnsys.loading.loader import Loader
from gnnsys.planning.packing import pack
from gnnsys.storage.pack import Pack
from gnnsys.training.events import read_events
from gnnsys.units import format_size

FANOUTS, BATCH_SIZE, FEATURES = [10, 10], 1024, 128
_IMPORTS = (
    "The way back is mostly imports: torch's, and torch._dynamo's with the first optimizer: 3.6 s when looked into."
)
_TRAINING = ("--model", "sage", "--hidden", "256", "--epochs", "100", "--eval-every", "100", "--memory", "2GiB")


def run(quick: bool, folder: Path) -> Report:
    """Prepare a graph and a pack in `folder` (12 GiB, or 1 when quick) and measure."""
    nodes, repeats, epochs = (1_000_000, 3, 3) if quick else (20_000_000, 5, 21)
    source = f"synthetic:powerlaw:nodes={nodes},edges={4 * nodes},feat={FEATURES},classes=16,train={100_000 / nodes}"
    store = ingest(source, folder / "store", memory="4GiB")
    pack(store, folder / "pack", fanouts=FANOUTS, batch_size=BATCH_SIZE, memory="1GiB", layout="packed")
    checked, unchecked = [], []
    _cold_epoch(folder / "pack", "first")  # compiles
    for _ in range(epochs):
        checked.append(_cold_epoch(folder / "pack", "first"))
        unchecked.append(_cold_epoch(folder / "pack", "off"))
    first, *ways_back, again = (_killed_after(folder, count) for count in (2, 2, 2, repeats))
    training, writing = again.seconds("epoch", "wall_s"), [ms / 1000 for ms in again.seconds("checkpoint", "wall_ms")]
    both = [sum(pair) for pair in zip(training, writing, strict=True)]
    starts = [run.start_s for run in (*ways_back, again)]
    rows = [
        row("checksums, cold epoch", "epoch_s", "s", checked, "unchecked", unchecked, less_is_better=True),
        row("checkpoints", "epoch_s", "s", both, "without", training, less_is_better=True),
        row("way back", "start_s", "s", starts, "first start", [first.start_s], less_is_better=True),
    ]
    config = {
        "nodes": nodes,
        "feature_bytes": nodes * store.row_bytes(),
        "fanouts": FANOUTS,
        "batch_size": BATCH_SIZE,
        "training": list(_TRAINING),
        "repeats": repeats,
        "cold_epochs": epochs,
        "quick": quick,
    }
    return report(rows, config, notes=[f"Features: {format_size(nodes * store.row_bytes())}. {_IMPORTS}"])


def _cold_epoch(path: Path, verify: str) -> float:
    drop_caches()
    with Loader(Pack.open(path, verify=verify), verify=verify) as loader:  # type: ignore[arg-type]
        return seconds(lambda: [None for _ in loader])


@dataclass(frozen=True)
class _Killed:
    """A process that trained until it was killed."""

    start_s: float
    """From its start until it trains."""
    events: list[dict[str, Any]]

    def seconds(self, kind: str, field: str) -> list[float]:
        return [float(event[field]) for event in self.events if event["kind"] == kind]


def _killed_after(folder: Path, checkpoints: int) -> _Killed:
    """Train on, in a process of its own, until it has written so many checkpoints."""
    out = folder / "run"
    told = len(list(read_events(out / "events.jsonl")))
    started = datetime.now(UTC)
    command = [sys.executable, "-m", "gnnsys", "train", str(folder / "pack"), "--out", str(out), *_TRAINING, "--json"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        while True:
            events = list(read_events(out / "events.jsonl"))[told:]
            if sum(event["kind"] == "checkpoint" for event in events) >= checkpoints:
                break
            if child.poll() is not None:
                raise RuntimeError(f"training ended with {child.returncode}")
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    begun = next(event["ts"] for event in events if event["kind"] == "run_start")
    return _Killed((datetime.fromisoformat(begun) - started).total_seconds(), events)
