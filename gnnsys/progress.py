"""How long work reports where it stands: a function of (stage name, units done, units in all)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, float], None]


def silent(_stage: str, _done: float, _total: float) -> None:
    """Report nothing."""
