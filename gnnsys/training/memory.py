"""What steps cost in memory: a warm-up before the promise starts, a step measured on the largest batch.

The shares of `--memory`, each reserved before training starts:

    model      parameters, gradients and the optimizer's two moments
    step       the largest of: growth while one step runs on the largest batch; bytes of a checkpoint being written;
               the least that evaluation can do with
    loader     its cache, the batches made ahead, what its workers hold

Evaluation runs between steps, when the step's share is free: it gets what model and loader leave.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gnnsys.batch import Batch
from gnnsys.budget import GrowthMeter, counted_bytes, give_back_freed_blocks, keep_freed_blocks, peak_growth
from gnnsys.errors import MemoryBudgetError
from gnnsys.training.step import StepWork

OVERHEAD_BYTES = 4 << 20
"""Thread stacks, what the allocator keeps between two `trim`s, index columns of a pool: 3 MiB where measured."""

EVALUATION_BYTES = 8 << 20
"""The least that evaluation is given, so that it is not refused after hours of training."""

_NOISE_BYTES = 2 << 20
"""What the kernel counts late: it adds up the pages of a thread in batches."""


@contextmanager
def room_on_gpu() -> Iterator[None]:
    """Say what to do where the memory of a GPU is too small.

    Raises:
        MemoryBudgetError: in the place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryBudgetError(
            "GS-MEM-005",
            f"the GPU has too little memory: {str(error).splitlines()[0]}",
            hint="Use smaller batches or fanouts, a smaller --hidden, --precision bf16, or --device cpu.",
        ) from error


def step_growth(work: StepWork, batch: Batch, meter: GrowthMeter) -> int:
    """Bytes by which a step on batches like that one grows this process at its peak, beside the batches; model and
    task are left as they were.

    On a GPU a step is taken before: the kernels that CUDA loads for it, some 100 MiB of this process, are no growth.
    """
    model, task = work.model, work.task
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    state = copy.deepcopy(task.state_dict()) if hasattr(task, "state_dict") else None
    was_training = model.training

    def rehearse_and_trim() -> None:
        work.rehearse(batch)
        trim()

    model.train()
    try:
        if batch.seeds.is_cuda:
            meter.leave_out(rehearse_and_trim)
        return growth_of(lambda: work.rehearse(batch))
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
        if state is not None and hasattr(task, "load_state_dict"):
            task.load_state_dict(state)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def growth_of(work: Callable[[], object]) -> int:
    """Peak growth of this process while `work` runs, rounded up by what counting may have missed."""
    trim()
    return peak_growth(work) + _NOISE_BYTES


def state_bytes(model: nn.Module) -> int:
    """Bytes of parameters, their gradients, Adam's two moments, and buffers."""
    parameters = sum(p.nbytes for p in model.parameters())
    return 4 * parameters + sum(b.nbytes for b in model.buffers())


def checkpoint_bytes(model: nn.Module) -> int:
    """Bytes that writing a checkpoint takes on top: two copies of its largest file, the two moments."""
    return 4 * sum(p.nbytes for p in model.parameters())


class FreedBlocks:
    """Lets a step use again what the one before freed, where there is room for what that leaves behind.

    Before every step: what the process has grown by, and all that the step and the loader may add, must fit; else
    everything free is given back first. Without room for twice a step that would be before every step, and freed
    blocks are given back as they are freed.

    Args:
        meter: of this process.
        limit: bytes that it may grow by.
        needed: bytes that a step and the loader may take on top.
        left: bytes of the limit that nobody has reserved.
    """

    def __init__(self, meter: GrowthMeter, limit: int, needed: int, left: int) -> None:
        self._meter, self._limit, self._needed, self._keep = meter, limit, needed, left >= needed

    def before_step(self) -> None:
        if not self._keep:
            return
        keep_freed_blocks()
        if counted_bytes() - self._meter.baseline + self._needed > self._limit:
            trim()

    def give_back(self) -> None:
        """Before anything else than a step: give back what is free, from now on at once."""
        give_back_freed_blocks()
        trim()


def trim() -> None:
    """Give freed heap back to the system: glibc keeps it, and what it keeps counts as growth."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
