"""Draw what docs/pipeline.md shows: stages and what passes between them, and schedules in time, from the schedules
themselves. Needs matplotlib, which `make docs` installs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gnnsys.pipeline.schedule import make_schedule
from gnnsys.pipeline.simulate import simulate

STAGES, MICRO = 4, 8
_TITLES = {
    "gpipe": "gpipe: all forwards, then all backwards",
    "1f1b": "1f1b: a backward as soon as one is possible; at most four micro-batches are live",
    "fill-drain": "fill-drain, for chunks: backwards from the last chunk to the first",
}
_FORWARD, _BACKWARD, _EDGE, _TEXT = "#1f6feb", "#e8a33d", "#9aa4b2", "#24292f"


def draw_schedules(folder: Path) -> Path:
    """Write `folder/stages.svg`; returns it."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gnnsys"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.2), layout="constrained")
    axes = figure.subplots(1 + len(_TITLES), 1, height_ratios=[1.25, 1, 1, 1])
    _stages(axes[0])
    for axis, name in zip(axes[1:], _TITLES, strict=True):
        _schedule(axis, name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stages.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def _stages(axis: Any) -> None:
    """Boxes for the stages, arrows for what they give each other, and what each reads from the pack."""
    axis.set_title(
        "Stages of one pack: every one reads its own hops, only rows of a boundary travel", loc="left", fontsize=10
    )
    reads = (
        "rows, blocks\nof all hops",
        "blocks of\nthe inner hops",
        "blocks of\nthe inner hops",
        "last block,\nlabels",
    )
    for stage, read in enumerate(reads):
        left = 2.5 * stage
        axis.add_patch(_box(left, 1.0, 1.7, 0.9))
        axis.text(left + 0.85, 1.45, f"stage {stage}\nits layers", ha="center", va="center", fontsize=9, color="white")
        axis.text(left + 0.85, 0.12, read, ha="center", va="center", fontsize=8, color=_TEXT)
        axis.annotate("", (left + 0.85, 0.95), (left + 0.85, 0.45), arrowprops={"arrowstyle": "->", "color": _EDGE})
        if stage + 1 < STAGES:
            for height, towards, colour in ((1.65, 1, _FORWARD), (1.25, -1, _BACKWARD)):
                ends = ((left + 2.45, height), (left + 1.75, height))[::towards]
                axis.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6})
    axis.text(8.35, 2.05, "loss", ha="center", fontsize=9, color=_TEXT)
    axis.text(2.1, 1.78, "rows", ha="center", fontsize=8, color=_FORWARD)
    axis.text(2.1, 1.0, "gradients", ha="center", fontsize=8, color=_BACKWARD)
    axis.set_xlim(-0.2, 9.4)
    axis.set_ylim(-0.2, 2.3)
    axis.axis("off")


def _box(left: float, bottom: float, width: float, height: float) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0.02", color=_FORWARD)


def _schedule(axis: Any, name: str) -> None:
    timeline = simulate(make_schedule(name, STAGES, MICRO))
    for timed in timeline.actions:
        colour = _FORWARD if timed.action.kind == "F" else _BACKWARD
        axis.barh(timed.stage, timed.end - timed.start, left=timed.start, color=colour, edgecolor="white", height=0.86)
        middle = (timed.start + timed.end) / 2
        axis.text(middle, timed.stage, timed.action.micro, ha="center", va="center", fontsize=8, color="white")
    axis.set_title(f"{_TITLES[name]}; {timeline.bubble:.0%} of the time is waiting", loc="left", fontsize=10)
    axis.set_yticks(range(STAGES), [f"stage {stage}" for stage in range(STAGES)], fontsize=8)
    axis.invert_yaxis()
    axis.xaxis.set_visible(False)
    axis.tick_params(length=0)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
