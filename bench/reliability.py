"""The lines of docs/reliability.md: what the reliability programme ran, beside what the release set out to reach.

The counts are those that the sweeps in tests/ wrote into tests/programme.json (see tests/programme.py), and what
`gnnsys bench overheads` measured; a figure that nobody ran stands there as not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Mapping[str, int]]
"""Sums of counts, by sweep and name."""


@dataclass(frozen=True)
class Figure:
    """A line of the table. `count` is None where nothing was run; it is reached from `goal` on, or up to it where that
    is the most, unless `bad`."""

    what: str
    goal: int
    said: str
    """The goal in words."""
    count: Callable[[Results], int | None]
    bad: Callable[[Results], int]
    """Violations, findings, what went by undetected."""
    command: str
    at_most: bool = False


def _of(sweep: str, name: str) -> Callable[[Results], int | None]:
    return lambda results: results.get(sweep, {}).get(name)


def _bad(sweep: str, name: str = "violations") -> Callable[[Results], int]:
    return lambda results: results.get(sweep, {}).get(name, 0)


def _none(results: Results) -> int:
    return 0


_READERS, _RACES = "readers beside a dying writer", "races of two writers"
_DAMAGES = (
    *("truncations", "appended bytes", "swapped blocks", "swapped files", "foreign files"),
    *("deleted", "symlinks", "folders", "pipes"),
)


def _damages(results: Results) -> int | None:
    found = results.get("corruption")
    return None if found is None else sum(found.get(name, 0) for name in _DAMAGES)


def _missed(*names: str) -> Callable[[Results], int]:
    def count(results: Results) -> int:
        found = results.get("corruption", {})
        return sum(found.get(name, 0) - found.get(f"{name} found", 0) for name in names)

    return count


FIGURES = (
    Figure(
        "kill -9 of every verb at random moments and at any place where files change; nothing lost, the same bytes",
        *(500, "500 kills", _of("kills", "kills"), _bad("kills"), "make crash KILLS=100"),
    ),
    Figure(
        "failpoints that each verb passes, at each of which it was killed",
        *(1, "all of them", _of("failpoints", "killed at"), _bad("failpoints", "not reached"), "make crash KILLS=100"),
    ),
    Figure(
        "states that a loss of power leaves of a small file, a journal with its manifest, a growing file, checkpoints",
        *(20_000, "5,000 each", _of("simulated", "states"), _bad("simulated"), "make power STATES=5000"),
    ),
    Figure(
        "single-bit flips, all found",
        *(2000, "2,000 flips", _of("corruption", "bit flips"), _missed("bit flips"), "make corruption FLIPS=2000"),
    ),
    Figure(
        "truncations, swaps, foreign and missing files, links, folders and pipes, all found",
        *(1, "all", _damages, _missed(*_DAMAGES), "make corruption FLIPS=2000"),
    ),
    Figure(
        "system calls and reservations of memory that fail at one place of a verb: a clear error, then the same bytes",
        *(1000, "1,000 places x faults", _of("faults", "points"), _bad("faults"), "make faults FAULTS=300"),
    ),
    Figure(
        "damaged inputs of every parser, nothing but an error of ours",
        *(5_000_000, "5 million", _of("fuzz", "executions"), _bad("fuzz", "findings"), "make fuzz RUNS=5000000"),
    ),
    Figure(
        "hypothesis examples of the state machines of loader and cache",
        *(50_000, "50,000", _of("state machines", "examples"), _bad("state machines"), "make machines EXAMPLES=12500"),
    ),
    Figure(
        "races of two writers: one wins, the other ends with code 7",
        *(500, "500", _of(_RACES, "races"), _bad(_RACES), "make concurrency RACES=500"),
    ),
    Figure(
        "seconds of 8 readers beside a writer that is killed again and again: they see all of a pack or nothing",
        *(300, "300 seconds", _of(_READERS, "seconds"), _bad(_READERS), "make concurrency SECONDS=300"),
    ),
    Figure(
        "minutes of training, killed every 20 to 60 seconds: the weights of a run left alone, which grows by no memory "
        "and no open files",
        *(30, "30 minutes", _of("soak", "minutes"), _bad("soak"), "make soak MINUTES=30"),
    ),
    *(
        Figure(what, goal, said, _of("measured", what), _none, command, at_most)
        for what, goal, said, command, at_most in (
            ("lines of storage, checkpoints and importers that tests reach, %", 95, "95", "`make coverage`", False),
            ("branches of the same, %", 90, "90", "`make coverage`", False),
            ("mutation score of the core of storage, %", 70, "70", "`make mutants`", False),
            ("time that checkpoints add to training, %", 5, "at most 5", "`gnnsys bench overheads`", True),
            ("time that checksums add to a cold epoch, %", 5, "at most 5", "`gnnsys bench overheads`", True),
            ("milliseconds to go on after a kill, 10 GB", 5000, "at most 5,000", "`gnnsys bench overheads`", True),
            ("MiB beyond --memory, seen from outside", 256, "at most 256", "`make test`", True),
            ("lines of tests per 100 lines of the product", 150, "150", "`make coverage`", False),
            ("serving: p99 latency of a student, ms", 25, "at most 25", "there is no `gnnsys serve` yet", True),
        )
    ),
)


def overheads(report: Mapping[str, Any]) -> dict[str, int]:
    """The figures that `gnnsys bench overheads` measured."""
    rows = {row["case"]: row for row in report["rows"]}
    percent = {case: math.ceil(100 * max(0.0, row["ours"] / row["peer"] - 1)) for case, row in rows.items()}
    return {
        "time that checkpoints add to training, %": percent["checkpoints"],
        "time that checksums add to a cold epoch, %": percent["checksums, cold epoch"],
        "milliseconds to go on after a kill, 10 GB": round(1000 * rows["way back"]["ours"]),
    }


HEADER = ("what", "goal of the first release", "run", "", "command")


def rows(results: Results) -> list[list[str]]:
    """A line per figure: what, goal, what was run, whether that is reached, the command."""
    return [_row(figure, results) for figure in FIGURES]


def _row(figure: Figure, results: Results) -> list[str]:
    count, bad = figure.count(results), figure.bad(results)
    ran = "not run" if count is None else f"{count:,}, {bad:,} bad" if bad else f"{count:,}"
    met = count is not None and (count <= figure.goal if figure.at_most else count >= figure.goal)
    reached = "reached" if met and not bad else "**missed**"
    command = f"`{figure.command}`" if figure.command.startswith("make") else figure.command
    return [figure.what, figure.said, ran, reached, command]
