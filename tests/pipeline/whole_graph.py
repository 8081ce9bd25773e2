"""Small whole graphs for chunks: a feed in double precision, epochs of stages in one process, and a slow twin that lets
autograd see the whole epoch at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gnnsys.batch import Batch
from gnnsys.keys import derive
from gnnsys.models.aggregate import aggregate
from gnnsys.models.fold import fold
from gnnsys.models.randomness import random_from
from gnnsys.pipeline.balance import balance
from gnnsys.pipeline.chunks import ChunkBlock, ChunkGraph
from gnnsys.pipeline.schedule import make_schedule
from gnnsys.training.chunk_work import ChunkWork
from gnnsys.training.config import TrainConfig, parse_config
from gnnsys.training.stages import cut, layer_widths
from gnnsys.training.tasks import NodeClassification
from tests.pipeline.one_process import perform, seats

COLUMNS, CLASSES = 6, 3


@dataclass
class Whole:
    """A graph with rows, labels (-1: not trained on) and chunks; stands in for a `ChunkFeed`."""

    indptr: np.ndarray
    indices: np.ndarray
    order_of_nodes: np.ndarray
    bounds: np.ndarray
    x: Tensor
    y: Tensor
    num_layers: int
    seed: int = 0
    orders: list[list[int]] | None = None
    """Of the epochs, when the test wants its own."""
    epoch: int = 0
    graph: ChunkGraph = field(init=False)

    def __post_init__(self) -> None:
        self.graph = ChunkGraph(self.indptr, self.indices, self.order_of_nodes, self.bounds)

    @property
    def num_nodes(self) -> int:
        return len(self.x)

    @property
    def num_chunks(self) -> int:
        return len(self.bounds) - 1

    def order(self, epoch: int) -> list[int]:
        if self.orders is not None:
            return self.orders[epoch]
        found: list[int] = np.random.default_rng([self.seed, epoch]).permutation(self.num_chunks).tolist()
        return found

    def batch(self, chunk: int) -> Batch:
        nodes = torch.from_numpy(self.graph.nodes(chunk))
        blocks: Any = tuple(ChunkBlock(self.graph, chunk) for _ in range(self.num_layers))
        return Batch(
            seeds=nodes,
            n_id=nodes,
            num_nodes=(len(nodes),) * (self.num_layers + 1),
            blocks=blocks,
            degree=self.graph.degree(chunk),
            x=self.x[nodes],
            y=self.y[nodes],
            index=chunk,
        )

    def __iter__(self) -> Iterator[Batch]:
        return (self.batch(chunk) for chunk in self.order(self.epoch))

    def upcoming_nodes(self, count: int) -> list[tuple[int, ...]]:
        return [(len(self.graph.nodes(c)),) * (self.num_layers + 1) for c in self.order(self.epoch)[:count]]


def random_whole(num_nodes: int, num_edges: int, num_chunks: int, num_layers: int, *, seed: int = 0) -> Whole:
    """Edges anywhere, some of them parallel, some nodes without; chunks of random members and unequal sizes."""
    rng = np.random.default_rng(seed)
    to = np.sort(rng.integers(0, num_nodes - 2, num_edges))
    indptr = np.searchsorted(to, np.arange(num_nodes + 1)).astype(np.int64)
    indices = rng.integers(0, num_nodes, num_edges).astype(np.int32)
    inner = np.sort(rng.choice(np.arange(1, num_nodes), num_chunks - 1, replace=False))
    bounds = np.concatenate([[0], inner, [num_nodes]])
    return whole(indptr, indices, rng.permutation(num_nodes), bounds, num_layers, seed=seed)


def whole(
    indptr: np.ndarray, indices: np.ndarray, order: np.ndarray, bounds: np.ndarray, num_layers: int, *, seed: int = 0
) -> Whole:
    rng = np.random.default_rng(seed + 100)
    x = torch.from_numpy(rng.normal(size=(len(order), COLUMNS)))
    y = torch.from_numpy(rng.integers(-1, CLASSES, len(order)))
    return Whole(indptr, indices, order, bounds, x, y, num_layers, seed=seed)


class Stages:
    """The stages of a model over a whole graph, epoch by epoch; weights stay as they are."""

    def __init__(self, model: nn.Module, data: Whole, num_stages: int = 1, **options: Any) -> None:
        self.model = copy.deepcopy(model).train()
        self.config = parse_config({"chunks": data.num_chunks, "seed": 3, "guard_every": 0, **options})
        self.config = self.config.model_copy(update={"schedule": "fill-drain"})
        self.feeds = [copy.copy(data) for _ in range(num_stages)]
        bounds = balance([1.0] * data.num_layers, num_stages)
        widths = layer_widths(self.model, COLUMNS, "f32")
        self.works = []
        for seat, feed in zip(seats(num_stages), self.feeds, strict=True):
            feed.num_layers = data.num_layers - bounds[seat.stage]
            part = cut(self.model, bounds, seat.stage) if num_stages > 1 else self.model
            arriving = widths[bounds[seat.stage]]
            task, cpu = NodeClassification(CLASSES), torch.device("cpu")
            fed: Any = feed
            work = ChunkWork(part, task, self.config, cpu, seat, arriving, fed)
            work.allocate()
            self.works.append(work)
        for work in self.works:
            work.begin_history()

    def epoch(self, number: int) -> tuple[float, int]:
        """Gradients are left on the model; returns what the losses add up to, and how many there were."""
        assert self.config.chunks is not None
        count = self.config.chunks
        sums = []
        for work, feed in zip(self.works, self.feeds, strict=True):
            feed.epoch = number
            work.history.begin()
            sums.append(work.begin(feed, iter(feed), count, number))
        perform(make_schedule("fill-drain", len(self.works), count), [work.runner for work in self.works])
        for work in self.works:
            work.history.end(number)
        return sums[-1].loss, sums[-1].count

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def rows(self) -> dict[str, Tensor]:
        """Kept rows of every layer, as they are now, in the order of places."""
        return {
            f"{number}-{call}": rows
            for work in self.works
            for number, kept in work.history.layers.items()
            for call, rows in enumerate(kept.current())
        }


def dense(data: Whole, how: str) -> Tensor:
    """The aggregation as an (N, N) matrix over places, edge by edge."""
    place = np.empty(data.num_nodes, dtype=np.int64)
    place[data.order_of_nodes] = np.arange(data.num_nodes)
    degree = np.diff(data.indptr)
    matrix = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.float64)
    for v in range(data.num_nodes):
        for u in data.indices[data.indptr[v] : data.indptr[v + 1]]:
            weight = {"sum": 1.0, "mean": 1 / degree[v], "gcn": ((degree[v] + 1) * (degree[u] + 1)) ** -0.5}[how]
            matrix[place[v], place[u]] += weight
        if how == "gcn":
            matrix[place[v], place[v]] += 1 / (degree[v] + 1)
    return matrix


class _Scaled(torch.autograd.Function):
    """Nothing forward, a factor backward."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


@dataclass
class TwinBlock:
    """A chunk in the twin: rows of others are tensors of the same autograd graph when fresh, constants when not."""

    data: Whole
    chunk: int
    fresh: dict[int, Tensor]
    old: Tensor
    compensation: float

    @property
    def num_dst(self) -> int:
        return int(self.data.bounds[self.chunk + 1] - self.data.bounds[self.chunk])

    def aggregate(self, h: Tensor, how: str) -> Tensor:
        parts = []
        for other in range(self.data.num_chunks):
            if other == self.chunk:
                parts.append(h)
            elif other in self.fresh:
                parts.append(_Scaled.apply(self.fresh[other], self.compensation))
            else:
                parts.append(self.old[self.data.bounds[other] : self.data.bounds[other + 1]])
        self.fresh[self.chunk] = h
        begin, end = self.data.bounds[self.chunk], self.data.bounds[self.chunk + 1]
        return dense(self.data, how)[begin:end] @ torch.cat(parts)


aggregate.register(TwinBlock, lambda block, h, how: block.aggregate(h, how))


class Twin:
    """The same epochs in one autograd graph each, as the method is described and as slowly as that is."""

    def __init__(self, model: nn.Module, data: Whole, config: TrainConfig, old: dict[int, Tensor]) -> None:
        self.model, self.data, self.config = copy.deepcopy(model).train(), data, config
        self.old = old
        self.snapshot = dict(old)

    def epoch(self, number: int) -> float:
        layers: Any = self.model.layers
        if number % self.config.refresh:
            self.old = dict(self.snapshot)
        fresh: list[dict[int, Tensor]] = [{} for _ in layers]
        total: Any = 0.0
        for micro, chunk in enumerate(self.data.order(number)):
            blocks: Any = tuple(
                TwinBlock(self.data, chunk, fresh[i], self.old[i], self.config.compensation) for i in range(len(layers))
            )
            part = Batch(**{**self.data.batch(chunk).__dict__, "blocks": blocks})
            key = (self.config.seed, number, micro)
            with random_from(derive(*key)):
                out = fold(self.model, part, key=key)
            assert part.y is not None
            total = total + cross_entropy(out, part.y, ignore_index=-1, reduction="sum")
        total.backward()
        chunks = range(self.data.num_chunks)
        self.old = {i: torch.cat([fresh[i][c] for c in chunks]).detach() for i in range(len(layers))}
        if (number + 1) % self.config.refresh == 0:
            self.snapshot = dict(self.old)
        return float(total.detach())

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}


def orders_of(chunks: Sequence[int]) -> list[list[int]]:
    """All orders."""
    if len(chunks) <= 1:
        return [list(chunks)]
    return [[first, *rest] for first in chunks for rest in orders_of([other for other in chunks if other != first])]
