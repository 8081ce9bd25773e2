"""Options of a run fitted to what it reads: what a Pack or a Pool decides already, what a Store needs to be told."""

from __future__ import annotations

from gnnsys.errors import ConfigError
from gnnsys.loading.loader import Loader
from gnnsys.models.registry import NAMES
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store
from gnnsys.training.config import TrainConfig


def fitted(config: TrainConfig, opened: Pack | Pool | Store, loader: Loader | None = None) -> TrainConfig:
    """`config` with layers, fanouts and batch size filled in from what will be read.

    Raises:
        ConfigError: the pool was sampled with others, or a Store needs fanouts or chunks.
    """
    if isinstance(opened, Store):
        if loader is not None and config.seeds:
            raise ConfigError("GS-CFG-508", "seeds: the Loader has its own", hint="Give it seeds=.")
        usual = {"seeds": None} if config.seeds == "train" else {}  # one name for one run
        return _fitted_to_store(config.model_copy(update=usual), loader)
    if config.chunks is not None:
        raise ConfigError(
            "GS-CFG-832",
            f"chunks are of a whole graph, {opened.path} holds sampled batches",
            hint="Give the Store that it was made from.",
        )
    pool = opened.pool if isinstance(opened, Pack) else opened
    if sampled := [name for name in ("weighted", "seeds") if getattr(config, name)]:
        raise ConfigError(
            "GS-CFG-508",
            f"{', '.join(sampled)}: {opened.path} was sampled already",
            hint="Leave it out; it is an option of sample, plan and pack too.",
        )
    delivered = pool.fanouts if loader is None else loader.fanouts
    hops = len(delivered)
    layers = config.layers or hops
    named = config.model in NAMES
    if named and layers > hops:
        raise ConfigError(
            "GS-CFG-507",
            f"{layers} layers need {layers} hops, {opened.path} was sampled with {hops}",
            hint=f"Use --layers {hops}, or make another pack with more --fanouts.",
        )
    fanouts = delivered[:layers] if named else delivered
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
