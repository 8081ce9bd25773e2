"""`gnnsys demo`: the whole arrow on a generated graph whose features are more than ten times the memory given."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from gnnsys.cli.common import Json, Memory, emit
from gnnsys.errors import ConfigError, GnnsysError
from gnnsys.units import format_size, parse_size

_FEATURES = 128
_CLASSES = 16
_ROWS_PER_BUDGET = 10.5
"""Feature bytes per byte of memory; the promise is ten."""

_SAMPLING = ["--fanouts", "10,5", "--batch-size", "512"]
_TRAINING = ["--model", "sage", "--layers", "2", "--hidden", "128", "--epochs", "3", "--lr", "0.01"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the store, the pack and the runs; kept.")] = Path("demo"),
    memory: Memory = "64MiB",
    as_json: Json = False,
) -> None:
    """Generate a graph, pack it, train out of core, train again in memory, and compare.

    Example: gnnsys demo --memory 64MiB
    """
    budget = parse_size(memory)
    nodes = int(budget * _ROWS_PER_BUDGET) // (_FEATURES * 4)
    if nodes < 20_000:
        raise ConfigError("GS-CFG-702", f"--memory {memory} is too small for the demo", hint="Give at least 8MiB.")
    steps = _Steps(quiet=as_json)
    source = f"synthetic:powerlaw:nodes={nodes},edges={nodes * 10},feat={_FEATURES},classes={_CLASSES},train=0.025"
    steps.run("ingest", "ingest", source, str(out / "store"), "--memory", memory)
    packed = steps.run("pack", "pack", str(out / "store"), str(out / "pack"), *_SAMPLING, "--memory", memory)
    halves = [
        steps.run(f"train, {label}", "train", str(out / "pack"), *_TRAINING, *options, "--out", str(out / folder))
        for label, folder, options in (
            ("out of core", "run", ["--rows", "packed", "--memory", memory]),
            ("in memory", "run-in-memory", ["--rows", "memory"]),
        )
    ]
    result = _compare(packed["plan"], *halves, budget=budget, feature_bytes=nodes * _FEATURES * 4)
    emit(result, _table(result, packed["plan"], steps.seconds, out, memory), as_json)


@dataclass
class _Steps:
    """Runs verbs as child processes, so that each one's memory is its own, and keeps their seconds."""

    quiet: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, label: str, *arguments: str) -> dict[str, Any]:
        if not self.quiet:
            print(f"$ gnnsys {' '.join(arguments)}", flush=True)
        start = time.perf_counter()
        # -P: a folder called gnnsys in the current one, such as a clone, is not to be imported
        command = [sys.executable, "-P", "-m", "gnnsys", *arguments, "--json"]
        child = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603
        if child.returncode:
            failed = GnnsysError("GS-DEMO-001", f"`gnnsys {arguments[0]}` failed", hint="Its message stands above.")
            failed.exit_code = child.returncode
            raise failed
        self.seconds[label] = time.perf_counter() - start
        result: dict[str, Any] = json.loads(child.stdout)
        if not self.quiet and "plan" in result:
            print(result["plan"]["explanation"], flush=True)
        return result


def _compare(
    plan: dict[str, Any], packed: dict[str, Any], memory: dict[str, Any], *, budget: int, feature_bytes: int
) -> dict[str, Any]:
    return {
        "accuracy": packed["metrics"]["test"]["acc"],
        "accuracy_in_memory": memory["metrics"]["test"]["acc"],
        "losses_identical": packed["losses"] == memory["losses"]
        and packed["weights_digest"] == memory["weights_digest"],
        "budget_bytes": budget,
        "peak_growth_bytes": packed["peak_growth_bytes"],
        "feature_bytes": feature_bytes,
        "bytes_read_per_epoch": packed["bytes_read"][0],
        "bytes_planned_per_epoch": packed["bytes_planned"][0],
        "read_amplification": plan["read_amplification"],
        "epoch_s": packed["epoch_s"],
        "epoch_s_in_memory": memory["epoch_s"],
    }


def _table(result: dict[str, Any], plan: dict[str, Any], seconds: dict[str, float], out: Path, memory: str) -> str:
    mapped = next(c for c in plan["candidates"] if c["layout"] == "direct")
    growth, budget = result["peak_growth_bytes"], result["budget_bytes"]
    same = "identical" if result["losses_identical"] else "NOT identical"
    rows = [
        ("", "out of core", "in memory"),
        ("test accuracy", f"{result['accuracy']:.2%}", f"{result['accuracy_in_memory']:.2%}"),
        ("losses and weights", same, same),
        ("epoch, seconds", _seconds(result["epoch_s"]), _seconds(result["epoch_s_in_memory"])),
        ("memory growth", f"{format_size(growth)} of {format_size(budget)}", "not limited"),
        ("feature table", format_size(result["feature_bytes"]), f"{result['feature_bytes'] / budget:.1f}x the budget"),
        ("read per epoch", format_size(result["bytes_read_per_epoch"]), "mapped file: " + format_size(mapped["bytes"])),
        ("planned per epoch", format_size(result["bytes_planned_per_epoch"]), ""),
    ]
    lines = [f"  {a:<22} {b:<26} {c}" for a, b, c in rows]
    stages = ", ".join(f"{label} {s:.1f} s" for label, s in seconds.items())
    train = f"gnnsys train {out / 'pack'} --model gcn --memory {memory} --out {out / 'run-gcn'}"
    report = f"gnnsys report {out / 'run'}"
    steps = ["  Next, look at the run, and try another model on the same pack:", f"    {report}", f"    {train}"]
    return "\n".join(["", *lines, "", f"  {stages}", "", *steps])


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
