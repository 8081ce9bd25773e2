"""Share out `--memory`: model, step and small things first, measured; the loader reads ahead in what is left."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gnnsys.budget import Budget, GrowthMeter
from gnnsys.errors import MemoryBudgetError
from gnnsys.loading.loader import Loader
from gnnsys.pipeline.ranks import Ranks
from gnnsys.storage.store import Store
from gnnsys.storage.threads import batches_ahead, loading_workers
from gnnsys.training.config import TrainConfig
from gnnsys.training.feed import Feed
from gnnsys.training.memory import (
    EVALUATION_BYTES,
    OVERHEAD_BYTES,
    FreedBlocks,
    checkpoint_bytes,
    state_bytes,
    step_growth,
    trim,
)
from gnnsys.training.step import StepWork
from gnnsys.units import format_size


@dataclass(frozen=True)
class Shared:
    """How the memory of a run is shared out."""

    budget: Budget
    """As it is between two epochs: evaluation may take what is left."""
    freed: FreedBlocks
    """What becomes of memory that a step has freed."""


def share_memory(
    work: StepWork,
    loader: Feed,
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
    meter: GrowthMeter,
    *,
    resize: bool,
    scoring: int = 0,
) -> Shared:
    """Reserve the shares, measuring a step on the largest batch.

    Ranks on one host share its `config.memory`: each gets what it needs, and an equal part of what is left.

    Args:
        resize: choose how far the loader reads ahead; a loader of the caller's own is taken as it is.
        scoring: bytes that a metric takes.

    Raises:
        MemoryBudgetError: they do not fit into `config.memory`, with every share and the smallest memory that works.
    """
    shares = {"model and optimizer": state_bytes(work.model), "small things": OVERHEAD_BYTES, **work.held}
    shares["loader"] = loader.memory_bytes(1, 1) if resize else loader.memory_bytes()
    smaller = "smaller batches or fanouts" if config.chunks is None else "--recompute, or a smaller --hidden"
    _room(config.memory, shares, ranks, smaller)
    work.allocate()
    largest = loader.largest_batch().to(device)
    step = step_growth(work, largest, meter) + (work.num_live - 1) * loader.max_batch_bytes()
    del largest
    if isinstance(loader.opened, Store):
        step += step // 4  # sampled online, a later batch may be larger than those looked at
    shares["one step"] = max(step, checkpoint_bytes(work.model), EVALUATION_BYTES + scoring, work.sweep_bytes)
    budget = Budget(_room(config.memory, shares, ranks, smaller))
    for what in shares.keys() - {"loader"}:
        budget.reserve(shares[what], what)
    if resize:
        _set_read_ahead(loader, budget.left, config)
    trim()
    loader_bytes = loader.memory_bytes()
    needed = shares["one step"] + loader_bytes
    freed = FreedBlocks(meter, budget.total, needed, budget.left - loader_bytes)
    del budget.shares["one step"]
    budget.reserve(_idle_bytes(loader), "loader")
    return Shared(budget, freed)


def _room(total: int, shares: Mapping[str, int], ranks: Ranks, smaller: str) -> int:
    """What this rank may take of the memory of its host; `smaller` is what would need less."""
    host = os.environ.get("GROUP_RANK", "0")
    everyone = [each["shares"] for each in ranks.gather({"host": host, "shares": dict(shares)}) if each["host"] == host]
    _refuse_over(total, everyone, smaller)
    left = total - sum(sum(each.values()) for each in everyone)
    return sum(shares.values()) + left // len(everyone)


def _refuse_over(total: int, everyone: Sequence[Mapping[str, int]], smaller: str) -> None:
    needed = sum(sum(shares.values()) for shares in everyone)
    if needed > total:
        over = {what: sum(shares[what] for shares in everyone) for what in everyone[0]}
        listed = ", ".join(f"{what} {format_size(share)}" for what, share in over.items())
        together = f" in {len(everyone)} processes" if len(everyone) > 1 else ""
        error = MemoryBudgetError(
            "GS-MEM-004",
            f"training needs {format_size(needed)}{together}, --memory is {format_size(total)} ({listed})",
            hint=f"Give at least --memory {-(-needed >> 20) + 1}MiB, or use {smaller}.",
        )
        error.everywhere = True
        raise error


def _set_read_ahead(loader: Feed, left: int, config: TrainConfig) -> None:
    """Let the loader read as far ahead, with as many threads, as `left` bytes allow: prefetch shrinks first."""
    workers = config.workers or loading_workers()
    for prefetch in range(config.prefetch or batches_ahead(workers), 0, -1):
        for threads in range(min(workers, prefetch), 0, -1):
            if loader.memory_bytes(prefetch, threads) <= left:
                loader.prefetch, loader.workers = prefetch, threads
                return
    raise AssertionError("the caller made sure that one batch fits")


def _idle_bytes(loader: Feed) -> int:
    """What the loader keeps between two epochs, when it has no batches and no threads: its cached rows, and all that is
    page-locked for a GPU, which torch keeps."""
    if isinstance(loader, Loader) and loader.device.type == "cuda":
        return loader.memory_bytes()
    worker = loader.memory_bytes(2, 2) - loader.memory_bytes(2, 1)
    return loader.memory_bytes(1, 1) - worker - 2 * loader.max_batch_bytes()
