"""`ingest`: make a Store from a source, in bounded memory, in units that survive a kill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.ingestion.components import keep_largest_component
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.labels import WrittenLabels, check_kind, write_labels
from gnnsys.ingestion.made_rows import MadeFeatures, made_features
from gnnsys.ingestion.names import write_names
from gnnsys.ingestion.open import open_source
from gnnsys.ingestion.rows import selected_rows, write_table
from gnnsys.ingestion.sorting import MAX_NODES, Runs, refuse_sparse_ids, sort_edges
from gnnsys.ingestion.source import Rows, Source
from gnnsys.ingestion.splits import SplitRule, make_splits, parse_split
from gnnsys.ingestion.topology import Totals, write_topology
from gnnsys.ingestion.weights import Changes, write_weights
from gnnsys.progress import Progress, silent
from gnnsys.storage.files import require_free
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import FORMAT, PARTS, VERSION, Store, id_dtype, split_path
from gnnsys.storage.threads import num_workers
from gnnsys.storage.writer import write_array
from gnnsys.units import format_size, parse_size

MIN_MEMORY = 16 << 20
_MOST_NAMES = 10_000


def ingest(
    source: str | Path | Source | Any,
    out: str | Path,
    *,
    memory: str | int = "4GiB",
    split: str | None = None,
    split_seed: int | None = None,
    allow_overlap: bool = False,
    largest_component: bool = False,
    undirected: bool = False,
    dedup: bool = False,
    no_self_loops: bool = False,
    normalize_features: str = "none",
    on_nan: str = "error",
    features: str | Path | None = None,
    labels: str | Path | None = None,
    edge_weights: str | Path | int | None = None,
    label_kind: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    on_bad_edge: str = "error",
) -> Store:
    """Make a Store in folder `out`; repeating the call continues an interrupted one or returns the finished Store.

    Args:
        source: `synthetic:powerlaw:nodes=..,edges=..`, `npz:FILE`, `edges:FILE`, `ogb:NAME[:ROOT]`, a
            `torch_geometric.data.Data`, a `DGLGraph`, a scipy sparse matrix, an `ArraySource`, or any other Source.
        memory: what this may grow by; decides how much is sorted at a time, never what is written.
        split: `given` (the default), `given:K`, `per-class:20/30` (so many nodes of every class), `random:60/20/20`
            (percent of the labelled nodes) or `none`.
        split_seed: of a split that is drawn; 0 when None.
        allow_overlap: a node may be in several of the given splits.
        largest_component: keep only the largest weakly connected component, nodes renumbered in order.
        undirected: add the reverse of every edge, then keep each ordered pair once.
        dedup: keep one of parallel edges; no_self_loops: leave out edges from a node to itself. Both are counted.
        normalize_features: `row` divides every row of `x` by its sum.
        features, labels: files beside `edges:FILE`: a text with the id of a node and its numbers (a label may be the
            name of a class) per row, in any order, or an array with a row per node in the order of the ids; where ids
            are names, in that of their first appearance (`Store.names` gives them). For any source without features
            they can be made: `degree` (the in-degree) or `random:COLUMNS[:SEED]` (noise of variance 1).
        edge_weights: of `edges:FILE`: a file, a number per edge, or in which column of the text they are, counted
            from 1.
        label_kind: `class`, `multilabel` (0 or 1 in every column) or `regression` (numbers); when None, one column
            holds classes and several are multilabel.
        workers: threads; default the processors this process may use.
        on_nan: `error`, or `zero` (counted) for NaN and infinities in `x`.
        on_bad_edge: `error`, or `drop` (counted) for edges whose ids are out of range.

    Raises:
        ConfigError: an option is not valid, or `out` was begun with others.
        InputDataError: the source is not valid.
        MemoryBudgetError, DiskSpaceError: it does not fit.
    """
    budget = ingest_budget(memory)
    threads = num_workers(workers)
    made = made_features(features)
    opened = open_source(source, None if made else features, labels, edge_weights)
    rule = parse_split(split, split_seed, allow_overlap)
    check_choice("normalize_features", normalize_features, ("none", "row"))
    check_choice("on_nan", on_nan, ("error", "zero"))
    check_choice("on_bad_edge", on_bad_edge, ("error", "drop"))
    check_kind(label_kind)
    kind = label_kind or opened.label_kind
    parameters = {
        "split": rule.parameters,
        "allow_overlap": allow_overlap,
        "undirected": undirected,
        "dedup": dedup or undirected,
        "no_self_loops": no_self_loops,
        "largest_component": largest_component,
        "normalize_features": normalize_features,
        "on_nan": on_nan,
        "on_bad_edge": on_bad_edge,
        **({} if label_kind in (None, "class") else {"label_kind": label_kind}),
        **({} if made is None else {"features": made.parameter}),
    }
    folder = Path(out)
    inputs = opened.fingerprint()
    with Stage(folder, FORMAT, VERSION, inputs=inputs, parameters=parameters, parts=PARTS) as stage:
        if stage.finished is None:
            _build(Job(stage, budget, threads, progress), opened, rule, parameters, kind, made)
    return Store.open(folder)


def ingest_budget(memory: str | int) -> Budget:
    """The memory that an ingest may grow by.

    Raises:
        MemoryBudgetError: less than any needs.
    """
    budget = Budget(parse_size(memory))
    if budget.total < MIN_MEMORY:
        raise MemoryBudgetError(
            "GS-MEM-101",
            f"--memory {format_size(budget.total)} is too small to ingest",
            hint=f"At least {format_size(MIN_MEMORY)} is needed.",
        )
    return budget


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError when `value` is none of `choices`."""
    if value not in choices:
        raise ConfigError("GS-CFG-100", f"{option} is {value!r}, expected {' or '.join(choices)}")


@dataclass(frozen=True)
class _Edges:
    """The topology as it was written, and the nodes that it is of."""

    runs: Runs
    totals: Totals
    num_given: int
    """Nodes of the source."""
    num_nodes: int
    kept: np.ndarray | None
    """(num_nodes,) ids of those that were kept in the source, ascending; None when all were."""
    files: tuple[FileEntry, ...]


def _build(
    job: Job,
    source: Source,
    rule: SplitRule,
    parameters: Mapping[str, Any],
    label_kind: str | None,
    made: MadeFeatures | None,
) -> None:
    require_free(job.stage.folder, source.input_bytes(), "unpacking the input")
    source.prepare(job)
    if made is None:
        _refuse_changes_of_nothing(source, parameters)
    elif "x" in source.tables:
        raise ConfigError("GS-CFG-972", f"--features {made.parameter}: the source has features", hint="Leave it out.")
    edges = _write_edges(job, source, parameters, 0 if made is None else 4 * made.columns)
    tables = {name: selected_rows(rows, edges.kept) for name, rows in source.tables.items()}
    if made is not None:
        tables["x"] = made.rows(job.stage.folder, edges.num_nodes)
    files, zeroed_rows = _write_tables(job, tables, parameters)
    found = WrittenLabels()
    if source.labels is not None:
        found = write_labels(job, selected_rows(source.labels, edges.kept), label_kind, source.num_classes)
        files += found.entries
    if source.names is not None or edges.num_nodes < edges.num_given:
        files += write_names(job, source.names, edges.kept, edges.num_nodes)
    splits = _write_splits(job, source, rule, edges, found)
    counts = {
        "nodes": edges.num_nodes,
        **_edge_counts(edges.totals, edges.runs, unique=parameters["dedup"]),
        "classes": found.num_classes,
        "splits": list(splits),
        "zeroed_rows": zeroed_rows,
        "header_lines": 0,
        **{what: count for what, count in source.skipped.items() if count},
        **_feature_names(source),
        **found.counts,
    }
    job.stage.commit(counts=counts, files=(*edges.files, *files, *splits.values()))


def _write_edges(job: Job, source: Source, parameters: Mapping[str, Any], made_bytes: int) -> _Edges:
    """Sort the edges, number the nodes that are kept, write topology and weights; beside them there is to be room for
    `made_bytes` of features per node."""
    both, loops, unique = parameters["undirected"], not parameters["no_self_loops"], parameters["dedup"]
    renumbered = parameters["largest_component"]
    _require_disk(job, source, source.num_nodes or 0, both, renumbered, made_bytes)
    runs = sort_edges(job, source, both=both, drop_bad=parameters["on_bad_edge"] == "drop", loops=loops)
    num_given = _num_nodes(source, runs)
    if source.num_nodes is None:
        _require_disk(job, source, num_given, both, renumbered, made_bytes)
    num_nodes, kept = num_given, None
    if renumbered:
        runs, kept = keep_largest_component(job, runs, num_given)
        num_nodes = len(kept)
    files, totals = write_topology(job, runs, num_nodes, unique=unique)
    if source.weights is not None:
        changes = Changes(both=both, unique=unique, loops=loops, kept=kept)
        files += tuple(write_weights(job, source, source.weights, num_nodes, totals.edges, changes))
    return _Edges(runs, totals, num_given, num_nodes, kept, files)


def _write_tables(job: Job, tables: Mapping[str, Rows], parameters: Mapping[str, Any]) -> tuple[list[FileEntry], int]:
    """The entries of all tables, and in how many rows a NaN or an infinity became 0; only `x` is changed."""
    files: list[FileEntry] = []
    zeroed_rows = 0
    for name, rows in tables.items():
        normalize = name == "x" and parameters["normalize_features"] == "row"
        fill = name == "x" and parameters["on_nan"] == "zero"
        entries, zeroed = write_table(job, name, rows, normalize=normalize, fill=fill)
        files += entries
        zeroed_rows += zeroed
    return files, zeroed_rows


def _write_splits(
    job: Job, source: Source, rule: SplitRule, edges: _Edges, found: WrittenLabels
) -> dict[str, FileEntry]:
    """The entries of the splits by name."""
    given = source.splits if rule.kind == "given" else []
    # Up to three arrays of node ids, or of draws, live at once while a split is made.
    num_ids = edges.num_nodes if rule.drawn else sum(len(ids) for v in given for ids in v.values())
    with job.budget.holding(24 * num_ids, "node ids of the splits"):
        splits = make_splits(rule, given, edges.num_given, edges.kept, found.labels, found.num_classes)
    folder, dtype = job.stage.folder, id_dtype(edges.num_nodes)
    return {name: write_array(folder, split_path(name), ids.astype(dtype), "split") for name, ids in splits.items()}


def _feature_names(source: Source) -> dict[str, list[str]]:
    """Of the columns of x, where they have some and are not too many to be told."""
    names = source.tables["x"].column_names if "x" in source.tables else ()
    return {"feature_names": list(names)} if 0 < len(names) <= _MOST_NAMES else {}


def _edge_counts(totals: Totals, runs: Runs, *, unique: bool) -> dict[str, int]:
    return {
        "edges": totals.edges,
        "max_degree": totals.max_degree,
        "merged": totals.repeats if unique else 0,
        "parallel_edges": 0 if unique else totals.repeats,
        "self_loops": totals.loops,
        "dropped_loops": runs.dropped_loops,
        "dropped_edges": runs.dropped,
    }


def _refuse_changes_of_nothing(source: Source, parameters: Mapping[str, Any]) -> None:
    for option, usual in (("normalize_features", "none"), ("on_nan", "error")):
        if parameters[option] != usual and "x" not in source.tables:
            raise ConfigError(
                "GS-CFG-109",
                f"{option} is {parameters[option]!r}, but the source has no features",
                hint="Leave it out, or give features.",
            )


def _require_disk(
    job: Job, source: Source, num_nodes: int, undirected: bool, renumbered: bool, made_bytes: int
) -> None:
    """Refuse before the work when the volume cannot hold scratch and result, of which `made_bytes` per node are made
    features, with 5 % to spare."""
    num_keys = source.num_edges * (2 if undirected else 1)
    rows = [*source.tables.values(), *([source.labels] if source.labels else [])]
    row_bytes = sum(r.num_rows * r.columns * max(r.dtype.itemsize, 4) for r in rows)
    # Runs and topology; a second set of runs, node numbers, node ids and those as text when nodes are renumbered.
    needed = (
        (2 * 8 + (0 if source.weights is None else 4)) * num_keys
        + (8 + made_bytes) * num_nodes
        + row_bytes
        + (8 * num_keys + 34 * num_nodes if renumbered else 0)
    )
    unpacked = ("member-", "columns-", "name")
    held = sum(
        path.stat().st_size
        for path in job.stage.folder.rglob("*")
        if path.is_file() and not path.name.startswith(unpacked)
    )
    require_free(job.stage.folder, int(needed * 1.05) - held, "the Store and its scratch files")


def _num_nodes(source: Source, runs: Runs) -> int:
    num_nodes = runs.max_id + 1 if source.num_nodes is None else source.num_nodes
    if num_nodes > MAX_NODES:
        raise InputDataError("GS-IN-105", f"{num_nodes} nodes; this version stores at most {MAX_NODES}")
    if source.num_nodes is None:
        refuse_sparse_ids(runs.max_id, source.num_edges)
    rows = {**source.tables, **({"labels": source.labels} if source.labels is not None else {})}
    for name, table in rows.items():
        if table.num_rows != num_nodes:
            raise InputDataError(
                "GS-IN-122",
                f"{name} has {table.num_rows} rows for {num_nodes} nodes",
                hint="One row per node, in the order of the ids.",
            )
    return num_nodes
