"""TrainState: where a run stands between two steps, as plain values that go into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gnnsys.training.drift import Drift

THREAD_STAGES = ("load_s", "read_s", "assemble_s")
"""What the loader's threads spend time on."""


@dataclass(kw_only=True)
class EpochRecord:
    """One finished epoch."""

    loss: float
    """Mean loss per labelled seed."""
    seconds: float
    bytes_read: int
    bytes_planned: int
    valid: float | None = None
    """Metric on `valid`, None when the epoch was not evaluated."""


@dataclass(kw_only=True)
class TrainState:
    """Position, the sums of the epoch under way, finished epochs and the best one."""

    step: int = 0
    """Steps done since the start of the run."""
    epoch: int = 0
    batches: int = 0
    """Batches of this epoch that are part of a finished step."""
    loss_sum: float = 0.0
    count: float = 0.0
    seeds: int = 0
    edges: int = 0
    seconds: float = 0.0
    wait_s: float = 0.0
    """Of `seconds`, those that this process waited for data."""
    load_s: float = 0.0
    read_s: float = 0.0
    assemble_s: float = 0.0
    """Seconds of the loader's threads, beside: drawing or decoding batches, reading rows, putting them in place."""
    bytes_read: int = 0
    history: list[EpochRecord] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    """Of a whole graph in chunks, as often as it was looked at."""
    best_epoch: int | None = None
    best_checkpoint: str = ""
    bad_evaluations: int = 0
    """Evaluations since the best one."""

    def end_epoch(self, record: EpochRecord) -> None:
        """Keep `record` and start the next epoch's sums."""
        self.history.append(record)
        self.epoch += 1
        self.batches, self.loss_sum, self.count, self.seeds, self.edges = 0, 0.0, 0.0, 0, 0
        self.seconds, self.wait_s, self.bytes_read = 0.0, 0.0, 0
        self.load_s = self.read_s = self.assemble_s = 0.0

    @property
    def best_value(self) -> float | None:
        return None if self.best_epoch is None else self.history[self.best_epoch].valid

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainState:
        history = [EpochRecord(**record) for record in values["history"]]
        drifts = [Drift(**drift) for drift in values["drifts"]]
        return cls(**{**values, "history": history, "drifts": drifts})
