"""Line charts as inline SVG: nothing to fetch, colours from the page, and a text for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

_WIDTH, _HEIGHT = 560, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 96, 18, 12, 34
_COLOURS = 6
"""How many the style sheet has."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve; values that are not finite are left out."""

    name: str
    points: Points
    mark: float | None = None
    """Where on x to put a dot."""
    limit: bool = False
    """Dashed: what was given or planned, not measured, so that a curve beneath it is seen."""


def chart(
    title: str,
    x_title: str,
    lines: Sequence[Line],
    show: Callable[[float], str],
    *,
    zero: bool = False,
    binary: bool = False,
) -> str:
    """A figure with one curve per line, from 0 upwards when `zero`; the empty string when no line has a point.

    Args:
        show: writes the values of y.
        binary: they are bytes, whose round numbers are those of KiB, MiB or GiB.
    """
    kept = [replace(line, points=[p for p in line.points if math.isfinite(p[1])]) for line in lines]
    kept = [line for line in kept if line.points]
    if not kept:
        return ""
    xs = [x for line in kept for x, _ in line.points]
    ys = [y for line in kept for _, y in line.points]
    unit = 1024.0 ** int(math.log(max(ys), 1024)) if binary and max(ys) >= 1 else 1.0
    ticks = [unit * tick for tick in _ticks((0.0 if zero else min(ys)) / unit, max(ys) / unit)]
    frame = _Frame(min(xs), max(xs), ticks[0], ticks[-1])
    parts = [_axes(frame, ticks, x_title, show)]
    parts += [_curve(frame, line, number % _COLOURS) for number, line in enumerate(kept)]
    said = "; ".join(f"{line.name} ends at {show(line.points[-1][1])}" for line in kept)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title}: {said}", quote=True)}">{"".join(parts)}</svg>{_legend(kept)}</figure>'
    )


@dataclass(frozen=True)
class _Frame:
    """From values to places."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / ((self.right - self.left) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        return _TOP + height - (value - self.bottom) / ((self.top - self.bottom) or 1) * height


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values that enclose `low` and `high`."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _axes(frame: _Frame, ticks: Sequence[float], x_title: str, show: Callable[[float], str]) -> str:
    parts = []
    for value in ticks:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 6:.1f}" text-anchor="end">{escape(show(value))}</text>')
    for value in sorted({round(v) for v in _ticks(frame.left, frame.right) if frame.left <= v <= frame.right}):
        parts.append(f'<text x="{frame.x(value):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{value:,}</text>')
    parts.append(f'<text x="{_LEFT - 20}" y="{_HEIGHT - 10}" text-anchor="end">{escape(x_title)}</text>')
    return "".join(parts)


def _curve(frame: _Frame, line: Line, colour: int) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = places if len(places) == 1 else [p for p, (x, _) in zip(places, line.points, strict=True) if x == line.mark]
    circles = "".join(f'<circle class="c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in dots)
    dashed = " limit" if line.limit else ""
    return f'<polyline class="c{colour}{dashed}" points="{path}"/>{circles}'


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) < 2:
        return ""
    keys = (f'<span><i class="c{n % _COLOURS}"></i>{escape(line.name)}</span>' for n, line in enumerate(lines))
    return f'<div class="legend">{"".join(keys)}</div>'
