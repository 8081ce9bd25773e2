"""A step on the whole graph: its chunks through the stages, with the rows that they keep of each other.

Weights are the same for all chunks of an epoch, and change once at its end. What is not exact are the rows of chunks
whose turn has not come yet: they are as old as the last snapshot. How far that carries the loss away is measured every
`guard_every` epochs, by a sweep that computes every layer for all chunks before the next one, under the same weights
and the same dropout: the difference is staleness and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnnsys.batch import Batch
from gnnsys.models.fold import fold, layers_of
from gnnsys.models.randomness import random_from
from gnnsys.pipeline.channel import Spec, Wire
from gnnsys.pipeline.chunks import ChunkBlock, ChunkGraph
from gnnsys.pipeline.history import History, KeptRows
from gnnsys.pipeline.ranks import Ranks, heard
from gnnsys.training.chunk_feed import ChunkFeed
from gnnsys.training.config import TrainConfig
from gnnsys.training.drift import Drift
from gnnsys.training.stages import StageModel, Widths, as_tensors
from gnnsys.training.step import StepSums, StepWork
from gnnsys.training.tasks import Task

HISTORY = "history-"
"""Begins the names of checkpoint groups."""


class ChunkWork(StepWork):
    """The layers of one rank on the chunks of a graph.

    Args:
        model, task, config, device, ranks: as for `StepWork`.
        arriving: what the first of its layers reads, on all stages.
        feed: of the same stage.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        config: TrainConfig,
        device: torch.device,
        ranks: Ranks,
        arriving: Widths,
        feed: ChunkFeed,
    ) -> None:
        super().__init__(model, task, config, device, ranks, arriving)
        self._feed = feed
        self._layers = dict(enumerate(layers_of(model) or (), int(getattr(model, "first_layer", 0))))
        self._kept_sums: dict[int, dict[int, list[Tensor]]] = {}
        self._of_one_node, self._sweep_bytes_of_one = self._probe()
        self.history = self._of_one_node

    @property
    def held(self) -> Mapping[str, int]:
        return {"rows kept between chunks": self._of_one_node.num_bytes * self._feed.graph.num_nodes}

    @property
    def sweep_bytes(self) -> int:
        return self._sweep_bytes_of_one * self._feed.graph.num_nodes

    def allocate(self) -> None:
        self.history = self._of_one_node.sized(self._feed.graph.num_nodes)

    def run(self, feed: Any, batches: Iterator[Batch], num_micro: int, step: int) -> StepSums:
        if step == 0:
            self.begin_history()
        self.history.begin()
        sums = super().run(feed, batches, num_micro, step)
        every = self._config.guard_every
        if every and self._config.chunks != 1 and (step + 1) % every == 0:
            sums.drift = self.look(sums.loss, sums.count, step)
        self.history.end(step)
        return sums

    def lasting(self) -> dict[str, dict[str, Tensor]]:
        return {f"{HISTORY}{name}": {name: tensor} for name, tensor in self.history.tensors().items()}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.history.restore({name: tensors[f"{HISTORY}{name}"][name] for name in self.history.tensors()})

    def _part(self, micro: int, inputs: tuple[Tensor, ...]) -> Batch:
        part = super()._part(micro, inputs)
        sums = self._kept_sums[micro] if self._config.recompute else None
        blocks = zip(self._layers, part.blocks, strict=False)
        return replace(part, blocks=tuple(self._bound(block, number, sums) for number, block in blocks))

    def _bound(self, block: Any, number: int, sums: dict[int, list[Tensor]] | None) -> Any:
        """The block of that layer, with what is kept for it."""
        own = None if sums is None else sums.setdefault(number, [])
        return replace(block, kept=self.history.layers[number], sums=own)

    def load(self, micro: int) -> None:
        super().load(micro)
        self._kept_sums[micro] = {}

    def _forget(self, micro: int) -> None:
        super()._forget(micro)
        del self._kept_sums[micro]

    def _probe(self) -> tuple[History, int]:
        """What the layers keep of one node without edges, and the bytes of it in a sweep: what the widest layer reads,
        gives and keeps, beside the first rows."""
        config, device = self._config, self._device
        graph = ChunkGraph(np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(1, np.int64), np.arange(2), device)
        history = History({number: KeptRows(1, config.refresh, config.compensation) for number in self._layers})
        learns = not self._first
        h = _as_rows([torch.zeros(1, n, dtype=t, device=device, requires_grad=learns) for n, t in self._widths])
        first, widest = _num_bytes(h), 0
        with random_from(0, device), self._autocast():
            for number, layer in self._layers.items():
                kept, read = history.layers[number], _num_bytes(h)
                h = layer(h, ChunkBlock(graph, 0, kept))
                widest = max(widest, read + _num_bytes(h) + kept.num_bytes)
        return history, first + widest

    def begin_history(self) -> None:
        """Before the first epoch: exact rows under the first weights, or zeros."""
        self.history.clear()
        if self._config.history == "exact":
            self._sweep(self.history.layers.__getitem__, step=0)
            self.history.keep()

    def look(self, loss: float, count: float, step: int) -> Drift:
        """Compare the loss of an epoch with the exact one under the weights that it had; all ranks together.

        Args:
            loss, count: sums over this rank's part of the epoch.
            step: number of the epoch.
        """
        num_nodes = self._feed.graph.num_nodes
        own = self._sweep(lambda _number: KeptRows(num_nodes, refresh=1, compensation=1.0), step)
        losses, exact, counts = self._ranks.sum([loss, own, count])
        return Drift(epoch=step, loss=losses / (counts or 1), exact=exact / (counts or 1))

    def _sweep(self, kept_of: Callable[[int], KeptRows], step: int) -> float:
        """One exact forward pass: every layer for all chunks before the next one, twice, because the first time puts
        the rows of all chunks in place.

        Args:
            kept_of: where a layer puts them.
            step: whose dropout is used.

        Returns:
            On the last stage the summed loss, else 0.
        """
        before, behind = self._ranks.wires()
        with torch.no_grad():
            parts = [self._feed.batch(chunk) for chunk in self._feed.order(step)]
            rows = [self._arrived(part, before) for part in parts]
            for number, layer in self._layers.items():
                kept = kept_of(number)
                one = partial(self._one_layer, layer, number, kept)
                for micro, (part, h) in enumerate(zip(parts, rows, strict=True)):
                    one(part, h, (step, micro))
                rows = [one(part, h, (step, micro)) for micro, (part, h) in enumerate(zip(parts, rows, strict=True))]
            if self._last:
                return sum(float(self.task.loss(h, part)[0]) for part, h in zip(parts, rows, strict=True))
            with heard("the stage behind"):
                for h in rows:
                    behind.send(as_tensors(h))
                behind.flush()
            return 0.0

    def _arrived(self, part: Batch, before: Wire) -> Any:
        """Rows of a chunk that the first layer of this stage reads."""
        if self._first:
            return part.x
        with heard("the stage before"):
            before.post([Spec((part.batch_size, columns), dtype) for columns, dtype in self._widths])
            return _as_rows(before.receive())

    def _one_layer(
        self, layer: nn.Module, number: int, kept: KeptRows, part: Batch, h: Any, place: tuple[int, int]
    ) -> Any:
        """What one layer gives for a chunk."""
        single = StageModel([layer], number)
        part = replace(part, x=h, blocks=(ChunkBlock(self._feed.graph, part.index, kept),))  # type: ignore[arg-type]
        key = (self._config.seed, *place)
        if self._last and number == max(self._layers):
            return self._outputs(single, part, key)
        with self._autocast():
            return fold(single, part, key=key)


def _as_rows(tensors: Sequence[Tensor]) -> Any:
    """What a layer takes: a tensor, or a tuple of several."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def _num_bytes(rows: Any) -> int:
    return sum(tensor.nbytes for tensor in as_tensors(rows))
