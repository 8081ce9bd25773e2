"""What a run wrote down, finished or not: options, events, result, and the plan of the pack that it read."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnsys.errors import CorruptStoreError, GnnsysError, InputDataError
from gnnsys.storage.pack import Pack
from gnnsys.training.folder import CONFIG, read_json, read_result

_EVENTS = "events.jsonl"


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was when it was last trained."""

    number: int
    loss: float
    seconds: float
    valid: float | None
    growth: float | None
    """Bytes that the first process grew by at most, in the epoch and the evaluation behind it."""


@dataclass(frozen=True)
class Step:
    """One of the steps that were timed."""

    number: int
    wait_ms: float
    compute_ms: float


@dataclass(frozen=True)
class RunFacts:
    """One run, as far as it got."""

    name: str
    config: dict[str, Any]
    result: dict[str, Any] | None
    """None of a run that did not finish."""
    start: dict[str, Any]
    """The first `run_start` event: versions, host, command."""
    epochs: tuple[Epoch, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    """Warnings and errors, in order."""
    plan: str
    """Explanation of the pack's plan; empty where there is none."""
    no_plan: str
    """Why the plan of the pack that is there now is not the run's."""
    metric: str

    @property
    def status(self) -> str:
        if self.result is not None:
            return "finished"
        return f"not finished: {len(self.epochs)} of {self.config['options']['epochs']} epochs"

    @property
    def command(self) -> str:
        """What was typed, to type again; empty for a run from Python."""
        argv = self.start.get("argv") or []
        typed = len(argv) > 1 and argv[1] == "train"
        return shlex.join(["gnnsys", *argv[1:]]) if typed else ""


def read_run(path: Path) -> RunFacts:
    """The run in folder `path`.

    Raises:
        InputDataError: no run is there.
        CorruptStoreError: a file of it is damaged.
    """
    if not (path / CONFIG).is_file():
        raise InputDataError("GS-IN-530", f"{path}: no run there ({CONFIG} is missing)")
    config, result, events = read_json(path / CONFIG), read_result(path), _events(path / _EVENTS)
    metric = str(config["decisive"].get("task", {}).get("metric", config["options"]["metric"]))
    plan, no_plan = _plan(path, config)
    by_number = {event["epoch"]: event for event in events if event["kind"] == "epoch"}
    return RunFacts(
        name=path.name or str(path),
        config=config,
        result=result,
        start=next((event for event in events if event["kind"] == "run_start"), {}),
        epochs=tuple(_epoch(event, metric) for _, event in sorted(by_number.items())),
        steps=tuple(
            Step(e["step"], e["wait_ms"], e["compute_ms"]) for e in events if e["kind"] == "step" and "wait_ms" in e
        ),
        notes=tuple(f"{e['code']}: {e['msg']}" for e in events if e["kind"] in ("warning", "error")),
        plan=plan,
        no_plan=no_plan,
        metric=metric,
    )


def _epoch(event: dict[str, Any], metric: str) -> Epoch:
    valid = event.get("metrics", {}).get("valid", {}).get(metric)
    valid = None if valid is None else float(valid)
    return Epoch(event["epoch"], float(event["loss"]), event["wall_s"], valid, event.get("growth_bytes"))


def _events(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a line that a kill tore off ends without a newline."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            if line.endswith(b"\n"):
                found.append(json.loads(line))
        except ValueError:
            raise CorruptStoreError("GS-STORE-008", f"{path}: line {number} is damaged") from None
    return found


def _plan(path: Path, config: dict[str, Any]) -> tuple[str, str]:
    """Of the pack where the run says that it was, when it is still there; else why there is none to show."""
    source, pool = config.get("source_path"), config["decisive"].get("source", {}).get("pool")
    if not (source and pool):
        return "", ""
    for folder in (path.parent / source, Path(source), path / source):
        try:
            pack = Pack.open(folder)
        except (GnnsysError, OSError):
            continue
        if pack.pool.id == pool:
            return str(pack.plan), ""
        return "", f"{folder} holds another pack now than the one that this run read: its plan is not shown."
    return "", ""
