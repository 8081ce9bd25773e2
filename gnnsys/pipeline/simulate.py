"""Run a schedule on paper: when every action starts and ends, who waits, and whether everyone gets to the end.

A stage performs its row in order. A forward waits for the same micro-batch's forward on the stage before, a backward
for its own forward and for the backward on the stage behind. Sends do not block (the runner keeps the buffers), so
these are the only ways to wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnnsys.pipeline.schedule import Action, Schedule


class ScheduleError(ValueError):
    """The schedule can never be carried out."""


@dataclass(frozen=True)
class Timed:
    """One action in time, in the units of the costs given."""

    stage: int
    action: Action
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """All actions of a schedule in an order in which they can be performed, one by one or each at its time."""

    num_stages: int
    actions: tuple[Timed, ...]

    @property
    def length(self) -> float:
        """When the last action ends."""
        return max(timed.end for timed in self.actions)

    @property
    def bubble(self) -> float:
        """Share of the stages' time in which they wait, in [0, 1)."""
        busy = sum(timed.end - timed.start for timed in self.actions)
        return 1.0 - busy / (self.num_stages * self.length)


def simulate(
    schedule: Schedule,
    forward: Sequence[float] | float = 1.0,
    backward: Sequence[float] | float = 1.0,
    transfer: float = 0.0,
) -> Timeline:
    """Perform `schedule` with the given cost per action.

    Args:
        forward, backward: cost of one action, the same everywhere or one number per stage.
        transfer: from the end of an action to when the next stage has its result.

    Raises:
        ScheduleError: an action is missing, there twice, or waits for ever.
    """
    _check_rows(schedule)
    num_stages = schedule.num_stages
    costs = {"F": _per_stage(forward, num_stages), "B": _per_stage(backward, num_stages)}
    ends: dict[tuple[int, Action], float] = {}
    free, done = [0.0] * num_stages, [0] * num_stages
    timed: list[Timed] = []
    while len(timed) < sum(map(len, schedule.rows)):
        ready = [s for s in range(num_stages) if _ready_at(schedule, ends, s, done[s], transfer) is not None]
        if not ready:
            stuck = [f"stage {s} at {row[n]}" for s, (row, n) in enumerate(_rest(schedule, done))]
            raise ScheduleError(f"{schedule.name}: every stage waits for another: {', '.join(stuck)}")
        for stage in ready:
            action = schedule.rows[stage][done[stage]]
            after = _ready_at(schedule, ends, stage, done[stage], transfer)
            assert after is not None
            start = max(free[stage], after)
            free[stage] = ends[stage, action] = start + costs[action.kind][stage]
            timed.append(Timed(stage, action, start, free[stage]))
            done[stage] += 1
    return Timeline(num_stages, tuple(sorted(timed, key=lambda t: (t.start, t.end))))


def grid(schedule: Schedule) -> str:
    """The schedule as a table, a row per stage and a column per unit of time; dots where a stage waits."""
    timeline = simulate(schedule)
    cells = [["."] * int(timeline.length) for _ in range(schedule.num_stages)]
    for timed in timeline.actions:
        cells[timed.stage][int(timed.start)] = str(timed.action)
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join(
        f"stage {stage}  " + " ".join(cell.ljust(width) for cell in row).rstrip() for stage, row in enumerate(cells)
    )


def _check_rows(schedule: Schedule) -> None:
    expected = {Action(kind, micro) for kind in ("F", "B") for micro in range(schedule.num_micro)}
    for stage, row in enumerate(schedule.rows):
        if len(row) != len(set(row)) or set(row) != expected:
            raise ScheduleError(
                f"{schedule.name}: stage {stage} must run every forward and backward of {schedule.num_micro} "
                "micro-batches exactly once"
            )


def _per_stage(cost: Sequence[float] | float, num_stages: int) -> Sequence[float]:
    return [cost] * num_stages if isinstance(cost, int | float) else cost


def _rest(schedule: Schedule, done: Sequence[int]) -> list[tuple[tuple[Action, ...], int]]:
    return [(row, n) for row, n in zip(schedule.rows, done, strict=True) if n < len(row)]


def _ready_at(
    schedule: Schedule, ends: dict[tuple[int, Action], float], stage: int, number: int, transfer: float
) -> float | None:
    """When the stage's next action has what it needs; None while that is not known, or there is no next one."""
    row = schedule.rows[stage]
    if number == len(row):
        return None
    action = row[number]
    needed = _needs(schedule.num_stages, stage, action)
    if any(need not in ends for need in needed):
        return None
    return max((ends[need] + (transfer if need[0] != stage else 0.0) for need in needed), default=0.0)


def _needs(num_stages: int, stage: int, action: Action) -> list[tuple[int, Action]]:
    if action.kind == "F":
        return [(stage - 1, action)] if stage else []
    behind = [(stage + 1, action)] if stage + 1 < num_stages else []
    return [(stage, Action("F", action.micro)), *behind]
