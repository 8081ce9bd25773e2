"""The table of scores of several runs, and their mean over seeds and over versions of a split."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gnnsys.reporting.facts import RunFacts
from gnnsys.reporting.markup import flat, grid, seconds
from gnnsys.units import format_score, format_size

COSTS = ("best epoch", "epoch, median", "memory at most", "read in an epoch")

_SEEDS = ("options.seed", "model.seed", "source.seed")
_DRAWN = (*_SEEDS, "options.seeds", "source.seeds", "source.pool", "source.source")
"""What may differ between two runs that were drawn in the same way. Ids tell apart what was drawn, and how."""


def scores_table(runs: Sequence[RunFacts]) -> str:
    """A row per run, then one per experiment of several: alike but for their seeds, or the version of their split."""
    done = [run for run in runs if run.result]
    scored = {run.name: _by_split((run.result or {})["metrics"]) for run in done}
    splits = sorted({split for metrics in scored.values() for split in metrics}, key=split_order)
    values = {run.name: [scored[run.name].get(split, {}).get(run.metric) for split in splits] for run in done}
    rows = [[run.name, *_written(run.metric, values[run.name]), *_costs(run.result or {})] for run in done]
    rows += [[run.name, *["-"] * len(splits), run.status, *["-"] * (len(COSTS) - 1)] for run in runs if not run.result]
    for alike in _experiments(done) if splits else []:
        label = f"{alike[0].name} and {len(alike) - 1} like it, mean ± deviation"
        columns = zip(*(values[run.name] for run in alike), strict=True)
        rows.append([label, *(_mean(alike[0].metric, column) for column in columns), *[""] * len(COSTS)])
    metric = " or ".join(sorted({run.metric for run in done}))
    return grid(["run", *(f"{metric}, {split}" for split in splits), *COSTS], rows)


def _experiments(runs: Sequence[RunFacts]) -> list[list[RunFacts]]:
    """Runs of which all is equal but what was drawn, two at least; of one done twice the first."""
    groups: dict[tuple[Any, ...], dict[tuple[str, ...], RunFacts]] = {}
    done: set[tuple[Any, ...]] = set()
    for run in runs:
        options, weights = dict(flat(run.config["decisive"])), str((run.result or {})["weights_digest"])
        fixed = _fixed(run, options)
        if (fixed, weights) not in done:
            own = weights if "model.parameters" in options else ""  # seeded by the user's own script
            drawn = (own, *(options.get(key, "-") for key in _DRAWN))
            groups.setdefault(fixed, {}).setdefault(drawn, run)
        done.add((fixed, weights))
    return [[*group.values()] for group in groups.values() if len(group) > 1]


def _fixed(run: RunFacts, options: Mapping[str, str]) -> tuple[Any, ...]:
    """What is equal of two runs of one experiment. Where it is not known how batches were drawn, from the same ones."""
    graph, how = run.config.get("graph") or {}, run.config.get("drawn")
    free = {*_SEEDS} if how is None else {*_DRAWN}
    if how is not None and options.get("options.class_weights", "-") != "-":
        free.add("task.class_weights")  # counted on the split
    trained_on = str(run.config.get("trained_split")).partition(".")[0]
    return (graph.get("id"), trained_on, *flat(how or {}), *(o for o in options.items() if o[0] not in free))


def _by_split(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """By name, of splits in several versions that of the one trained on without its number (`test.3` is `test`)."""
    plain = [split.partition(".")[0] for split in metrics]
    return dict(zip(plain if len(set(plain)) == len(plain) else metrics, metrics.values(), strict=True))


def _costs(result: Mapping[str, Any]) -> list[str]:
    """Best epoch, time, memory and bytes read of a finished run."""
    return [
        f"{result['best_epoch'] + 1} of {result['epochs']}",
        seconds(statistics.median(result["epoch_s"])),
        format_size(result["peak_growth_bytes"]),
        format_size(statistics.mean(result["bytes_read"])),
    ]


def _written(metric: str, values: Sequence[float | None]) -> list[str]:
    return ["-" if value is None else format_score(metric, value) for value in values]


def _mean(metric: str, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return " ± ".join(format_score(metric, value) for value in (statistics.mean(known), statistics.stdev(known)))


def split_order(name: str) -> tuple[int, str]:
    known = ("test", "valid", "train")
    return (known.index(name) if name in known else len(known), name)
