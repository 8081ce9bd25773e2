"""`gnnsys ingest`, `sample`, `plan` and `pack`: from a source to rows in reading order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import gnnsys as gs
from gnnsys.cli.common import (
    BatchSize,
    Disk,
    Fanouts,
    Json,
    Memory,
    Quiet,
    Seed,
    SeedNodes,
    StorePath,
    Weighted,
    Workers,
    emit,
    progress,
)
from gnnsys.cli.sampling import refuse_sampling_options, sampling_options
from gnnsys.errors import ConfigError
from gnnsys.models.fold import aggregates_input, foldable
from gnnsys.models.registry import build
from gnnsys.samplers.draws import drawn_by
from gnnsys.storage import manifest, pool
from gnnsys.training.config import TrainConfig
from gnnsys.units import format_size, parse_size

Epochs = Annotated[int, typer.Option(help="Epochs you plan to train; preparation is weighed against them.")]
Layout = Annotated[str, typer.Option(help="packed | pre-aggregated | direct | auto")]
Model = Annotated[
    str | None,
    typer.Option(help="The model to be trained, as for train: offers to fold its first layer into the pack."),
]
Dropout = Annotated[float | None, typer.Option(help="Of that model; what train would take when not given.")]

_ROW_OF_NODE = "Row i is that of node i; where ids are names, of the i-th name in order of first appearance."
_NOTES = {
    "self_loops": "self loop{s}",
    "parallel_edges": "parallel edge{s}",
    "merged": "duplicate edge{s} merged",
    "dropped_loops": "self loop{s} left out",
    "dropped_edges": "bad edge{s} left out",
    "zeroed_rows": "row{s} with NaN or infinities set to 0 there",
    "empty_classes": "of the classes without a node (are they numbered from 0?)",
    "header_lines": "header line{s} skipped",
    "comment_lines": "line{s} skipped that begin with # or %",
    "ignored_columns": "further column{s} ignored (--edge-weights 3 takes weights from the third)",
}
"""Counts of an ingest that are named when they are not 0."""


def ingest(
    source: Annotated[
        str, typer.Argument(help="synthetic:powerlaw:nodes=1e6,.. | npz:FILE | edges:FILE | ogb:NAME[:ROOT]")
    ],
    store: Annotated[Path, typer.Argument(help="Folder of the new Store.")],
    memory: Memory = "4GiB",
    split: Annotated[
        str | None, typer.Option(help="given | given:K | per-class:20/30 (nodes) | random:60/20/20 (percent) | none")
    ] = None,
    split_seed: Annotated[int | None, typer.Option(help="Seed of a split that is drawn; 0 when not given.")] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="A node may be in several given splits.")
    ] = False,
    undirected: Annotated[
        bool, typer.Option("--undirected", help="Add reverse edges, each ordered pair once.")
    ] = False,
    largest_component: Annotated[bool, typer.Option("--largest-component", help="Keep only that.")] = False,
    dedup: Annotated[bool, typer.Option("--dedup", help="Keep one of parallel edges.")] = False,
    no_self_loops: Annotated[
        bool, typer.Option("--no-self-loops", help="Leave out edges from a node to itself.")
    ] = False,
    normalize_features: Annotated[str, typer.Option(help="none | row (rows sum to 1)")] = "none",
    features: Annotated[
        str | None,
        typer.Option(
            help="With edges:FILE, a text with the id of a node and its numbers per row, in any order, or an (N, F) "
            f".npy file. {_ROW_OF_NODE} For graphs without features: degree | random:COLUMNS[:SEED]."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="With edges:FILE, a text with the id of a node and its class (number or name) or numbers per row, "
            f"in any order; or a .npy or one-column text file. {_ROW_OF_NODE}"
        ),
    ] = None,
    edge_weights: Annotated[
        str | None,
        typer.Option(help="With edges:FILE, a .npy file of a number per edge, or the column of FILE (3 or more)."),
    ] = None,
    label_kind: Annotated[
        str | None,
        typer.Option(
            help="class | multilabel (0 or 1 in every column) | regression; one column holds classes, several are "
            "multilabel when not given."
        ),
    ] = None,
    on_nan: Annotated[str, typer.Option(help="error | zero, for NaN and infinities in the features.")] = "error",
    on_bad_edge: Annotated[str, typer.Option(help="error | drop, for edges whose ids are out of range.")] = "error",
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read a graph from SOURCE and write a Store, in bounded memory.

    Of ogb:ogbn-mag and ogb:mag240m only papers and their citations are read.

    x of ogb:ogbn-proteins is the mean of the features of the edges that reach a node.

    Example: gnnsys ingest npz:cora.npz stores/cora --undirected --normalize-features row
    """
    start = time.perf_counter()
    with progress(quiet or as_json) as report:
        made = gs.ingest(
            source,
            store,
            memory=memory,
            split=split,
            split_seed=split_seed,
            allow_overlap=allow_overlap,
            undirected=undirected,
            dedup=dedup,
            no_self_loops=no_self_loops,
            largest_component=largest_component,
            normalize_features=normalize_features,
            features=features,
            labels=labels,
            edge_weights=edge_weights,
            label_kind=label_kind,
            on_nan=on_nan,
            on_bad_edge=on_bad_edge,
            workers=workers,
            progress=report,
        )
    counts = dict(made.manifest.counts)
    result = {"store": str(store), "store_id": made.id, "store_digest": made.digest, **counts}
    notes = "".join(_counted(counts[key], what) for key, what in _NOTES.items() if counts.get(key))
    text = (
        f"{store}: {made.num_nodes:,} nodes, {made.num_edges:,} edges, {_labels(made)}{notes}, "
        f"splits {', '.join(made.split_names) or 'none'} ({time.perf_counter() - start:.1f} s)"
    )
    emit(result, text, as_json)


def _counted(count: int, what: str) -> str:
    return f", {count:,} {what.format(s='' if count == 1 else 's')}"


def add(
    store: Annotated[Path, typer.Argument(help="A Store.")],
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE, an (N, F) .npy file, or a text with the id of a node and its numbers per row, in any "
            "order; x gives features to a Store that has none."
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE, a .npy file of node ids or a boolean mask, or a text with the id of a node per row."
        ),
    ] = None,
    on_nan: Annotated[str, typer.Option(help="error | zero, for NaN and infinities in a table.")] = "error",
    memory: Memory = "4GiB",
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add tables and splits to a Store, without ingesting it again; both options may be given several times.

    Example: gnnsys add stores/cora --table emb=emb.npy --split mine=ids.txt
    """
    tables, splits = (_named_files(several or []) for several in (table, split))
    if not tables and not splits:
        raise ConfigError("GS-CFG-971", "there is nothing to add", hint="Give --table NAME=FILE or --split.")
    with progress(quiet or as_json) as report:
        made = gs.add(
            store, tables=tables, splits=splits, on_nan=on_nan, memory=memory, workers=workers, progress=report
        )
    names = {"tables": made.table_names, "splits": made.split_names}
    text = "; ".join(f"{kind} {', '.join(found) or 'none'}" for kind, found in names.items())
    emit({"store": str(store), **names}, f"{store}: {text}", as_json)


def _named_files(several: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for given in several:
        name, equals, file = given.partition("=")
        if not equals or not name or name in found:
            problem = "names one twice" if name in found else "is not NAME=FILE"
            raise ConfigError("GS-CFG-971", f"{given!r} {problem}")
        found[name] = Path(file)
    return found


def _labels(store: gs.Store) -> str:
    if store.label_kind in (None, "class"):
        return f"{store.num_classes} classes"
    return f"{store.num_outputs} {store.label_kind} labels"


def sample(
    store: Annotated[Path, typer.Argument(help="A Store.")],
    out: Annotated[Path, typer.Argument(metavar="POOL", help="Folder of the new Pool.")],
    fanouts: Fanouts = None,
    batch_size: BatchSize = None,
    seeds: SeedNodes = None,
    seed: Seed = None,
    weighted: Weighted = False,
    replace: Annotated[bool, typer.Option("--replace", help="Draw neighbours with replacement.")] = False,
    memory: Memory = "4GiB",
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sample every batch of one pass over the seeds and write them down.

    Example: gnnsys sample stores/cora pools/cora --fanouts 10,5 --batch-size 64
    """
    with progress(quiet or as_json) as report:
        opened = gs.Store.open(store)
        made = gs.sample(
            opened,
            out,
            **sampling_options(fanouts, batch_size, seeds, seed),
            weights=drawn_by(opened, weighted),
            replace=replace,
            memory=parse_size(memory),
            workers=workers,
            progress=report,
        )
    counts = dict(made.manifest.counts)
    text = f"{out}: {made.num_batches:,} batches, {counts['nodes']:,} node reads, {counts['edges']:,} edges"
    emit({"pool": str(out), "pool_id": made.id, "pool_digest": made.digest, **counts}, text, as_json)


def plan(
    source: Annotated[Path, typer.Argument(metavar="STORE|POOL", help="A Store (estimated) or a Pool (exact).")],
    fanouts: Fanouts = None,
    batch_size: BatchSize = None,
    seeds: SeedNodes = None,
    seed: Seed = None,
    weighted: Weighted = False,
    memory: Memory = "4GiB",
    disk: Disk = None,
    epochs: Epochs = 10,
    layout: Layout = "auto",
    model: Model = None,
    dropout: Dropout = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Explain where every row would live and what an epoch would cost; writes nothing.

    Example: gnnsys plan stores/cora --fanouts 10,5 --memory 64MiB --epochs 20
    """
    options: dict[str, Any] = {
        "memory": parse_size(memory),
        "disk": parse_size(disk) if disk else None,
        "epochs": epochs,
        "layout": layout,
    }
    if manifest.kind_of(source) == pool.FORMAT:
        refuse_sampling_options(
            source, fanouts=fanouts, batch_size=batch_size, seeds=seeds, seed=seed, weighted=weighted or None
        )
        opened = gs.Pool.open(source)
        options["aggregate"] = _aggregate(model, dropout, opened.hops, layout)
        made = gs.plan(opened, gs.Store.open(store) if store else None, **options)
    else:
        sampling = sampling_options(fanouts, batch_size, seeds, seed)
        options["aggregate"] = _aggregate(model, dropout, len(sampling["fanouts"]), layout)
        graph = gs.Store.open(source)
        made = gs.estimate(graph, weights=drawn_by(graph, weighted), **sampling, **options)
    emit(made.to_json(), str(made), as_json)


def pack(
    source: Annotated[Path, typer.Argument(metavar="STORE|POOL", help="A Store (sampled first) or a Pool.")],
    out: Annotated[Path, typer.Argument(metavar="PACK", help="Folder of the new Pack.")],
    fanouts: Fanouts = None,
    batch_size: BatchSize = None,
    seeds: SeedNodes = None,
    seed: Seed = None,
    weighted: Weighted = False,
    memory: Memory = "4GiB",
    disk: Disk = None,
    epochs: Epochs = 10,
    layout: Layout = "packed",
    model: Model = None,
    dropout: Dropout = None,
    store: StorePath = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sample, plan and pack: rows in the order training will read them. Repeating the command continues.

    Example: gnnsys pack stores/cora packs/cora --fanouts 10,5 --batch-size 64 --memory 64MiB
    """
    start = time.perf_counter()
    sampling: dict[str, Any] = {}
    if manifest.kind_of(source) == pool.FORMAT:
        refuse_sampling_options(
            source, fanouts=fanouts, batch_size=batch_size, seeds=seeds, seed=seed, weighted=weighted or None
        )
        opened: gs.Store | gs.Pool = (given := gs.Pool.open(source))
        hops = given.hops
    else:
        opened = (graph := gs.Store.open(source))
        sampling = sampling_options(fanouts, batch_size, seeds, seed)
        sampling["weights"] = drawn_by(graph, weighted)
        hops = len(sampling["fanouts"])
    with progress(quiet or as_json) as report:
        made = gs.pack(
            opened,
            out,
            memory=parse_size(memory),
            disk=parse_size(disk) if disk else None,
            epochs=epochs,
            layout=layout,
            aggregate=_aggregate(model, dropout, hops, layout),
            store=store,
            workers=workers,
            progress=report,
            **sampling,
        )
    result = {
        "pack": str(out),
        "pool_id": made.pool.id,
        "pack_id": made.id,
        "pool_digest": made.pool.digest,
        "pack_digest": made.digest,
        "plan": made.plan.to_json(),
    }
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    took_s = time.perf_counter() - start
    text = f"{made.plan}\n{out}: {made.pool.num_batches:,} batches, {format_size(size)}, {took_s:.1f} s"
    emit(result, text, as_json)


def _aggregate(model: str | None, dropout: float | None, hops: int, layout: str) -> str | None:
    """How the first layer of that model aggregates its rows; None when it was not named, or cannot be folded.

    Raises:
        ConfigError: it cannot, and the layout wants it.
    """
    if model is None or not hops:
        return None
    dropout = TrainConfig().dropout if dropout is None else dropout
    network = build(model, in_channels=8, hidden_channels=8, num_layers=hops, out_channels=2, dropout=dropout)
    return foldable(network) if layout == "pre-aggregated" else aggregates_input(network)
