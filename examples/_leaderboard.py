"""What a leaderboard entry needs, from one set of options: several seeds, mean and deviation, parameters, hardware.

The data set is ingested once and packed once; every seed has its own weights, order of batches and dropout. All scores
are of the weights that were best on `valid`, with all neighbours, layer by layer.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import _results
import torch

import gnnsys as gs
from gnnsys.errors import GnnsysError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model on one data set of OGB."""

    dataset: str
    model: str
    hidden: int
    dropout: float
    fanouts: tuple[int, ...]
    batch_size: int
    epochs: int
    lr: float
    undirected: bool = False
    """Add the reverse of every edge, for data sets whose edges have a direction."""
    memory: str = "8GiB"
    """What ingesting, packing and training may grow by, each."""


def run(entry: Entry) -> None:
    """`work`, with the errors of gnnsys as it tells them."""
    try:
        work(entry)
    except GnnsysError as error:
        print(f"error {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def work(entry: Entry) -> None:
    """Read the command line, do the work, print the entry and write it as JSON."""
    given = _arguments(entry)
    started = time.perf_counter()
    source = f"ogb:{entry.dataset}:{given.root}"
    store = gs.ingest(source, given.work / "store", undirected=entry.undirected, memory=given.memory)
    pack = gs.pack(
        store,
        given.work / "pack",
        seeds="train",
        fanouts=list(entry.fanouts),
        batch_size=entry.batch_size,
        memory=given.memory,
        epochs=given.epochs,
    )
    prepared = time.perf_counter() - started
    runs, parameters = [], 0
    for seed in range(given.seeds):
        model = gs.build(
            entry.model,
            in_channels=store.table_columns("x"),
            hidden_channels=entry.hidden,
            num_layers=len(entry.fanouts),
            out_channels=store.num_classes,
            dropout=entry.dropout,
            seed=seed,
        )
        parameters = sum(weights.numel() for weights in model.parameters())
        done = gs.train(
            model,
            pack,
            task=gs.NodeClassification(store.num_classes),
            epochs=given.epochs,
            lr=entry.lr,
            seed=seed,
            memory=given.memory,
            out=given.work / f"run-{given.epochs}-{seed}",
        )
        runs.append(done.result)
        print(f"seed {seed}: " + ", ".join(f"{s} {m['acc']:.2%}" for s, m in done.metrics.items()), flush=True)
    _report(entry, given, runs, parameters, prepared)


def _hardware(device: str) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    used = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {used}, {platform.machine()}"


def _arguments(entry: Entry) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"{entry.model} on {entry.dataset}, as a leaderboard asks for it")
    parser.add_argument("root", nargs="?", default="dataset", help="folder that ogb keeps its downloads in")
    parser.add_argument(
        "--work", type=Path, default=Path("out") / entry.dataset, help="folder for store, pack and runs"
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many runs")
    parser.add_argument("--epochs", type=int, default=entry.epochs)
    parser.add_argument("--memory", default=entry.memory, help="what each step may grow by")
    return parser.parse_args()


def _report(
    entry: Entry, given: argparse.Namespace, runs: list[dict[str, Any]], parameters: int, prepared: float
) -> None:
    scores = {split: [run["metrics"][split]["acc"] for run in runs] for split in ("valid", "test")}
    epochs = [seconds for run in runs for seconds in run["epoch_s"]]
    result = {
        **asdict(entry),
        "epochs": given.epochs,
        "memory": given.memory,
        "seeds": given.seeds,
        "scores": scores,
        "parameters": parameters,
        "prepare_s": round(prepared, 1),
        "epoch_s": statistics.median(epochs),
        "peak_growth_bytes": max(run["peak_growth_bytes"] for run in runs),
        "evaluation": runs[0]["evaluation"],
        "hardware": _hardware(runs[0]["device"]),
    }
    path = given.work / "entry.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{entry.dataset}, {entry.model}, {given.seeds} seeds, {parameters:,} parameters, {result['hardware']}")
    for split, values in scores.items():
        print(f"  {split:<5} accuracy {_results.mean_and_deviation(values)}")
    print(f"  prepared in {prepared:.0f} s, epoch {result['epoch_s']:.1f} s; written to {path}")
