"""One optimizer step's gradients: its micro-batches through the layers that this rank has.

The random numbers of a micro-batch come from (seed, step, micro-batch, layer) alone, and gradients are added in the
order of the micro-batches: where the model is cut changes no bit.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.keys import derive
from gnnsys.models.fold import fold
from gnnsys.models.randomness import random_from
from gnnsys.pipeline.channel import Spec
from gnnsys.pipeline.ranks import Alone, Ranks
from gnnsys.pipeline.runner import Seconds, StageRunner
from gnnsys.pipeline.schedule import make_schedule
from gnnsys.training.config import TrainConfig
from gnnsys.training.drift import Drift
from gnnsys.training.feed import Feed
from gnnsys.training.stages import Widths, as_tensors
from gnnsys.training.state import THREAD_STAGES
from gnnsys.training.tasks import Task


@dataclass
class StepSums:
    """What the batches of one step add up to; seeds, nodes and edges are counted by the first stage alone."""

    loss: float = 0.0
    count: float = 0.0
    seeds: int = 0
    nodes: int = 0
    edges: int = 0
    bytes_read: int = 0
    wait_s: float = 0.0
    load_s: float = 0.0
    read_s: float = 0.0
    assemble_s: float = 0.0
    wall_s: float = 0.0
    batch: int = -1
    """Number of the last one."""
    drift: Drift | None = None
    """With chunks, in epochs that look."""
    problem: tuple[str, Batch] | None = None
    """What is not finite, first seen, and in which batch."""

    def add(self, batch: Batch, *, first: bool) -> None:
        if first:
            self.seeds += batch.batch_size
            self.nodes += len(batch.n_id)
            self.edges += batch.blocks[0].num_edges if batch.blocks else 0
        self.bytes_read += int(batch.io.get("bytes_read", 0))
        for stage in ("wait_s", *THREAD_STAGES):
            setattr(self, stage, getattr(self, stage) + batch.io.get(stage, 0.0))
        self.batch = batch.index

    def note(self, what: str, batch: Batch) -> None:
        self.problem = self.problem or (what, batch)

    def to_event(self) -> dict[str, Any]:
        """`io_ms` passes in the loader's threads, the rest of `wall_ms` is either waiting for them or computing."""
        times = {"wall": self.wall_s, "wait": self.wait_s, "io": self.read_s, "compute": self.wall_s - self.wait_s}
        rounded = {f"{name}_ms": round(1000 * seconds, 3) for name, seconds in times.items()}
        loss = self.loss / (self.count or 1)
        return {"loss": loss, "batch": self.batch, "nodes": self.nodes, "edges": self.edges, **rounded}


class StepWork:
    """The layers of one rank at work; gradients are left on the model, not yet divided by the count of the step.

    Args:
        model: the whole model, or the `StageModel` of this rank.
        arriving: what the first of its layers reads, on stages that are not the first.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        config: TrainConfig,
        device: torch.device,
        ranks: Ranks | None = None,
        arriving: Widths = (),
    ) -> None:
        _refuse_twice_updated(model, config)
        self.model, self.task = model, task
        self._config, self._device, self._widths = config, device, arriving
        self._ranks = ranks or Alone()
        self._first, self._last = self._ranks.stage == 0, self._ranks.stage == self._ranks.num_stages - 1
        self._outputs = keyed_outputs(task, config.precision)
        self.runner = StageRunner(self, *self._ranks.wires())
        self._batches: Iterator[Batch] = iter(())
        self._sizes: Sequence[tuple[int, ...] | None] = ()
        self._live: dict[int, tuple[Batch, Tensor | None]] = {}
        self._step = 0
        self._sums = StepSums()

    @property
    def seconds(self) -> Seconds:
        """Where the time went since the start."""
        return self.runner.seconds

    @property
    def held(self) -> Mapping[str, int]:
        """Bytes that it holds all the time beside model and optimizer, by what for; from `allocate` on."""
        return {}

    @property
    def sweep_bytes(self) -> int:
        """Bytes beside that for work between two steps."""
        return 0

    def allocate(self) -> None:
        """Take what `held` promised."""

    def lasting(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Tensors beside the weights that the next step starts from, as groups of a checkpoint."""
        return {}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Start from what `lasting` gave, on all ranks."""

    @property
    def num_live(self) -> int:
        """Micro-batches whose activations are held at once, at most."""
        return self._schedule(self._own(self._config.micro_batches)).num_live(self._ranks.stage)

    def run(self, loader: Feed, batches: Iterator[Batch], num_micro: int, step: int) -> StepSums:
        """Forward and backward of the next micro-batches.

        Args:
            batches: what `loader` delivers to this rank.
            num_micro: of the step, over all replicas.
        """
        own = self._own(num_micro)
        sums = self.begin(loader, batches, own, step)
        if own:
            self.runner.step(self._schedule(own).rows[self._ranks.stage])
        self._batches = iter(())
        return sums

    def begin(self, loader: Feed, batches: Iterator[Batch], own: int, step: int) -> StepSums:
        """Make ready for `own` micro-batches of this replica; what is returned fills while they are performed."""
        self._sums, self._step, self._batches = StepSums(), step, batches
        self._sizes = loader.upcoming_nodes(own) if self._ranks.num_stages > 1 else ()
        return self._sums

    def rehearse(self, batch: Batch) -> None:
        """Forward of that batch as often as micro-batches are live at once, then backward; neighbours send ones."""
        self._sums, self._step, self._batches = StepSums(), 0, iter([batch] * self.num_live)
        made = []
        for micro in range(self.num_live):
            self.load(micro)
            specs = self.arriving(micro) or ()
            inputs = tuple(torch.ones(spec.shape, dtype=spec.dtype, device=self._device) for spec in specs)
            for tensor in inputs:
                tensor.requires_grad_()
            made.append(self.forward(micro, inputs))
        while made:
            outputs = made.pop()
            torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
            self._forget(len(made))

    def arriving(self, micro: int) -> Sequence[Spec] | None:
        if self._first:
            return ()
        if micro in self._live:
            rows: int = self._live[micro][0].blocks[0].num_src
        else:
            nodes = self._sizes[micro] if micro < len(self._sizes) else None
            if nodes is None:
                return None
            rows = nodes[-1]
        return [Spec((rows, columns), dtype) for columns, dtype in self._widths]

    def load(self, micro: int) -> None:
        batch = next(self._batches)
        self._sums.add(batch, first=self._first)
        batch = batch.to(self._device)
        if hasattr(self.task, "before_step"):
            batch = self.task.before_step(batch) or batch
        self._live[micro] = (batch, None)

    def forward(self, micro: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        batch = self._live[micro][0]
        key = (self._config.seed, self._step, self._ranks.replica + micro * self._ranks.num_replicas)
        with random_from(derive(*key), self._device):
            out = self._through_layers(micro, inputs, key)
            if not self._last:
                return as_tensors(out)
            loss, count = _sum_and_count(self.task, self.task.loss(out, batch))
        value = float(loss.detach())
        if not math.isfinite(value):
            self._sums.note(f"the loss is {value}", batch)
        self._sums.loss += value
        self._sums.count += count
        self._live[micro] = (batch, out.detach() if hasattr(self.task, "after_step") else None)
        return (loss,)

    def end(self, micro: int) -> None:
        batch, out = self._live[micro]
        self._forget(micro)
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not all(bool(torch.isfinite(grad).all()) for grad in grads):
            self._sums.note("a gradient is not finite", batch)
        if hasattr(self.task, "after_step"):
            self.task.after_step(out, batch)

    def _forget(self, micro: int) -> None:
        """Let go of a micro-batch."""
        del self._live[micro]

    def _through_layers(self, micro: int, inputs: tuple[Tensor, ...], key: tuple[int, ...]) -> Any:
        """What the layers give for a micro-batch, and on the last stage the task makes of it."""

        def run(*arrived: Tensor) -> Any:
            part = self._part(micro, arrived)
            if self._last:
                return self._outputs(self.model, part, key)
            with self._autocast():
                return fold(self.model, part, key=key)

        return checkpoint(run, *inputs, use_reentrant=False) if self._config.recompute else run(*inputs)

    def _part(self, micro: int, inputs: tuple[Tensor, ...]) -> Batch:
        """The batch as the layers of this stage see it: their blocks, and what arrived for rows."""
        batch = self._live[micro][0]
        if self._first and self._last:
            return batch
        num_layers = len(list(self.model.layers.children()))  # type: ignore[union-attr]
        arrived: Any = inputs[0] if len(inputs) == 1 else inputs
        return replace(batch, x=batch.x if self._first else arrived, blocks=batch.blocks[:num_layers])

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bf16")

    def _own(self, num_micro: int) -> int:
        """How many of a step's micro-batches are this replica's."""
        return len(range(self._ranks.replica, num_micro, self._ranks.num_replicas))

    def _schedule(self, own: int) -> Any:
        return make_schedule(self._config.schedule, self._ranks.num_stages, own)


def keyed_outputs(task: Task, precision: str) -> Callable[[nn.Module, Batch, tuple[int, ...]], Tensor]:
    """`task.outputs` as a function of (model, batch, key), for tasks that take the key and for those that do not, with
    dense products in that precision; outputs are float32 again."""
    outputs: Any = task.outputs
    takes_key = "key" in inspect.signature(outputs).parameters

    def call(model: nn.Module, batch: Batch, key: tuple[int, ...]) -> Tensor:
        out: Tensor = outputs(model, batch, key=key) if takes_key else outputs(model, batch)
        return out

    def call_in_bf16(model: nn.Module, batch: Batch, key: tuple[int, ...]) -> Tensor:
        with torch.autocast(batch.seeds.device.type, torch.bfloat16):
            return call(model, batch, key).float()

    return call_in_bf16 if precision == "bf16" else call


def _refuse_twice_updated(model: nn.Module, config: TrainConfig) -> None:
    """Buffers, such as running statistics, change in a forward pass; some options take more of these than one."""
    option = "recompute" if config.recompute else "chunks" if config.chunks is not None else ""
    names = [name for name, _ in model.named_buffers()]
    if option and names:
        raise ConfigError(
            "GS-CFG-835",
            f"the model has buffers ({', '.join(names[:3])}), which {option} would update more than once a step",
            hint="Use layers without running statistics, such as torch.nn.LayerNorm, or train on sampled batches.",
        )


def _sum_and_count(task: Task, found: Any) -> tuple[Tensor, float]:
    """What a task's `loss` gave.

    Raises:
        ConfigError: it is not a sum, in a tensor without dimensions, and a number.
    """
    good = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor) and found[0].ndim == 0
    if not good:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            "GS-CFG-907",
            f"{type(task).__name__}.loss gives {given}, expected two values: the sum over the batch and the count",
            hint="return losses.sum(), len(losses)",
        )
    return found
