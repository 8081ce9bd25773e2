"""Explain a plan the way a database explains a query: every candidate, the one chosen, and why; at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gnnsys.units import format_size

if TYPE_CHECKING:
    from gnnsys.planning.choice import Plan
    from gnnsys.planning.cost import Candidate

_BAR = 20


def explain(plan: Plan) -> str:
    """The explanation of `plan`, a few lines of plain text."""
    return "\n".join([*_head(plan), "", *_table(plan), "", *_reasons(plan), "", *_memory(plan), "", *_notes(plan)])


def _head(plan: Plan) -> Iterator[str]:
    what = f"pool {plan.pool_id.removeprefix('xxh3-128:')[:12]}" if plan.pool_id else "a pool not sampled yet"
    epochs = "1 epoch" if plan.epochs == 1 else f"{plan.epochs:,} epochs"
    yield f"Plan for {what}: {plan.num_batches:,} batches, order {plan.order}, {epochs}"
    if plan.estimated:
        yield f"ESTIMATED from {plan.sampled_batches} of {plan.num_batches:,} batches; exact once the pool is sampled."
    table_bytes, need = plan.num_rows * plan.row_bytes, plan.requests * plan.row_bytes
    least = "at least " if plan.estimated else ""
    yield ""
    yield f"  table    {plan.num_rows:,} rows x {plan.row_bytes:,} B = {format_size(table_bytes)}"
    yield f"  epoch    {plan.requests:,} rows = {format_size(need)}, {need / max(table_bytes, 1):.2f} x the table"
    yield f"           {least}{plan.requested_rows / max(plan.num_rows, 1):.0%} of its rows are asked for"


def _table(plan: Plan) -> Iterator[str]:
    """One line per candidate, the chosen one marked."""
    header = ("", "layout", "reads/epoch", "amplif.", "disk", "memory from", "prepare", "epoch", "in all")
    lines = [header, *(_line(plan, candidate) for candidate in plan.candidates)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def _line(plan: Plan, c: Candidate) -> tuple[str, ...]:
    return (
        ">" if c.layout == plan.layout else " ",
        c.layout,
        format_size(c.bytes),
        f"{c.read_amplification:.2f}",
        format_size(c.disk_bytes),
        format_size(c.memory_bytes),
        _seconds(c.prepare_s),
        _seconds(c.epoch_s),
        _seconds(c.total_s(plan.epochs)) if c.fits else "does not fit",
    )


def _reasons(plan: Plan) -> Iterator[str]:
    """Why this one, in a sentence or two; what the others lack."""
    chosen, others = plan.chosen, [c for c in plan.candidates if c.layout != plan.layout]
    fitting = [c for c in others if c.fits]
    if plan.requested != "auto":
        yield f"  {plan.layout}, as asked for."
    elif not fitting:
        yield f"  {plan.layout}, because nothing else fits."
    elif chosen.epoch_s is None:
        yield f"  {plan.layout}, because it reads least per epoch; the disk could not be measured."
    else:
        yield f"  {plan.layout}, because {_epochs(plan)} end first:"
        yield f"    {_against(plan, chosen, fitting)}."
    for other in others:
        if not other.fits:
            yield f"  {other.layout} would need {other.why_not}."
        elif chosen.bytes and other.bytes > chosen.bytes:
            yield f"  {other.layout} reads {other.bytes / chosen.bytes:.1f} x as many bytes per epoch."
    yield from _break_even(plan)


def _break_even(plan: Plan) -> Iterator[str]:
    if plan.break_even_epochs is not None:
        epochs = "the first epoch" if plan.break_even_epochs <= 1 else f"{plan.break_even_epochs:,} epochs"
        yield f"  Packing pays for itself within {epochs}."
    elif plan.speeds is not None:
        yield "  Packing never pays for itself here: an epoch read directly is as fast."


def _memory(plan: Plan) -> Iterator[str]:
    """Who holds what of the memory while training, as bars."""
    yield f"  memory   {format_size(plan.memory)}"
    hits = plan.cache_hits / max(plan.chosen.requests, 1)
    said = {
        "loader": f"{plan.batches_ahead} {'batch' if plan.batches_ahead == 1 else 'batches'} in flight",
        "step": "fixed reserve; the trainer measures it",
        "cache": f"{plan.cache_rows:,} hottest rows answer {hits:.0%} of requests",
        "left": "",
    }
    for name, num_bytes in plan.shares.items():
        bar = "#" * max(round(_BAR * num_bytes / plan.memory), 0)
        yield f"    {name:<7}{format_size(max(num_bytes, 0)):>10}  {bar:<{_BAR}}  {said.get(name, '')}".rstrip()


def _notes(plan: Plan) -> Iterator[str]:
    c = plan.chosen
    pool, cache = plan.candidate("direct").pool_bytes, c.cache_rows * plan.row_bytes
    rows = c.disk_bytes - pool - c.slots_bytes - cache
    parts = (("pool", pool), ("slots", c.slots_bytes), ("rows", rows), ("cache", cache))
    listed = ", ".join(f"{name} {format_size(size)}" for name, size in parts if size)
    limit = "" if plan.disk is None else f" of {format_size(plan.disk)}"
    peak = f", {format_size(c.peak_disk_bytes)} while packing" if c.peak_disk_bytes > c.disk_bytes else ""
    yield f"  disk     {format_size(c.disk_bytes)}{limit}{peak}"
    yield f"           {listed}"
    if plan.speeds is None:
        yield "  seconds  not predicted: the disk was not measured"
        return
    s = plan.speeds
    yield (
        f"  seconds  predicted, the model's step left out: this disk reads {format_size(s.read)}/s, "
        f"writes {format_size(s.write)}/s,"
    )
    yield f"           and answers {s.random:,.0f} random 4 KiB reads/s"


def _against(plan: Plan, chosen: Candidate, others: Sequence[Candidate]) -> str:
    rest = ", ".join(f"{c.layout} takes {_seconds(c.total_s(plan.epochs))}" for c in others)
    return f"{_seconds(chosen.total_s(plan.epochs))}, {rest}"


def _epochs(plan: Plan) -> str:
    return "preparing and 1 epoch" if plan.epochs == 1 else f"preparing and {plan.epochs:,} epochs"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 48 * 3600:
        return f"{value / 86400:,.0f} days"
    if value >= 2 * 3600:
        return f"{value / 3600:.1f} h"
    return f"{value:,.0f} s" if value >= 100 else f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
