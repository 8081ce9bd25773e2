"""The table of scores of several runs, and their mean over seeds and over versions of a split."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gnnsys.reporting.facts import RunFacts
from gnnsys.reporting.markup import flat, grid, score, seconds
from gnnsys.units import format_size

SPENT = ("best epoch", "epoch, median", "memory at most", "read in an epoch")


def scores(runs: Sequence[RunFacts]) -> str:
    """A row per run, then one per several that are alike but for their seed or the version of their split."""
    scored = {run.name: _by_split(run.result["metrics"]) for run in runs if run.result}
    splits = sorted({split for metrics in scored.values() for split in metrics}, key=split_order)
    columns = {
        run.name: [scored[run.name].get(split, {}).get(run.metric) for split in splits] for run in runs if run.result
    }
    rows = [[run.name, *map(score, columns[run.name]), *_spent(run.result)] for run in runs if run.result]
    rows += [[run.name, *["-"] * len(splits), run.status, *["-"] * 3] for run in runs if not run.result]
    for alike in _alike(runs):
        label = f"{alike[0].name} and {len(alike) - 1} like it, mean ± deviation"
        means = map(_mean, zip(*(columns[run.name] for run in alike), strict=True))
        rows.append([label, *means, *[""] * len(SPENT)])
    metric = " or ".join(sorted({run.metric for run in runs if run.result}))
    return grid(["run", *(f"{metric}, {split}" for split in splits), *SPENT], rows)


def _alike(runs: Sequence[RunFacts]) -> list[list[RunFacts]]:
    """Finished runs that seeds alone tell apart, or which version of a split they were trained on; those that ended in
    the same weights are one run done twice, no sample."""
    groups: dict[tuple[Any, ...], list[RunFacts]] = {}
    for run in runs:
        if run.result:
            groups.setdefault(_but_for_seeds(run), []).append(run)
    return [group for group in groups.values() if len(group) > 1 and _distinct(group) == len(group)]


def _distinct(runs: Sequence[RunFacts]) -> int:
    return len({run.result["weights_digest"] for run in runs if run.result})


def _but_for_seeds(run: RunFacts) -> tuple[Any, ...]:
    metrics = (run.result or {})["metrics"]
    drawn = {"options.seed", "model.seed"}
    if any("." in split for split in metrics):
        drawn |= {"source.seeds", "source.pool"}
    rest = (pair for pair in flat(run.config["decisive"]) if pair[0] not in drawn)
    return (run.config.get("graph", {}).get("id"), *sorted(_by_split(metrics)), *rest)


def _by_split(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """By name, of splits in several versions that of the one trained on without its number (`test.3` is `test`)."""
    plain = [split.partition(".")[0] for split in metrics]
    return dict(zip(plain if len(set(plain)) == len(plain) else metrics, metrics.values(), strict=True))


def _spent(result: Mapping[str, Any]) -> list[str]:
    """Best epoch, time, memory and bytes read of a finished run."""
    return [
        f"{result['best_epoch'] + 1} of {result['epochs']}",
        seconds(statistics.median(result["epoch_s"])),
        format_size(result["peak_growth_bytes"]),
        format_size(statistics.mean(result["bytes_read"])),
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.4f} ± {statistics.stdev(known):.4f}" if len(known) > 1 else "-"


def split_order(name: str) -> tuple[int, str]:
    known = ("test", "valid", "train")
    return (known.index(name) if name in known else len(known), name)
