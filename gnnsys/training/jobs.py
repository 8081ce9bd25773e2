"""Jobs: turn what a caller gives - a model and a loader, or options and a folder - into one description to execute."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.loading.loader import Loader
from gnnsys.loading.opening import open_source, packed_generation
from gnnsys.models.fold import layers_of
from gnnsys.models.registry import NAMES, build, identity
from gnnsys.pipeline.ranks import world
from gnnsys.samplers.draws import drawn_by
from gnnsys.samplers.seeds import as_seeds
from gnnsys.storage.hint import resolve_store
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store, split_path, table_path
from gnnsys.training.chunk_feed import ChunkFeed
from gnnsys.training.config import OF_NETWORK, TrainConfig
from gnnsys.training.edge_weights import weights_of_training
from gnnsys.training.feed import Feed
from gnnsys.training.fitting import fitted
from gnnsys.training.host import choose_device
from gnnsys.training.job import Job
from gnnsys.training.splits import check_splits, scored_beside
from gnnsys.training.stages import Part
from gnnsys.training.task_names import USUAL_METRIC, meaning_of_outputs, task_of_labels
from gnnsys.training.tasks import NodeClassification, Task, balanced_weights
from gnnsys.units import format_size

Opened = Pack | Pool | Store


def job_of_options(source: str | Path, config: TrainConfig, store: str | Path | None) -> Job:
    """The task that the labels ask for, by a named model or by a class in the user's file."""
    opened = open_source(source, "first")
    graph = opened if isinstance(opened, Store) else resolve_store(opened.path, store)
    config = fitted(config, opened)
    config = config.model_copy(update={"metric": config.metric or USUAL_METRIC[graph.label_kind or "class"]})
    task = task_of_labels(graph, config.metric or "", config.loss)
    trained = _trained_nodes(config, opened, graph, task)
    if config.class_weights is not None:
        weights = balanced_weights(graph, trained)
        task = NodeClassification(graph.num_classes, config.metric or "", class_weights=weights)
    sizes: dict[str, Any] = {
        "in_channels": graph.table_columns("x"),
        "hidden_channels": config.hidden,
        "num_layers": config.layers,
        "out_channels": graph.num_outputs,
        "dropout": config.dropout,
        "seed": config.seed,
        **config.of_network(),
    }
    return Job(
        config=config,
        task=task,
        store=graph,
        decisive=_decisive(config, opened, graph, task, {**sizes, **identity(config.model)}),
        **_scoring(config, opened, graph, task, trained),
        make_model=lambda: build(config.model, **sizes),
        make_loader=_loader_maker(opened, graph, task, config),
        repeat={"source": opened.path, **({"store": graph.path} if store is not None else {})},
    )


def job_of_model(
    model: nn.Module, source: Loader | Opened | str | Path, task: Task, config: TrainConfig, store: Any
) -> Job:
    """Any task and model, on a loader of the caller's or one made for a Pack, a Pool or a Store."""
    if config.of_network():
        raise ConfigError(
            "GS-CFG-853",
            f"{', '.join(config.of_network())}: the model is there already and is not changed",
            hint="Build it with them: gs.build('gat', heads=4, ...).",
        )
    if said := [name for name in ("metric", "loss", "class_weights") if getattr(config, name) is not None]:
        raise ConfigError(
            "GS-CFG-952",
            f"{', '.join(said)}: the task has its own",
            hint="Make the task with it: gs.NodeClassification(..., class_weights=[...]).",
        )
    loader = source if isinstance(source, Loader) else None
    opened = loader.opened if loader else open_source(source, "first")  # type: ignore[arg-type]
    graph = opened if isinstance(opened, Store) else _store_if_there(opened, store)
    of_model = {"model": type(model).__qualname__, "layers": config.layers or len(layers_of(model) or ()) or None}
    config = fitted(config.model_copy(update=of_model), opened, loader)
    trained = None if graph is None else _trained_nodes(config, opened, graph, task, loader)
    make_loader = _loader_maker(opened, graph, task, config) if loader is None else lambda _device, _part: loader
    described = getattr(model, "built_as", None) or {"name": config.model, "parameters": shapes_digest(model)}
    return Job(
        config=config,
        task=task,
        store=graph,
        decisive=_decisive(config, opened, graph, task, dict(described), loader),
        **_scoring(config, opened, graph, task, trained, loader),
        make_model=lambda: model,
        make_loader=make_loader,
        own_loader=loader is None,
    )


def _scoring(
    config: TrainConfig,
    opened: Opened,
    graph: Store | None,
    task: Task,
    trained: np.ndarray | None,
    loader: Loader | None = None,
) -> dict[str, Any]:
    """The part of a Job that says how its run is scored, checked; what a later evaluation or report must know is a
    hint."""
    hints: dict[str, Any] = {"source_path": str(opened.path), "outputs": meaning_of_outputs(task)}
    hints["edge_weights"] = None
    if graph is None:
        return {"hints": hints}
    hints |= _described(graph)
    split = _trained_split(config, opened, graph, loader)
    whole = split is not None and trained is not None and np.array_equal(np.sort(trained), graph.split(split))
    hints |= {"trained_split": split if whole else None, "drawn": _how_drawn(opened, loader) if whole else None}
    scored = scored_beside(graph, split)
    if config.patience and (scored.valid is None or not hasattr(task, "metric")):
        raise ConfigError(
            "GS-CFG-514",
            f"patience is {config.patience}: {graph.path} has no labelled split 'valid' of what is trained on, or the "
            "task no metric, so nothing tells when to stop",
            hint="Leave it out, or add a split: gnnsys add STORE --split valid=FILE.",
        )
    check_splits(task, graph, trained, scored)
    weights, hints["edge_weights"] = weights_of_training(opened, graph, loader, config.weighted)
    return {"hints": hints, "scored": scored, "weights": weights}


def _described(graph: Store) -> dict[str, Any]:
    """What a page tells of the graph, and another one is compared with before it is scored."""
    names = {"class_names": graph.class_names, "feature_names": graph.feature_names}
    return {
        **{what: None if found is None else list(found) for what, found in names.items()},
        "x_columns": graph.table_columns("x") if "x" in graph.table_names else None,
        "x_made": x_made(graph),
        "graph": {
            "name": graph.path.resolve().name,
            "id": graph.id,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
        },
    }


def _trained_split(config: TrainConfig, opened: Opened, graph: Store, loader: Loader | None) -> str | None:
    """Its name, when an epoch goes over a split."""
    if isinstance(opened, Store):
        name = loader.seeds.name if loader is not None and loader.seeds else config.split
        return name if name in graph.split_names else None
    given = (opened.pool if isinstance(opened, Pack) else opened).manifest.parameters["seeds"]
    added = (name for name in graph.split_names if graph.is_added(split_path(name)))
    return given if given in graph.split_names else next((n for n in added if as_seeds(graph, n).digest == given), None)


def _how_drawn(opened: Opened, loader: Loader | None) -> dict[str, Any]:
    """How batches are drawn, but from which seeds and by which number; of a Store without a Loader the options say
    it."""
    if loader is not None or isinstance(opened, Store):
        return {} if loader is None else loader.drawn
    return (opened.pool if isinstance(opened, Pack) else opened).drawn


def _trained_nodes(
    config: TrainConfig, opened: Opened, graph: Store, task: Task, loader: Loader | None = None
) -> np.ndarray | None:
    """Nodes of an epoch, None for pairs. A pool that was sampled for a whole split is not read for it."""
    if isinstance(opened, Store):
        seeds = None if loader is None else loader.seeds
        return (seeds or as_seeds(graph, task.seeds(graph, config.split))).ids
    pool = opened.pool if isinstance(opened, Pack) else opened
    name = pool.manifest.parameters["seeds"]
    return graph.split(name) if name in graph.split_names else pool.seed_ids()


def shapes_digest(model: nn.Module) -> str:
    """`sha256:<hex>` of the names, shapes and dtypes of a model's parameters and buffers."""
    shapes = {name: [str(t.dtype), list(t.shape)] for name, t in model.state_dict().items()}
    return "sha256:" + hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def _decisive(
    config: TrainConfig,
    opened: Opened,
    graph: Store | None,
    task: Task,
    model: dict[str, Any],
    loader: Loader | None = None,
) -> dict[str, Any]:
    """Everything that decides the weights."""
    source = _source(config, opened, task, loader)
    if graph is not None and (digest := x_digest(graph)):
        source["x"] = digest
    replicas = world() // (config.pipeline or 1)
    identity = task.identity() if hasattr(task, "identity") else {}
    return {
        "options": {k: v for k, v in config.decisive().items() if k not in _OF_MODEL and k != "device"},
        "model": model,
        "task": {"name": type(task).__name__, **identity},
        "source": source,
        "device": choose_device(config.device).type,
        **({"replicas": replicas} if replicas > 1 else {}),  # their sums round in another order
    }


def _source(config: TrainConfig, opened: Opened, task: Task, loader: Loader | None) -> dict[str, Any]:
    """What batches are made of, and their order. A pack counts by its pool: its layout does not change a batch, but
    that aggregates folded into it are sums rounded in another place."""
    if isinstance(opened, Store):
        given = None if loader is None else loader.seeds
        seeds = given or as_seeds(opened, task.seeds(opened, config.split))
        order: str = seeds.order
        source = {"store": opened.id, "seeds": seeds.digest}
    else:
        pool = opened.pool if isinstance(opened, Pack) else opened
        order, source = pool.order, {"pool": pool.id}
        packed = packed_generation(opened, config.rows)
        if packed is not None and packed.aggregates is not None:
            source["aggregate"] = packed.aggregates.how
    _refuse_order(task, order)
    if loader is None:
        return {**source, "order": order}
    position = loader.state_dict()
    return {key: position[key] for key in position.keys() - {"epoch", "next"}}


def x_made(graph: Store) -> dict[str, Any] | None:
    """What ingest did to features, or made them of; None of those that joined the Store later, or where there are
    none."""
    if "x" not in graph.table_names or graph.is_added(table_path("x")):
        return None
    return {what: graph.manifest.parameters.get(what) for what in ("normalize_features", "features")}


def x_digest(graph: Store) -> str | None:
    """Of features that joined the Store after its ingest; the id of the Store tells of others."""
    added = "x" in graph.table_names and graph.is_added(table_path("x"))
    return str(graph.table_part("x").entry.digest) if added else None


_OF_MODEL = ("model", "layers", "hidden", "dropout", *OF_NETWORK)


def _refuse_order(task: Task, order: str) -> None:
    wanted = getattr(task, "order", order)
    if wanted != order:
        raise ConfigError(
            "GS-CFG-512",
            f"the task wants batches in {wanted!r} order, these come in {order!r}",
            hint="Make the pack from seeds with that order.",
        )


def _store_if_there(opened: Pack | Pool, store: Any) -> Store | None:
    """The Store behind a pack; None when it is not there and was not asked for: only evaluation needs it."""
    try:
        return resolve_store(opened.path, store)
    except InputDataError as error:
        if store is not None:
            raise
        warnings.warn(f"training without evaluation: {error.message}", RuntimeWarning, stacklevel=2)
        return None


def _loader_maker(
    opened: Opened, graph: Store | None, task: Task, config: TrainConfig
) -> Callable[[torch.device, Part], Feed]:
    def make(device: torch.device, part: Part) -> Feed:
        _refuse_rows_beyond(config, opened, graph)
        if config.chunks is not None:
            assert graph is not None
            return ChunkFeed(graph, task, config, device, part)
        common: dict[str, Any] = {"rows": config.rows, "seed": config.seed, "device": device, "prefetch": 1}
        common |= part.options()
        if isinstance(opened, Store):
            seeds = task.seeds(opened, config.split)
            sampling: dict[str, Any] = {"seeds": seeds, "fanouts": config.fanouts, "batch_size": config.batch_size}
            sampling["weights"] = drawn_by(opened, config.weighted)
            return Loader(opened, hops=part.hops, workers=1, **sampling, **common)
        hops = config.layers if part.hops is None and config.model in NAMES else part.hops
        return Loader(opened, store=graph, hops=hops, workers=1, **common)

    return make


def _refuse_rows_beyond(config: TrainConfig, opened: Opened, graph: Store | None) -> None:
    """Rows that a Loader keeps for good must fit before it reads them."""
    packed = isinstance(opened, Pack) and config.rows in ("auto", "packed")
    held = 0
    if config.rows == "memory" and graph is not None:
        held = graph.num_nodes * graph.row_bytes("x")
    elif packed and isinstance(opened, Pack):
        held = opened.generations[0].cache_rows_bytes
    if held > config.memory:
        raise MemoryBudgetError(
            "GS-MEM-004",
            f"{opened.path}: {format_size(held)} of rows are kept in memory, --memory is {format_size(config.memory)}",
            hint="Give as much --memory as the pack was made for, or make another one."
            if packed
            else "Use --rows mapped or direct.",
        )
