"""All stages of a pipeline in one process: mailboxes for channels, the simulated order for a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnsys.pipeline.channel import Wire
from gnnsys.pipeline.ranks import Alone
from gnnsys.pipeline.runner import StageRunner
from gnnsys.pipeline.schedule import Schedule
from gnnsys.pipeline.simulate import simulate


class Mailbox:
    """A channel between two stages of this process; a message must be there before it is waited for."""

    def __init__(self) -> None:
        self._letters: deque[Tensor] = deque()

    def send(self, buffer: Tensor) -> None:
        self._letters.append(buffer)

    def post(self, num_bytes: int) -> tuple[Any, Tensor]:
        buffer = torch.empty(num_bytes, dtype=torch.uint8)
        return _Arrival(self._letters, buffer), buffer

    def flush(self) -> None:
        pass


class _Arrival:
    def __init__(self, letters: deque[Tensor], buffer: Tensor) -> None:
        self._letters, self._buffer = letters, buffer

    def wait(self) -> None:
        self._buffer.copy_(self._letters.popleft())


class Seat(Alone):
    """The view of one stage."""

    def __init__(self, stage: int, num_stages: int, before: Wire, behind: Wire) -> None:
        self.stage, self.num_stages = stage, num_stages
        self._wires = (before, behind)

    def wires(self) -> tuple[Wire, Wire]:
        return self._wires


def seats(num_stages: int) -> list[Seat]:
    """One per stage, wired to each other."""
    ends: list[Any] = [(None, None), *((Mailbox(), Mailbox()) for _ in range(num_stages - 1)), (None, None)]
    return [
        Seat(
            stage,
            num_stages,
            Wire(out=ends[stage][1], into=ends[stage][0]),
            Wire(out=ends[stage + 1][0], into=ends[stage + 1][1]),
        )
        for stage in range(num_stages)
    ]


def perform(schedule: Schedule, runners: Sequence[StageRunner]) -> None:
    """Every action of the schedule, in an order in which processes could have performed them."""
    for timed in simulate(schedule).actions:
        runners[timed.stage].perform(timed.action)
