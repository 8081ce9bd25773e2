"""Seam of link prediction: pairs, drawn negatives and hidden target edges through the public API alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gnnsys as gs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    source = "synthetic:powerlaw:nodes=400,edges=2400,feat=16,classes=4,homophily=0.9,seed=2"
    return gs.ingest(source, tmp_path_factory.mktemp("link") / "store", memory="64MiB", undirected=True)


@pytest.fixture(scope="module")
def pairs(store: gs.Store) -> np.ndarray:
    """(200, 2): edges of the graph to predict, source and destination."""
    dst = np.repeat(np.arange(store.num_nodes), np.diff(store.graph.indptr))
    edges = np.stack([np.asarray(store.graph.indices), dst], axis=1)
    edges = edges[edges[:, 0] < edges[:, 1]]
    return np.random.default_rng(0).permutation(edges)[:200]


@pytest.fixture(scope="module")
def pack(store: gs.Store, pairs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    seeds = gs.Seeds.links(pairs, negatives=2, exclude="self+reverse")
    out = tmp_path_factory.mktemp("link-pack") / "pack"
    return gs.pack(store, out, seeds=seeds, fanouts=[6, 4], batch_size=40, memory="64MiB", seed=0)


class LinkPrediction:
    """Binary cross-entropy on dot products of end points; the metric is the share of pairs told apart."""

    order = "shuffle"

    def __init__(self, pairs: np.ndarray) -> None:
        self._pairs = pairs
        self.right = 0.0
        self.seen = 0

    def seeds(self, store: gs.Store, split: str) -> gs.Seeds:
        return gs.Seeds.links(self._pairs, negatives=2, exclude="self+reverse")

    def outputs(self, model: nn.Module, batch: gs.Batch) -> Tensor:
        h = model(batch.x, batch.blocks)
        assert batch.pairs is not None
        return (h[batch.pairs[:, 0]] * h[batch.pairs[:, 1]]).sum(dim=1)

    def loss(self, out: Tensor, batch: gs.Batch) -> tuple[Tensor, int]:
        assert batch.pair_label is not None
        return nn.functional.binary_cross_entropy_with_logits(out, batch.pair_label, reduction="sum"), len(out)

    def score(self, out: Tensor, batch: gs.Batch) -> None:
        assert batch.pair_label is not None
        self.right += float(((out > 0) == (batch.pair_label > 0.5)).sum())
        self.seen += len(out)


class Encoder(nn.Module):
    """Two rounds of mean aggregation, each beside the node's own row."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.ModuleList([nn.Linear(32, 16), nn.Linear(32, 16)])

    def forward(self, x: Tensor, blocks: tuple[gs.Block, ...]) -> Tensor:
        for lin, block in zip(self.lin, blocks, strict=True):
            x = lin(torch.cat([x[: block.num_dst], gs.aggregate(block, x, "mean")], dim=1)).tanh()
        return x


def _edges(batch: gs.Batch) -> Iterator[tuple[int, int]]:
    """Sampled edges in global ids, source first."""
    for u, v in batch.edge_index.T.tolist():
        yield int(batch.n_id[u]), int(batch.n_id[v])


def test_no_target_edge_reaches_the_model_in_either_direction(pack: gs.Pack) -> None:
    hidden_seen = 0
    with gs.Loader(pack) as loader:
        for batch in loader:
            assert batch.pairs is not None
            assert batch.pair_label is not None
            positive = batch.seeds[batch.pairs[batch.pair_label == 1]].tolist()
            hidden = {(u, v) for u, v in positive} | {(v, u) for u, v in positive}
            hidden_seen += len(hidden & set(_edges(batch)))
    assert hidden_seen == 0


def test_edges_that_are_not_targets_of_their_batch_stay(pack: gs.Pack, pairs: np.ndarray) -> None:
    targets = {tuple(p) for p in pairs.tolist()}
    with gs.Loader(pack) as loader:
        assert any(edge in targets for batch in loader for edge in _edges(batch))


def test_every_positive_comes_once_with_its_negatives(pack: gs.Pack, pairs: np.ndarray) -> None:
    positives, negatives = [], 0
    with gs.Loader(pack) as loader:
        for batch in loader:
            assert batch.pairs is not None
            assert batch.pair_label is not None
            positives += batch.seeds[batch.pairs[batch.pair_label == 1]].tolist()
            negatives += int((batch.pair_label == 0).sum())
    assert sorted(map(tuple, positives)) == sorted(map(tuple, pairs.tolist()))
    assert negatives == 2 * len(pairs)


def test_the_trainer_learns_links_without_knowing_what_they_are(
    pack: gs.Pack, pairs: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(0)
    task = LinkPrediction(pairs)
    out = tmp_path_factory.mktemp("link-run") / "run"
    run = gs.train(Encoder(), gs.Loader(pack), task=task, epochs=8, lr=0.01, out=out, memory="512MiB")
    losses = run.result["losses"]
    assert losses[-1] < 0.9 * losses[0]
