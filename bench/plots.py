"""Draw the rows of benchmark JSON as bars, ours beside every peer: one SVG per case that readers compare by.

Needs matplotlib, which `make docs` installs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

METRICS = {"edges_per_s": "edges per second", "rows_per_s": "rows per second", "epoch_s": "seconds per epoch"}
"""What is drawn, and its name on the axis; of `epoch_s` shorter bars are better."""
_OURS, _PEER = "#1f6feb", "#9aa4b2"


def plotted(report: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, float]]]]:
    """(case, metric, [(who, median), ..]) of everything that is drawn: ours first, then its peers, absent ones left
    out; nothing of cases without such a metric."""
    rows = [r for r in report["rows"] if r["metric"] in METRICS and r["peer"] is not None]
    groups = groupby(rows, key=lambda r: (r["case"], r["metric"]))
    found = []
    for (case, metric), same in groups:
        listed = list(same)
        found.append((case, metric, [("gnnsys", listed[0]["ours"]), *((r["peer_name"], r["peer"]) for r in listed)]))
    return found


def draw(reports: Mapping[str, Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `folder/CASE.svg` for every report with something to draw; returns the files."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gnnsys"  # equal figures, equal bytes
    matplotlib.rcParams["svg.fonttype"] = "none"  # text that can be searched, a tenth of the bytes
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(parts, folder / f"{case}.svg") for case, report in reports.items() if (parts := plotted(report))]


def _draw(parts: list[tuple[str, str, list[tuple[str, float]]]], path: Path) -> Path:
    from matplotlib.figure import Figure

    heights = [len(bars) for _, _, bars in parts]
    figure = Figure(figsize=(8, 0.36 * sum(heights) + 0.95 * len(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (case, metric, bars) in zip(axes, parts, strict=True):
        _bars(axis, f"{case}: {METRICS[metric]}", bars)
    figure.savefig(path, metadata={"Date": None})
    return path


def _bars(axis: Any, title: str, bars: Iterable[tuple[str, float]]) -> None:
    names, values = zip(*bars, strict=True)
    drawn = axis.barh(names, values, color=[_OURS, *[_PEER] * (len(names) - 1)], height=0.7)
    axis.bar_label(drawn, labels=[_short(v) for v in values], padding=4, fontsize=9)
    axis.set_title(title, loc="left", fontsize=10)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12 * max(values))
    axis.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _short(value: float) -> str:
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"
