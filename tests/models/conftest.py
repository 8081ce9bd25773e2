"""Small random graphs, tree batches drawn by a slow obvious sampler, and the checks that every model must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from gnnsys.batch import Batch, Block
from gnnsys.models.fold import fold, layers_of

NUM_NODES = 14
WIDTH = 5


@dataclass(frozen=True)
class Tree:
    """A graph as a list of in-neighbours, and how to draw batches from it."""

    neighbours: list[list[int]]
    x: torch.Tensor

    def dense(self) -> torch.Tensor:
        """(N, N) float64: how many edges run from column u to row v."""
        a = torch.zeros(len(self.neighbours), len(self.neighbours), dtype=torch.float64)
        for v, sources in enumerate(self.neighbours):
            for u in sources:
                a[v, u] += 1
        return a

    def batch(self, seeds: list[int], fanouts: list[int], rng: np.random.Generator | None = None) -> Batch:
        """Directional tree: hop h draws in-neighbours of the nodes first found in hop h - 1."""
        n_id, rows, num_nodes, begin = list(seeds), [], [len(seeds)], 0
        for fanout in fanouts:
            ring = n_id[begin:]
            begin = len(n_id)
            for v in ring:
                picked = self._draw(v, fanout, rng)
                n_id += [u for u in dict.fromkeys(picked) if u not in n_id]
                rows.append([n_id.index(u) for u in picked])
            num_nodes.append(len(n_id))
        return self._assemble(n_id, rows, num_nodes)

    def _draw(self, v: int, fanout: int, rng: np.random.Generator | None) -> list[int]:
        sources = self.neighbours[v]
        if fanout == 0 or not sources:
            return []
        if fanout < 0 or fanout >= len(sources):
            return sources
        assert rng is not None
        return [sources[i] for i in sorted(rng.choice(len(sources), fanout, replace=False))]

    def _assemble(self, n_id: list[int], rows: list[list[int]], num_nodes: list[int]) -> Batch:
        degree = torch.tensor([len(self.neighbours[v]) for v in n_id], dtype=torch.int32)
        indptr = torch.tensor([0, *np.cumsum([len(r) for r in rows])], dtype=torch.int32)
        indices = torch.tensor([u for r in rows for u in r], dtype=torch.int32)
        blocks = []
        for hops in range(len(num_nodes) - 1, 0, -1):
            num_dst, num_src = num_nodes[hops - 1], num_nodes[hops]
            inner = indptr[: num_dst + 1]
            blocks.append(Block(indptr=inner, indices=indices[: int(inner[-1])], degree=degree[:num_src]))
        return Batch(
            seeds=torch.tensor(n_id[: num_nodes[0]]),
            n_id=torch.tensor(n_id),
            num_nodes=tuple(num_nodes),
            blocks=tuple(blocks),
            degree=degree,
            x=self.x[n_id],
            y=torch.arange(num_nodes[0]),
        )


@pytest.fixture
def tree() -> Tree:
    """14 nodes: 0 isolated, 1 with a self loop and a parallel edge, the rest random."""
    rng = np.random.default_rng(0)
    neighbours = [sorted(rng.integers(0, NUM_NODES, rng.integers(1, 5)).tolist()) for _ in range(NUM_NODES)]
    neighbours[0] = []
    neighbours[1] = [1, 3, 3, 7]
    return Tree(neighbours, torch.from_numpy(rng.standard_normal((NUM_NODES, WIDTH)).astype(np.float32)))


@pytest.fixture
def check_model() -> Callable[[nn.Module, Batch, int], None]:
    """Shape, invariance to the order of edges, gradients, and equality of folding with calling."""
    return _check_model


def _check_model(model: nn.Module, batch: Batch, out_channels: int) -> None:
    model.eval()
    out = fold(model, batch)[: batch.batch_size]
    assert out.shape == (batch.batch_size, out_channels)
    assert out.dtype == torch.float32
    shuffled = fold(model, reversed_edges(batch))[: batch.batch_size]
    torch.testing.assert_close(shuffled, out, atol=1e-5, rtol=0)  # sums of a few values of order one, in another order
    assert torch.equal(fold(model, batch)[: batch.batch_size], out)
    if layers_of(model) is not None:
        assert torch.equal(model(batch.x, batch.blocks), out)
    model.zero_grad()
    fold(model, batch)[: batch.batch_size].square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def reversed_edges(batch: Batch) -> Batch:
    """The same batch with the edges of every destination in reverse order."""
    return replace(batch, blocks=tuple(_reversed(block) for block in batch.blocks))


def _reversed(block: Block) -> Block:
    pieces = [block.indices[a:b].flip(0) for a, b in zip(block.indptr[:-1], block.indptr[1:], strict=True)]
    return replace(block, indices=torch.cat(pieces))
