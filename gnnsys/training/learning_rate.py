"""The learning rate of a step, as a part of `lr`: a function of its number alone, so that nothing need be saved."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def lr_factor(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """What `lr` is multiplied with in step `step` of `steps`, both counted over the whole run.

    In the first `warmup` steps it rises in equal parts up to 1; over the rest `linear` and `cosine` fall towards 0,
    which they would reach in step `steps`.

    Source: `torch.optim.lr_scheduler.LinearLR` and `CosineAnnealingLR` (Loshchilov and Hutter 2017, eq. 5, without
    restarts), one after the other.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(steps - warmup, 1)
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
