"""The HTML of a report: one run in full, or several side by side. Every text from a run is escaped."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from html import escape

from gnnsys.reporting.charts import Line, chart
from gnnsys.reporting.facts import STAGES, RunFacts
from gnnsys.reporting.markup import Pairs, flat, grid, number, seconds, section, size, table
from gnnsys.reporting.scores import scores_table, split_order
from gnnsys.reporting.style import STYLE
from gnnsys.training.config import NOT_DECISIVE
from gnnsys.units import format_score, format_size

END = "<footer>gnnsys report</footer></main></body></html>\n"
"""What every page ends with: it tells a report from other files."""


def page(runs: Sequence[RunFacts]) -> str:
    """One document for one run or for several; the same runs give the same bytes."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    body = _one(runs[0]) if len(runs) == 1 else _several(runs)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - gnnsys</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{body}{END}"
    )


def _one(run: RunFacts) -> str:
    model = run.config["decisive"].get("model", {})
    continued = " · interrupted and continued" if run.starts else ""
    sub = f"{model.get('name', '')} · {run.status}{continued} · {run.config['digest'][:19]}"
    graph = f"<br>{escape(_graph(run))}" if _graph(run) else ""
    head = f'<h1>{escape(run.name)}</h1><p class="sub">{escape(sub)}{graph}</p>'
    parts = [head, _notes(run), _tiles(run)]
    parts += [section("Training", _charts([run]) + _drifts(run)), section("Data and memory", _data_charts(run))]
    if run.command:
        parts.append(section("Run it again", f'<div class="card"><pre class="wrap">{escape(run.command)}</pre></div>'))
    else:
        said = "This run was started from Python: its script is what reproduces it, with the options below."
        parts.append(section("Run it again", f'<div class="card">{said}</div>'))
    parts.append(section("What decides the weights", table(flat(run.config["decisive"]))))
    parts.append(section("How it was done", table(_how(run))))
    if run.plan or run.no_plan:
        plan = f"<pre>{escape(run.plan)}</pre>" if run.plan else escape(run.no_plan)
        parts.append(section("The plan of the pack", f'<div class="card">{plan}</div>'))
    return "".join(parts)


def _graph(run: RunFacts) -> str:
    """What the run was scored on; empty where it is not known."""
    graph = run.config.get("graph")
    if not graph:
        return ""
    columns = f", {run.config['x_columns']:,} columns" if run.config.get("x_columns") else ""
    return f"{graph['name']}: {graph['nodes']:,} nodes, {graph['edges']:,} edges{columns}"


def _several(runs: Sequence[RunFacts]) -> str:
    options = [dict(flat(run.config["decisive"])) for run in runs]
    known = dict.fromkeys(key for one in options for key in one)
    keys = [key for key in known if len({one.get(key, "-") for one in options}) > 1]
    parts = [f'<h1>{len(runs)} runs</h1><p class="sub">{escape(", ".join(run.name for run in runs))}</p>']
    parts += [_notes(run, name=True) for run in runs]
    parts.append(section("Scores of the best epoch", scores_table(runs)))
    parts.append(section("Training", _charts(runs)))
    rows = [[key, *(_brief(one.get(key, "-")) for one in options)] for key in keys if key != "options.seeds"]
    nothing = '<div class="card">Nothing that decides the weights.</div>'
    graphs = {run.config["graph"]["id"] for run in runs if run.config.get("graph")}
    rows += [["graph", *(_graph(run) or "-" for run in runs)]] if len(graphs) > 1 else []
    splits = [str(run.config.get("trained_split") or "-") for run in runs]
    rows += [["trained on", *splits]] if len({*splits}) > 1 else []
    differing = grid(["option", *(run.name for run in runs)], rows) if rows else nothing
    parts.append(section("What differs", differing + _other_execution(runs)))
    same = [(key, value) for key, value in options[0].items() if key not in keys]
    parts.append(section("What they share", table(same)))
    return "".join(parts)


def _brief(value: str) -> str:
    """A digest by its beginning, so that several fit side by side."""
    return f"{value[:21]}…" if re.fullmatch("[a-z0-9-]+:[0-9a-f]{32,}", value) else value


def _other_execution(runs: Sequence[RunFacts]) -> str:
    """What differs in how runs were done."""
    done = [dict(_execution(run)) for run in runs]
    keys = dict.fromkeys(key for one in done for key in one)
    rows = [[key, *(one.get(key, "-") for one in done)] for key in keys if len({one.get(key, "-") for one in done}) > 1]
    header = ["does not decide the weights", *(run.name for run in runs)]
    return f"<br>{grid(header, rows)}" if rows else ""


def _notes(run: RunFacts, name: bool = False) -> str:
    said = [*([run.status] if run.result is None else []), *([run.lost] if run.lost else []), *run.notes]
    start = f"{run.name}: " if name else ""
    lines = "".join(f"<p>{escape(start + text)}</p>" for text in said)
    return f'<div class="card warn">{lines}</div><br>' if lines else ""


def _tiles(run: RunFacts) -> str:
    result, tiles = run.result, []
    if result:
        for split in sorted(result["metrics"], key=split_order):
            value = result["metrics"][split].get(run.metric)
            tiles.append(_tile("-" if value is None else format_score(run.metric, value), f"{run.metric} on {split}"))
        tiles.append(_tile(f"{result['best_epoch'] + 1} of {result['epochs']}", "best epoch"))
    if run.epoch_s:
        tiles.append(_tile(seconds(statistics.median(run.epoch_s)), "epoch, median"))
    if wait := _waited(run):
        tiles.append(_tile(wait, "of the time of all epochs spent waiting for data"))
    if result:
        used, given = result["peak_growth_bytes"], result["budget_bytes"]
        tiles.append(_tile(format_size(used), f"memory, of {format_size(given)} given", used / given))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(value: str, label: str, share: float | None = None) -> str:
    bar = "" if share is None else f'<div class="bar"><i style="width:{min(1.0, share):.1%}"></i></div>'
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span>{bar}</div>'


def _charts(runs: Sequence[RunFacts]) -> str:
    """Curves that runs can be compared by."""
    metrics = {run.metric for run in runs}
    figures = [
        chart("Loss", "epoch", [Line(r.name, [(e.number + 1, e.loss) for e in r.epochs]) for r in runs], number),
        chart(
            f"{' or '.join(sorted(metrics))} on valid",
            "epoch",
            [
                Line(
                    r.name,
                    [(e.number + 1, e.valid) for e in r.epochs if e.valid is not None],
                    r.result["best_epoch"] + 1 if r.result else None,
                )
                for r in runs
            ],
            number,
        ),
        chart(
            "Time of an epoch",
            "epoch",
            [Line(r.name, [(e.number + 1, e.seconds) for e in r.epochs]) for r in runs],
            seconds,
            zero=True,
        ),
    ]
    return f'<div class="charts">{"".join(figures)}</div>'


def _drifts(run: RunFacts) -> str:
    """Of a whole graph in chunks: how far rows of earlier epochs carried the loss, as often as it was looked at."""
    rows = [
        [str(drift["epoch"] + 1), number(drift["loss"]), number(drift["exact"])]
        for drift in (run.result or {}).get("drifts", [])
    ]
    return f"<br>{grid(['epoch', 'loss of the chunks', 'with rows up to date'], rows)}" if rows else ""


def _data_charts(run: RunFacts) -> str:
    spent = [
        Line(what, points)
        for key, what in STAGES.items()
        if (points := [(e.number + 1, e.told[key]) for e in run.epochs if key in e.told])
    ]
    figures = [chart("Time of an epoch by stage; threads load beside the rest", "epoch", spent, seconds, zero=True)]
    grown = [(e.number + 1, e.growth) for e in run.epochs if e.growth]
    if grown:
        given = float(run.config["options"]["memory"])
        lines = [Line("used at most", grown), Line("given", [(epoch, given) for epoch, _ in grown], limit=True)]
        several = (run.config["options"].get("pipeline") or 1) > 1 or "pipeline" in (run.result or {})
        whose = "Memory of the first process by epoch, and what all were given"
        title = whose if several else "Memory by epoch, and what was given"
        figures.append(chart(title, "epoch", lines, size, zero=True, binary=True))
    if run.result:
        lines = [
            Line(name, list(enumerate(map(float, run.result[key]), 1)), limit=name == "planned")
            for name, key in (("read", "bytes_read"), ("planned", "bytes_planned"))
            if all(value is not None for value in run.result[key])
        ]
        figures.append(
            chart("Bytes read in an epoch, and what the plan said", "epoch", lines, size, zero=True, binary=True)
        )
    return f'<div class="charts">{"".join(figures)}</div>'


def _how(run: RunFacts) -> Pairs:
    versions = run.config.get("versions", {})
    yield "versions", ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))
    host = run.start.get("host")
    if isinstance(host, dict) and host.keys() >= {"cores", "ram"}:
        gpu = f", {host['gpu']}" if host.get("gpu") else ""
        yield "machine", f"{host['cores']} cores, {format_size(host['ram'])}{gpu}"
    if run.starts:
        yield "started", run.starts
    if run.config.get("trained_split"):
        yield "trained on", run.config["trained_split"]
    yield from _execution(run)
    if run.result:
        yield "evaluation", run.result["evaluation"]
        yield "weights", run.result["weights_digest"]
        yield "steps", f"{run.result['steps']:,}"


def _execution(run: RunFacts) -> Pairs:
    """Options and choices that decide times and memory alone; threads and device also the last bits of the weights."""
    yield "torch threads", str(run.config.get("threads", "-"))
    for key, value in flat(run.config["options"]):
        if key in NOT_DECISIVE and key != "threads":
            yield key, format_size(int(value)) if key == "memory" else value
    if run.result:
        yield "device used", run.result["device"]


def _waited(run: RunFacts) -> str:
    """Share of the time of all epochs that say how long they waited."""
    timed = [(e.waited, e.seconds) for e in run.epochs if e.waited is not None]
    spent = sum(lasted for _, lasted in timed)
    return f"{sum(waited for waited, _ in timed) / spent:.0%}" if 0 < spent < math.inf else ""
