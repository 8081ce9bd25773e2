"""The whole graph as a feed: an epoch is its chunks, each with all its edges, once, in an order of the epoch's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError, MemoryBudgetError, VersionError
from gnnsys.loading.order import epoch_order
from gnnsys.models.aggregate import aggregate
from gnnsys.pipeline.chunks import ChunkBlock, ChunkGraph
from gnnsys.pipeline.partition import BYTES_PER_EDGE, partition, relabel
from gnnsys.samplers.seeds import as_seeds
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import raw_bytes
from gnnsys.storage.labels import labels_where
from gnnsys.storage.store import Store
from gnnsys.storage.tables import empty_rows
from gnnsys.training.config import TrainConfig
from gnnsys.training.stages import Part
from gnnsys.training.tasks import Task
from gnnsys.units import format_size

_WEIGHT_BYTES = 16
"""Per edge of a chunk while its rows are added up: weights of the edges, and what they are made of."""

aggregate.register(ChunkBlock, lambda block, h, how: block.aggregate(h, how))


class ChunkFeed:
    """Chunks of a Store's graph as batches: seeds are the nodes of the chunk, nodes that are not trained on are
    unlabelled, and every layer has a `ChunkBlock`, not yet told what is kept.

    Args:
        store: read whole but for its rows, which are read chunk by chunk in every epoch.
        config: with `chunks`.
        device: of graph and batches.
        part: which layers they are for, and whether rows and labels are read.

    Raises:
        ConfigError: the task trains on pairs, or there are more chunks than nodes.
        MemoryBudgetError: the graph does not fit into the memory of the run.
    """

    prefetch = workers = 1
    aggregate = None

    def __init__(self, store: Store, task: Task, config: TrainConfig, device: torch.device, part: Part) -> None:
        assert config.chunks is not None and config.layers is not None
        self._store, self._config, self._device, self._part = store, config, device, part
        self._num_layers = part.hops if part.hops is not None else config.layers
        self._trained = _trained(store, task, config.split)
        cutting = BYTES_PER_EDGE * store.num_edges if config.chunks > 1 else 0  # before the graph is held
        needed = max(graph_bytes(store), cutting)
        if needed > config.memory:
            raise MemoryBudgetError(
                "GS-MEM-004",
                f"{store.path}: to cut and hold its whole graph takes {format_size(needed)} in every process, "
                f"--memory is {format_size(config.memory)}",
                hint="Train on sampled batches: make a pack.",
            )
        graph = store.graph
        order, bounds = relabel(partition(graph.indptr, graph.indices, config.chunks), config.chunks)
        self._identity = digest(raw_bytes(np.concatenate([order, bounds])))
        self.graph = ChunkGraph(graph.indptr, graph.indices, order, bounds, device)
        self._table = store.table("x", _backend(config.rows)) if part.with_x else None
        self._epoch = self._next = 0

    @property
    def opened(self) -> Store:
        return self._store

    def __len__(self) -> int:
        return self.graph.num_chunks

    def __iter__(self) -> Iterator[Batch]:
        for chunk in self.order(self._epoch)[self._next :]:
            self._next += 1
            yield self.batch(chunk)
        self._epoch, self._next = self._epoch + 1, 0

    def batch(self, chunk: int) -> Batch:
        """The batch of one chunk."""
        nodes = self.graph.nodes(chunk)
        n_id = torch.from_numpy(nodes)
        began = time.perf_counter()
        x, asked = (None, 0) if self._table is None else self._rows(nodes)
        read_s = time.perf_counter() - began
        blocks: Any = tuple(ChunkBlock(self.graph, chunk) for _ in range(self._num_layers))
        batch = Batch(
            seeds=n_id,
            n_id=n_id,
            num_nodes=(len(nodes),) * (self._num_layers + 1),
            blocks=blocks,
            degree=self.graph.degree(chunk),
            x=x,
            y=self._labels(nodes) if self._part.with_y else None,
            index=chunk,
            io={"bytes_read": float(asked), "read_s": read_s},
        )
        return batch.to(self._device)

    def order(self, epoch: int) -> list[int]:
        """Chunks in the order of an epoch; the same on every rank."""
        found = epoch_order(len(self), epoch, seed=self._config.seed, shuffle=self._config.shuffle_chunks)
        return [int(chunk) for chunk in found]

    def set_epoch(self, epoch: int) -> None:
        self._epoch, self._next = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "next": self._next, "chunks": self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["chunks"] != self._identity:
            raise VersionError(
                "GS-VER-801",
                "the graph was cut into other chunks when this checkpoint was written, and its rows are theirs",
                hint="Continue with the version of gnnsys that wrote it, or begin anew.",
            )
        self._epoch, self._next = int(state["epoch"]), int(state["next"])

    def upcoming_nodes(self, count: int) -> list[tuple[int, ...] | None]:
        ahead = self.order(self._epoch)[self._next : self._next + count]
        return [(len(self.graph.nodes(chunk)),) * (self._num_layers + 1) for chunk in ahead]

    def planned_bytes(self, epoch: int) -> int:
        if self._table is None:
            return 0
        return sum(self._table.request_bytes(self.graph.nodes(chunk)) for chunk in self.order(epoch))

    def largest_batch(self) -> Batch:
        return self.batch(self._largest())

    def max_batch_bytes(self) -> int:
        row_bytes = self._table.row_bytes if self._table is not None else 0
        return (row_bytes + 32) * len(self.graph.nodes(self._largest()))

    def memory_bytes(self, prefetch: int | None = None, workers: int | None = None) -> int:
        held = self._store.num_nodes * self._store.row_bytes() if self._config.rows == "memory" else 0
        weights = _WEIGHT_BYTES * max(self.graph.num_edges(chunk) for chunk in range(len(self)))
        return graph_bytes(self._store) + weights + held * (self._table is not None) + 2 * self.max_batch_bytes()

    def close(self) -> None:
        if self._table is not None:
            self._table.close()

    def _largest(self) -> int:
        return max(range(len(self)), key=lambda chunk: (len(self.graph.nodes(chunk)), -chunk))

    def _rows(self, nodes: np.ndarray) -> tuple[Tensor, int]:
        assert self._table is not None
        tensor, array = empty_rows(len(nodes), self._table.columns, self._table.dtype_name)
        return tensor, self._table.fetch(nodes, array)[1]

    def _labels(self, nodes: np.ndarray) -> Tensor:
        labels = self._store.labels()
        assert labels is not None
        return torch.from_numpy(labels_where(labels, nodes, self._trained[nodes]))


def graph_bytes(store: Store) -> int:
    """Bytes of a graph held whole, both ways round, with what is held beside it while it is made."""
    return 8 * store.num_edges + 64 * store.num_nodes


def _trained(store: Store, task: Task, split: str) -> np.ndarray:
    """(N,) bool: nodes whose labels may be seen."""
    ids = as_seeds(store, task.seeds(store, split)).ids
    if ids is None:
        raise ConfigError("GS-CFG-832", "chunks of a whole graph are for tasks on nodes, this one trains on pairs")
    mask = np.zeros(store.num_nodes, dtype=np.bool_)
    mask[ids] = True
    return mask


def _backend(rows: str) -> str:
    if rows == "packed":
        raise ConfigError(
            "GS-CFG-832", "chunks read rows from the Store: it has no packed ones", hint="Leave --rows out."
        )
    return "mapped" if rows == "auto" else rows
