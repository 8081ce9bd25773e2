"""What a run wrote down, finished or not: options, events, result, and the plan of the pack that it read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gnnsys.errors import GnnsysError, InputDataError
from gnnsys.storage.pack import Pack
from gnnsys.training.events import FoundEvents, read_events
from gnnsys.training.folder import CONFIG, RUN_FILE, read_json, read_result

_EVENTS = "events.jsonl"
STAGES = {
    "wait_s": "waiting for data",
    "compute_s": "computing",
    "eval_s": "evaluating",
    "load_s": "threads: drawing or decoding",
    "read_s": "threads: reading rows",
    "assemble_s": "threads: putting rows in place",
}
"""What seconds of the first process went to, by their names in the event of an epoch; its loader's threads work beside
the rest."""
TOLD = (*STAGES, "lr", "seeds_per_s")


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was when it was last trained."""

    number: int
    loss: float
    seconds: float
    valid: float | None
    growth: float | None
    """Bytes that the first process grew by at most, in the epoch and the evaluation behind it."""
    waited: float | None
    """Of its seconds, those that the first process waited for data; None of runs that did not add them up."""
    told: Mapping[str, float]
    """Of what `TOLD` names, what its event has."""


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
    lost: str
    """What of the events is missing or could not be read."""
    notes: tuple[str, ...]
    """Warnings and errors, in order."""
    plan: str
    """Explanation of the pack's plan; empty where there is none."""
    no_plan: str
    """Why the plan of the pack that is there now is not the run's."""
    metric: str
    run_file: str
    """Where the options are that train the same again; empty where there are none."""
    starts: str
    """How often it was started and where it went on; empty of a run that was never interrupted."""

    @property
    def epoch_s(self) -> list[float]:
        """Seconds of every epoch, as the result has them where there is one."""
        return list(self.result["epoch_s"]) if self.result is not None else [epoch.seconds for epoch in self.epochs]

    @property
    def status(self) -> str:
        if self.result is not None:
            return "finished"
        return f"not finished: {len(self.epochs)} of {self.config['options']['epochs']} epochs"

    @property
    def command(self) -> str:
        """What trains the same again elsewhere, or else what was typed; empty for a run from Python."""
        if self.run_file:
            return f"gnnsys train -c {shlex.quote(self.run_file)} --out ELSEWHERE"
        argv = self.start.get("argv")
        typed = isinstance(argv, list) and argv[1:2] == ["train"]
        return shlex.join(["gnnsys", *map(str, argv[1:])]) if argv and typed else ""


def read_run(path: Path) -> RunFacts:
    """The run in folder `path`.

    Raises:
        InputDataError: no run is there.
        CorruptStoreError: its configuration or result is damaged. Events may be: what is left of them is told.
    """
    if not (path / CONFIG).is_file():
        raise InputDataError("GS-IN-530", f"{path}: no run there ({CONFIG} is missing)")
    config, result, events = read_json(path / CONFIG), read_result(path), read_events(path / _EVENTS)
    metric = str(config["decisive"].get("task", {}).get("metric", config["options"]["metric"]))
    plan, no_plan = _plan(path, config)
    by_number = {event["epoch"]: event for event in events if event["kind"] == "epoch"}
    return RunFacts(
        name=path.name or str(path),
        config=config,
        result=result,
        start=next((event for event in events if event["kind"] == "run_start"), {}),
        epochs=tuple(_epoch(event, metric) for _, event in sorted(by_number.items())),
        lost=_lost(events),
        notes=tuple(f"{e['code']}: {e['msg']}" for e in events if e["kind"] in ("warning", "error")),
        plan=plan,
        no_plan=no_plan,
        metric=metric,
        run_file=str(path / RUN_FILE) if (path / RUN_FILE).is_file() else "",
        starts=_starts(events, result),
    )


def read_runs(paths: Sequence[Path]) -> list[RunFacts]:
    """Several runs, each under the shortest end of its path that no other run has.

    Raises:
        InputDataError, CorruptStoreError: as `read_run`.
    """
    whole = [path.resolve() for path in paths]
    return [replace(read_run(path), name=_short(at, {*whole} - {at})) for path, at in zip(paths, whole, strict=True)]


def _short(path: Path, others: set[Path]) -> str:
    parts = path.parts
    for count in range(1, len(parts)):
        if all(other.parts[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return str(path)


def _starts(events: FoundEvents, result: dict[str, Any] | None) -> str:
    count = sum(event["kind"] == "run_start" for event in events)
    resumed = (result or {}).get("resumed_from")
    if count < 2 and not resumed:
        return ""
    return f"{max(count, 2)} times" + (f", the last time from {resumed}" if resumed else "")


def _epoch(event: dict[str, Any], metric: str) -> Epoch:
    valid, growth = event.get("metrics"), event.get("growth_bytes")
    for name in ("valid", metric):
        valid = valid.get(name) if isinstance(valid, dict) else None
    spent, waited = float(event["wall_s"]), _number(event.get("wait_s"))
    told = {key: value for key in TOLD if (value := _number(event.get(key))) is not None}
    return Epoch(event["epoch"], float(event["loss"]), spent, _number(valid), _number(growth), waited, told)


def _number(value: Any) -> float | None:
    """None for what is no number, as in a line that was damaged, or was not measured."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _lost(found: FoundEvents) -> str:
    """What of the events cannot be shown, and why."""
    if not found.events:
        return f"{_EVENTS} is missing or empty: there are no curves and no times of epochs."
    if found.unreadable:
        return f"{_EVENTS} is damaged: lines that could not be read and are left out: {found.unreadable}."
    return ""


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
