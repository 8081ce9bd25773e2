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
from gnnsys.storage.store import Store, table_path
from gnnsys.training.chunk_feed import ChunkFeed
from gnnsys.training.config import OF_NETWORK, TrainConfig
from gnnsys.training.edge_weights import weights_of_training
from gnnsys.training.feed import Feed
from gnnsys.training.session import Job, choose_device
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
    trained = _trained_nodes(opened, graph, task)
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
    trained = None if graph is None else _trained_nodes(opened, graph, task, loader)
    make_loader = _loader_maker(opened, graph, task, config) if loader is None else lambda _device, _part: loader
    described = getattr(model, "built_as", None) or {"name": config.model, "parameters": shapes_digest(model)}
    decisive = _decisive(config, opened, graph, task, dict(described))
    if loader is not None:
        position = loader.state_dict()
        decisive["source"] = {key: position[key] for key in position.keys() - {"epoch", "next"}}
    return Job(
        config=config,
        task=task,
        store=graph,
        decisive=decisive,
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
    """The part of a Job that says how its run is scored, checked; what of it a later evaluation must know is a hint."""
    hints: dict[str, Any] = {"source_path": str(opened.path), "outputs": meaning_of_outputs(task)}
    hints["edge_weights"] = None
    if graph is None:
        return {"hints": hints}
    hints |= _described(graph)
    scored = scored_beside(graph, _trained_split(opened, graph, loader))
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


def _trained_split(opened: Opened, graph: Store, loader: Loader | None) -> str | None:
    """Its name, when an epoch goes over a split."""
    if isinstance(opened, Store):
        name = loader.seeds.name if loader and loader.seeds else "train"
    else:
        name = str((opened.pool if isinstance(opened, Pack) else opened).manifest.parameters["seeds"])
    return name if name in graph.split_names else None


def _trained_nodes(opened: Opened, graph: Store, task: Task, loader: Loader | None = None) -> np.ndarray | None:
    """Nodes of an epoch, None for pairs. A pool that was sampled for a whole split is not read for it."""
    if isinstance(opened, Store):
        seeds = loader.seeds if loader else None
        return (seeds or as_seeds(graph, task.seeds(graph, "train"))).ids
    pool = opened.pool if isinstance(opened, Pack) else opened
    name = pool.manifest.parameters["seeds"]
    return graph.split(name) if name in graph.split_names else pool.seed_ids()


def fitted(config: TrainConfig, opened: Opened, loader: Loader | None = None) -> TrainConfig:
    """`config` with layers, fanouts and batch size filled in from what will be read.

    Raises:
        ConfigError: the pool was sampled with others, or a Store needs fanouts or chunks.
    """
    if isinstance(opened, Store):
        return _fitted_to_store(config, loader)
    if config.chunks is not None:
        raise ConfigError(
            "GS-CFG-832",
            f"chunks are of a whole graph, {opened.path} holds sampled batches",
            hint="Give the Store that it was made from.",
        )
    pool = opened.pool if isinstance(opened, Pack) else opened
    if config.weighted:
        raise ConfigError(
            "GS-CFG-508",
            f"weighted: {opened.path} was sampled already",
            hint="Leave it out; it is an option of sample, plan and pack too.",
        )
    hops = len(pool.fanouts)
    layers = config.layers or hops
    named = config.model in NAMES
    if named and layers > hops:
        raise ConfigError(
            "GS-CFG-507",
            f"{layers} layers need {layers} hops, {opened.path} was sampled with {hops}",
            hint=f"Use --layers {hops}, or make another pack with more --fanouts.",
        )
    fanouts = pool.fanouts[:layers] if named else pool.fanouts
    for what, asked, have in (
        ("fanouts", config.fanouts and list(config.fanouts), list(fanouts)),
        ("batch_size", config.batch_size, pool.batch_size),
    ):
        if asked and asked != have:
            raise ConfigError(
                "GS-CFG-508",
                f"{what} is {asked}, {opened.path} was sampled with {have}",
                hint="Leave it out, or make another pack.",
            )
    return config.model_copy(update={"layers": layers, "fanouts": tuple(fanouts), "batch_size": pool.batch_size})


def _fitted_to_store(config: TrainConfig, loader: Loader | None) -> TrainConfig:
    if config.chunks is not None:
        return _fitted_to_chunks(config, loader)
    if loader is not None and config.weighted:
        raise ConfigError("GS-CFG-508", "weighted: the Loader says how edges are drawn", hint="Give it weights=.")
    fanouts = config.fanouts
    if loader is not None and fanouts is None:
        fanouts = tuple(loader.fanouts)
    if fanouts is None and config.model == "mlp":
        fanouts = (0,) * (config.layers or 2)
    if fanouts is None:
        raise ConfigError(
            "GS-CFG-509",
            "a Store is sampled while training: fanouts are missing",
            hint="E.g. --fanouts 10,5; or train on the whole graph with --chunks 1.",
        )
    layers = config.layers or len(fanouts)
    if config.model in NAMES and layers != len(fanouts):
        raise ConfigError(
            "GS-CFG-507", f"{layers} layers need {layers} fanouts, got {list(fanouts)}", hint="One fanout per layer."
        )
    batch_size = config.batch_size or 1024
    return config.model_copy(update={"layers": layers, "fanouts": fanouts, "batch_size": batch_size})


def _fitted_to_chunks(config: TrainConfig, loader: Loader | None) -> TrainConfig:
    """A chunk is a micro-batch, an epoch is a step."""
    if loader is not None:
        raise ConfigError("GS-CFG-832", "a Loader gives sampled batches, chunks are of a whole graph: give the Store")
    meaningless = [name for name in ("fanouts", "batch_size", "weighted") if getattr(config, name) not in (None, False)]
    if meaningless or config.micro_batches > 1:
        named = ", ".join([*meaningless, *(["micro_batches"] if config.micro_batches > 1 else [])])
        raise ConfigError("GS-CFG-832", f"chunks take all neighbours of all nodes in one step: {named} mean nothing")
    layers = config.layers or 2
    steps = {"micro_batches": config.chunks, "schedule": "fill-drain"}
    return config.model_copy(update={"layers": layers, "fanouts": (-1,) * layers, **steps})


def shapes_digest(model: nn.Module) -> str:
    """`sha256:<hex>` of the names, shapes and dtypes of a model's parameters and buffers."""
    shapes = {name: [str(t.dtype), list(t.shape)] for name, t in model.state_dict().items()}
    return "sha256:" + hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def _decisive(
    config: TrainConfig, opened: Opened, graph: Store | None, task: Task, model: dict[str, Any]
) -> dict[str, Any]:
    """Everything that decides the weights. A pack counts by its pool: its layout does not change a batch, but that
    aggregates folded into it are sums rounded in another place."""
    if isinstance(opened, Store):
        assert graph is not None
        seeds = as_seeds(graph, task.seeds(graph, "train"))
        source = {"store": opened.id, "seeds": seeds.digest, "order": seeds.order}
    else:
        pool = opened.pool if isinstance(opened, Pack) else opened
        source = {"pool": pool.id, "order": pool.order}
        packed = packed_generation(opened, config.rows)
        if packed is not None and packed.aggregates is not None:
            source["aggregate"] = packed.aggregates.how
    if graph is not None and (digest := x_digest(graph)):
        source["x"] = digest
    _refuse_order(task, str(source["order"]))
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
            seeds = task.seeds(opened, "train")
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
