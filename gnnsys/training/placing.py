"""`gnnsys place`: profile a model on what it would train on, and say which devices should get what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnsys.errors import ConfigError
from gnnsys.models.fold import float_rows, layers_of
from gnnsys.pipeline.history import KeptRows
from gnnsys.pipeline.placement import Machine, Placements, Work, place
from gnnsys.training.chunk_feed import ChunkFeed, graph_bytes
from gnnsys.training.config import TrainConfig, parse_config
from gnnsys.training.feed import Feed
from gnnsys.training.jobs import job_of_options
from gnnsys.training.profile import profile_layer
from gnnsys.training.session import choose_device
from gnnsys.training.stages import Part, check_cuttable


def place_training(
    source: str | Path, options: Mapping[str, Any], num_devices: int, *, store: str | Path | None = None
) -> Placements:
    """Which way to use up to `num_devices` devices trains this model fastest.

    Layers are measured on the largest batch or chunk with one thread, as a stage would run; bytes and memory are
    counted; the rest is predicted (`gnnsys.pipeline.placement`).

    Args:
        source: folder of a Pack, a Pool or a Store, as for `train_from_config`.
        options: those of `TrainConfig` by name.
        num_devices: GPUs where there are any, else processes.
        store: where the Store of a Pack is now.

    Raises:
        ConfigError: an option does not fit, or the model offers no layers.
    """
    if num_devices < 1:
        raise ConfigError("GS-CFG-833", f"{num_devices} devices; there must be at least 1")
    job = job_of_options(source, parse_config({"threads": 1, **options}), store)
    config, device = job.config, choose_device(job.config.device)
    model = job.make_model().to(device).train()
    check_cuttable(model)
    feed = job.make_loader(device, Part())
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or 1)
    try:
        work = _work(model, feed, config)
    finally:
        torch.set_num_threads(before)
        feed.close()
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    cores = 0 if gpus >= num_devices else len(os.sched_getaffinity(0))
    return place(work, Machine(num_devices=num_devices, cores=cores, memory=config.memory))


def _work(model: nn.Module, feed: Feed, config: TrainConfig) -> Work:
    batch = feed.largest_batch()
    assert isinstance(batch.x, torch.Tensor)
    h: Any = float_rows(batch.x)
    costs, fixed = [], []
    for number, (layer, block) in enumerate(zip(layers_of(model) or (), batch.blocks, strict=True)):
        kept = _rows_kept(feed, config)
        cost, h = profile_layer(layer, number, partial(_anew, block, kept), h, config.precision)
        costs.append(cost)
        fixed.append(kept.num_bytes if kept else 0)
    return Work(
        layers=tuple(costs),
        num_micro=config.micro_batches,
        schedule=config.schedule,
        load_s=batch.io.get("read_s", 0.0) + batch.io.get("load_s", 0.0),
        batch_bytes=feed.max_batch_bytes(),
        fixed_bytes=tuple(fixed),
        shared_bytes=graph_bytes(feed.opened) if isinstance(feed, ChunkFeed) else 0,
        replicas=not isinstance(feed, ChunkFeed),
    )


def _anew(block: Any, kept: KeptRows | None) -> Any:
    """The block for one more pass."""
    return block if kept is None else replace(block, kept=kept)


def _rows_kept(feed: Feed, config: TrainConfig) -> KeptRows | None:
    if not isinstance(feed, ChunkFeed):
        return None
    return KeptRows(feed.graph.num_nodes, config.refresh, config.compensation)
