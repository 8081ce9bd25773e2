"""Share out `--memory`: model, step and small things first, measured; the loader reads ahead in what is left."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from gnnsys.budget import Budget
from gnnsys.errors import MemoryBudgetError
from gnnsys.loading.loader import Loader
from gnnsys.storage.store import Store
from gnnsys.training.config import TrainConfig
from gnnsys.training.memory import (
    EVALUATION_BYTES,
    OVERHEAD_BYTES,
    checkpoint_bytes,
    state_bytes,
    step_growth,
    trim,
)
from gnnsys.training.tasks import Task
from gnnsys.units import format_size


def share_memory(
    model: nn.Module, task: Task, loader: Loader, config: TrainConfig, device: torch.device, *, resize: bool
) -> Budget:
    """Reserve the shares, measuring a step on the largest batch; returns the budget as it is between two epochs.

    Args:
        resize: choose how far the loader reads ahead; a loader of the caller's own is taken as it is.

    Raises:
        MemoryBudgetError: they do not fit into `config.memory`, with every share and the smallest memory that works.
    """
    shares = {"model and optimizer": state_bytes(model), "small things": OVERHEAD_BYTES}
    shares["loader"] = loader.memory_bytes(1, 1) if resize else loader.memory_bytes()
    _refuse_over(config.memory, shares)
    step = step_growth(model, task, loader.largest_batch().to(device), config.precision)
    if isinstance(loader.opened, Store):
        step += step // 4  # sampled online, a later batch may be larger than those looked at
    shares["one step"] = max(step, checkpoint_bytes(model), EVALUATION_BYTES)
    _refuse_over(config.memory, shares)
    budget = Budget(config.memory)
    for what in shares.keys() - {"loader"}:
        budget.reserve(shares[what], what)
    if resize:
        _set_read_ahead(loader, budget.left, config)
    trim()
    del budget.shares["one step"]
    budget.reserve(_idle_bytes(loader), "loader")
    return budget


def _refuse_over(total: int, shares: Mapping[str, int]) -> None:
    needed = sum(shares.values())
    if needed > total:
        listed = ", ".join(f"{what} {format_size(share)}" for what, share in shares.items())
        raise MemoryBudgetError(
            "GS-MEM-004",
            f"training needs {format_size(needed)}, --memory is {format_size(total)} ({listed})",
            hint=f"Give at least --memory {-(-needed >> 20) + 1}MiB, or use smaller batches or fanouts.",
        )


def _set_read_ahead(loader: Loader, left: int, config: TrainConfig) -> None:
    """Let the loader read as far ahead, with as many threads, as `left` bytes allow: prefetch shrinks first."""
    workers = config.workers or 2
    for prefetch in range(config.prefetch or max(2, workers), 0, -1):
        for threads in range(min(workers, prefetch), 0, -1):
            if loader.memory_bytes(prefetch, threads) <= left:
                loader.prefetch, loader.workers = prefetch, threads
                return
    raise AssertionError("the caller made sure that one batch fits")


def _idle_bytes(loader: Loader) -> int:
    """What the loader keeps between two epochs, when it has no batches and no threads: its cached rows."""
    worker = loader.memory_bytes(2, 2) - loader.memory_bytes(2, 1)
    return loader.memory_bytes(1, 1) - worker - 2 * loader.max_batch_bytes()
