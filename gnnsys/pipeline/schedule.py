"""Schedules as data: which stage works on which micro-batch or chunk, forward or backward, in what order.

A schedule is one row of actions per stage. It knows nothing of time: `simulate` adds that, `runner` performs it.

    gpipe        all forwards, then all backwards in the same order        (Huang et al. 2019)
    1f1b         a backward as soon as one is possible: few live at once   (Narayanan et al. 2019, PipeDream-Flush)
    fill-drain   all forwards, then all backwards in reverse: for chunks, whose backward needs the later ones first
                 (GNNPipe, Chen et al. 2023)

Backwards of `gpipe` and `1f1b` come in the order of the micro-batches on every stage, so gradients are added up in the
order of one process and end in the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gnnsys.errors import ConfigError

Kind = Literal["F", "B"]


@dataclass(frozen=True)
class Action:
    """Forward or backward of one micro-batch (or chunk) through the layers of a stage."""

    kind: Kind
    micro: int

    def __str__(self) -> str:
        return f"{self.kind}{self.micro}"


@dataclass(frozen=True)
class Schedule:
    """What every stage does, in order."""

    name: str
    num_micro: int
    rows: tuple[tuple[Action, ...], ...]
    """Per stage, first to last."""

    @property
    def num_stages(self) -> int:
        return len(self.rows)

    def num_live(self, stage: int) -> int:
        """Micro-batches whose activations a stage holds at once, at most: forwards not yet followed by backwards."""
        live = most = 0
        for action in self.rows[stage]:
            live += 1 if action.kind == "F" else -1
            most = max(most, live)
        return most


def gpipe(num_stages: int, num_micro: int) -> Schedule:
    """All forwards, all backwards; every stage holds all micro-batches at once."""
    row = (*_all("F", range(num_micro)), *_all("B", range(num_micro)))
    return Schedule("gpipe", num_micro, (row,) * num_stages)


def one_forward_one_backward(num_stages: int, num_micro: int) -> Schedule:
    """Stage s runs `num_stages - s` forwards ahead, then alternates; it never holds more than that."""
    rows = []
    for stage in range(num_stages):
        ahead = min(num_micro, num_stages - stage)
        row = _all("F", range(ahead))
        for micro in range(num_micro):
            row.append(Action("B", micro))
            if micro + ahead < num_micro:
                row.append(Action("F", micro + ahead))
        rows.append(tuple(row))
    return Schedule("1f1b", num_micro, tuple(rows))


def fill_drain(num_stages: int, num_chunks: int) -> Schedule:
    """All forwards, then all backwards from the last chunk to the first."""
    row = (*_all("F", range(num_chunks)), *_all("B", reversed(range(num_chunks))))
    return Schedule("fill-drain", num_chunks, (row,) * num_stages)


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {
    "1f1b": one_forward_one_backward,
    "gpipe": gpipe,
    "fill-drain": fill_drain,
}


def make_schedule(name: str, num_stages: int, num_micro: int) -> Schedule:
    """A schedule by name.

    Raises:
        ConfigError: no such name, or not at least one stage and one micro-batch.
    """
    if name not in SCHEDULES:
        raise ConfigError("GS-CFG-810", f"schedule {name!r} is not known; there are {', '.join(SCHEDULES)}")
    if num_stages < 1 or num_micro < 1:
        raise ConfigError("GS-CFG-810", f"{num_stages} stages and {num_micro} micro-batches; both must be at least 1")
    return SCHEDULES[name](num_stages, num_micro)


def _all(kind: Kind, micros: Iterable[int]) -> list[Action]:
    return [Action(kind, micro) for micro in micros]
