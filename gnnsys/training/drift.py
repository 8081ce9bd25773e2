"""Drift: how far chunks, which read rows of earlier epochs, have carried the loss away from the exact one.

Some drift is normal towards the end of the epochs between two snapshots, and heals with the next one; it is said. What
diverges does not heal: the loss of the chunks keeps falling while the exact one does not. Training ends when the two
are far apart twice in a row.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from gnnsys.errors import GnnsysError

NOTED, ALLOWED = 0.1, 0.5
"""Relative drifts: more is said, much more twice in a row ends training."""
_SMALL_LOSS = 0.5
"""Nats per node. A smaller loss is taken for this much: a tenth of next to nothing is not worth a word."""
_ADVICE = "Use fewer --chunks (1 is exact), a smaller --refresh or --lr, or a residual model (gcnii, resgcn)."


@dataclass(frozen=True)
class Drift:
    """Mean loss per labelled node in an epoch, as trained and with rows up to date under the same weights."""

    epoch: int
    loss: float
    exact: float

    @property
    def relative(self) -> float:
        """How much of the exact loss the chunks do not see; 0 when theirs is greater, all when it is not finite."""
        if not math.isfinite(self.exact):
            return math.inf
        return max(self.exact - self.loss, 0.0) / max(self.exact, _SMALL_LOSS)


def look_at(drifts: Sequence[Drift], *, speak: bool) -> None:
    """Warn about the newest drift, the first time that one is worth it.

    Args:
        drifts: all of a run, oldest first.
        speak: this process warns for all.

    Raises:
        GnnsysError: the chunks have diverged; on all ranks.
    """
    newest = drifts[-1]
    found = (
        f"in epoch {newest.epoch + 1} the loss of the chunks is {newest.loss:.4f}, with rows up to date it is "
        f"{newest.exact:.4f}"
    )
    if len(drifts) > 1 and min(drift.relative for drift in drifts[-2:]) > ALLOWED:
        error = GnnsysError("GS-PIPE-003", f"the chunks have diverged: {found}", hint=_ADVICE)
        error.everywhere = True
        raise error
    if speak and newest.relative > NOTED and not any(drift.relative > NOTED for drift in drifts[:-1]):
        warnings.warn(f"GS-PIPE-004: {found}. {_ADVICE}", RuntimeWarning, stacklevel=2)
