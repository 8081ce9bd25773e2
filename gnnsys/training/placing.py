"""`gnnsys place`: profile a model on what it would train on, and say which devices should get what."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.models.fold import float_rows, layers_of
from gnnsys.pipeline.history import KeptRows
from gnnsys.pipeline.placement import LayerCost, Machine, Placements, Work, place
from gnnsys.storage.threads import usable_cores
from gnnsys.training.chunk_feed import ChunkFeed
from gnnsys.training.config import TrainConfig, parse_config
from gnnsys.training.feed import Feed
from gnnsys.training.host import choose_device
from gnnsys.training.jobs import job_of_options
from gnnsys.training.memory import EVALUATION_BYTES, OVERHEAD_BYTES
from gnnsys.training.profile import profile_layer
from gnnsys.training.stages import Part, check_cuttable

_READS = 5
"""Of the largest batch, whose median counts."""


def place_training(
    source: str | Path, options: Mapping[str, Any], num_devices: int, *, store: str | Path | None = None
) -> Placements:
    """Which way to use up to `num_devices` devices trains this model fastest.

    Layers are measured on the largest batch or chunk, with one thread as a stage would run and with all of them as one
    process would; bytes and memory are counted; the rest is predicted (`gnnsys.pipeline.placement`).

    Args:
        source: folder of a Pack, a Pool or a Store, as for `train_from_config`.
        options: those of `TrainConfig` by name.
        num_devices: GPUs where there are any, else processes.
        store: where the Store of a Pack is now.

    Raises:
        ConfigError: an option does not fit, there are fewer GPUs, or the model does not offer a layer per hop.
    """
    if num_devices < 1:
        raise ConfigError("GS-CFG-833", f"{num_devices} devices; there must be at least 1")
    job = job_of_options(source, parse_config({"threads": 1, **options}), store)
    config, device = job.config, choose_device(job.config.device)
    machine = _machine(device, num_devices, config.memory)
    model = job.make_model().to(device).train()
    check_cuttable(model)
    feed = job.make_loader(device, Part())
    try:
        batches = [feed.largest_batch() for _ in range(1 + _READS)]
        batch = batches[0].to(device)
        costs, fixed = _profile(model, feed, batch, config, config.threads or 1)
        gain = 1.0
        if machine.cores > 1 and options.get("threads") is None:
            quick, _ = _profile(model, feed, batch, config, machine.cores)
            gain = max(1.0, _seconds(costs) / _seconds(quick))
        work = Work(
            layers=costs,
            num_micro=config.micro_batches,
            schedule=config.schedule,
            # the first read opens files and compiles
            load_s=statistics.median(each.io.get("read_s", 0.0) + each.io.get("load_s", 0.0) for each in batches[1:]),
            batch_bytes=feed.max_batch_bytes(),
            fixed_bytes=fixed,
            shared_bytes=OVERHEAD_BYTES + feed.memory_bytes(1, 1),
            least_step_bytes=EVALUATION_BYTES,
            thread_gain=gain,
            replicas=not isinstance(feed, ChunkFeed),
        )
    finally:
        feed.close()
    return place(work, machine)


def _machine(device: torch.device, num_devices: int, memory: int) -> Machine:
    if device.type != "cuda":
        return Machine(num_devices=num_devices, cores=usable_cores(), memory=memory)
    gpus = torch.cuda.device_count()
    if num_devices > gpus:
        raise ConfigError("GS-CFG-833", f"{num_devices} devices; this machine has {gpus} GPUs")
    least = min(torch.cuda.get_device_properties(each).total_memory for each in range(num_devices))
    return Machine(num_devices=num_devices, cores=0, memory=least)


def _profile(
    model: nn.Module, feed: Feed, batch: Batch, config: TrainConfig, threads: int
) -> tuple[tuple[LayerCost, ...], tuple[int, ...]]:
    """What every layer costs, and the bytes of the rows it keeps."""
    assert isinstance(batch.x, torch.Tensor)
    layers = layers_of(model) or ()
    if len(layers) != len(batch.blocks):
        raise ConfigError(
            "GS-CFG-834", f"the model has {len(layers)} layers, a batch {len(batch.blocks)} hops: they must be as many"
        )
    h: Any = float_rows(batch.x)
    costs, fixed = [], []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for number, (layer, block) in enumerate(zip(layers, batch.blocks, strict=True)):
            kept = _rows_kept(feed, config)
            cost, h = profile_layer(layer, number, partial(_anew, block, kept), h, config.precision)
            costs.append(cost)
            fixed.append(kept.num_bytes if kept else 0)
    finally:
        torch.set_num_threads(before)
    return tuple(costs), tuple(fixed)


def _seconds(costs: Sequence[LayerCost]) -> float:
    return sum(cost.forward_s + cost.backward_s for cost in costs)


def _anew(block: Any, kept: KeptRows | None) -> Any:
    """The block for one more pass."""
    return block if kept is None else replace(block, kept=kept)


def _rows_kept(feed: Feed, config: TrainConfig) -> KeptRows | None:
    if not isinstance(feed, ChunkFeed):
        return None
    return KeptRows(feed.graph.num_nodes, config.refresh, config.compensation)
