"""Cut layers into stages so that the slowest stage is as fast as possible."""

from __future__ import annotations

from collections.abc import Sequence

from gnnsys.errors import ConfigError


def balance(costs: Sequence[float], num_stages: int) -> list[int]:
    """Bounds of the stages: stage s has layers `bounds[s] : bounds[s + 1]`, at least one.

    Dynamic programming over (layers, stages): the best cut of the first j layers into s stages ends with a stage of
    layers k .. j, for the k that makes the slower of the two sides fastest. O(layers^2 * stages).

    Args:
        costs: of every layer, (L,) non-negative, any unit.
        num_stages: between 1 and L.

    Raises:
        ConfigError: there are more stages than layers, or none.
    """
    num_layers = len(costs)
    if not 1 <= num_stages <= num_layers:
        raise ConfigError(
            "GS-CFG-811",
            f"{num_layers} layers cannot be cut into {num_stages} stages: every stage needs at least one layer",
            hint=f"Use --pipeline 1 to {num_layers}, or a model with more --layers.",
        )
    before = [0.0]
    for cost in costs:
        before.append(before[-1] + cost)
    best = [before[:]]  # best[s][j]: slowest of s + 1 stages over the first j layers
    cut: list[list[int]] = []
    for stage in range(1, num_stages):
        row, where = [float("inf")] * (num_layers + 1), [0] * (num_layers + 1)
        for j in range(stage + 1, num_layers + 1):
            for k in range(stage, j):
                slowest = max(best[stage - 1][k], before[j] - before[k])
                if slowest < row[j]:
                    row[j], where[j] = slowest, k
        best.append(row)
        cut.append(where)
    bounds = [num_layers]
    for where in reversed(cut):
        bounds.append(where[bounds[-1]])
    return [0, *reversed(bounds)]
