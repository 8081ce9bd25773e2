"""Job: what a run trains, on what, and how it is described; made by `jobs`, executed by `session`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gnnsys.storage.store import Store
from gnnsys.training.config import TrainConfig
from gnnsys.training.feed import Feed
from gnnsys.training.splits import Scored
from gnnsys.training.stages import Part
from gnnsys.training.tasks import Task


@dataclass(kw_only=True)
class Job:
    """What to train, on what, and how it is described in `config.json`."""

    config: TrainConfig
    task: Task
    store: Store | None
    """For evaluation; without it the last epoch counts as the best."""
    decisive: Mapping[str, Any]
    """What decides the weights."""
    hints: Mapping[str, Any]
    """Kept for `Run.evaluate` and reports: paths, whether edge weights count, what outputs are of, what was drawn."""
    scored: Scored = field(default_factory=Scored)
    weights: np.ndarray | None = None
    """(E,) what edges are drawn by, also to be scored; None for uniformly."""
    make_model: Callable[[], nn.Module]
    make_loader: Callable[[torch.device, Part], Feed]
    repeat: Mapping[str, str | Path] | None = None
    """Paths that train the same again with the options of `config`; None when a model came as an object."""
    own_loader: bool = True
    """The loader is made here: its read-ahead may be chosen, and it is closed at the end."""
    model: nn.Module | None = field(default=None, init=False)
    """The trained model, with the final weights; on the first rank only."""
