"""Stages of a model give the gradients of the whole one: any cut, any schedule, any number of micro-batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnnsys.batch import Batch, Block
from gnnsys.errors import ConfigError
from gnnsys.models.registry import NAMES, build
from gnnsys.pipeline.balance import balance
from gnnsys.pipeline.schedule import make_schedule
from gnnsys.training.config import parse_config
from gnnsys.training.stages import check_cuttable, cut, layer_widths
from gnnsys.training.step import StepWork
from gnnsys.training.tasks import NodeClassification
from tests.pipeline.one_process import perform, seats

HOPS, COLUMNS, CLASSES = 4, 6, 3


def random_batch(index: int, seeds: int) -> Batch:
    """Four hops around some seeds; a third of the nodes have no neighbours, in batch 2 no seed has any."""
    rng = np.random.default_rng(index)
    rings = np.cumsum([seeds, *rng.integers(1, 7, HOPS)])
    counts = rng.integers(0, 4, rings[-2]) * (rng.random(rings[-2]) < 0.7)
    counts[: seeds if index == 2 else 0] = 0
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    reach = np.repeat(rings[1:], np.diff(np.concatenate([[0], rings[:-1]])))
    indices = np.concatenate([rng.integers(0, reach[v], counts[v]) for v in range(rings[-2])]).astype(np.int32)
    degree = torch.from_numpy(rng.integers(4, 9, rings[-1]).astype(np.int32))
    blocks = tuple(
        Block(
            indptr=torch.from_numpy(indptr[: rings[h - 1] + 1]),
            indices=torch.from_numpy(indices[: indptr[rings[h - 1]]]),
            degree=degree[: rings[h]],
        )
        for h in range(HOPS, 0, -1)
    )
    n_id = torch.from_numpy(rng.permutation(1000)[: rings[-1]])
    x = torch.from_numpy(rng.normal(size=(rings[-1], COLUMNS)))
    y = torch.from_numpy(rng.integers(-1, CLASSES, seeds))
    nodes = tuple(int(ring) for ring in rings)
    return Batch(seeds=n_id[:seeds], n_id=n_id, num_nodes=nodes, blocks=blocks, degree=degree, x=x, y=y, index=index)


class Inner:
    """A loader of the batches in a list as one stage sees them."""

    def __init__(self, batches: list[Batch], hops: int, *, known: bool) -> None:
        self.batches = [_inner(batch, hops) for batch in batches]
        self._known = known

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def upcoming_nodes(self, count: int) -> list[tuple[int, ...] | None]:
        return [batch.num_nodes if self._known else None for batch in self.batches[:count]]


def _inner(batch: Batch, hops: int) -> Batch:
    count = batch.num_nodes[hops]
    rows: Any = batch.x if hops == HOPS else None
    fields = {**batch.__dict__, "n_id": batch.n_id[:count], "degree": batch.degree[:count], "x": rows}
    fields.pop("edge_index", None)
    return Batch(**{**fields, "num_nodes": batch.num_nodes[: hops + 1], "blocks": batch.blocks[HOPS - hops :]})


def gradients(
    model: nn.Module, batches: list[Batch], stages: int, schedule: str = "1f1b", *, known: bool = True
) -> tuple[dict[str, Tensor], float, int]:
    """Gradients of one step by name, and what its losses add up to."""
    model = copy.deepcopy(model).train()
    config = parse_config({"schedule": schedule, "micro_batches": len(batches), "seed": 3})
    bounds = balance([1.0] * HOPS, stages)
    widths = layer_widths(model, COLUMNS, "f32") if stages > 1 else []
    works, sums = [], []
    for seat in seats(stages):
        part = cut(model, bounds, seat.stage) if stages > 1 else model
        arriving = widths[bounds[seat.stage]] if seat.stage else ()
        work = StepWork(part, NodeClassification(CLASSES), config, torch.device("cpu"), seat, arriving)
        loader: Any = Inner(batches, HOPS - bounds[seat.stage], known=known)
        sums.append(work.begin(loader, iter(loader), len(batches), step=5))
        works.append(work)
    perform(make_schedule(schedule, stages, len(batches)), [work.runner for work in works])
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found, sums[-1].loss, sums[-1].count


def network(name: str) -> nn.Module:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 8, "num_layers": HOPS, "out_channels": CLASSES}
    return build(name, **sizes, dropout=0.4, seed=1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("num_micro", [1, 2, 4, 7])
def test_stages_change_no_bit_of_a_gradient(name: str, num_micro: int) -> None:
    model = network(name)
    batches = [random_batch(i, seeds=2 + i % 3) for i in range(num_micro)]
    whole = gradients(model, batches, 1)
    for stages in (2, 3, 4):
        for schedule in ("1f1b", "gpipe"):
            found = gradients(model, batches, stages, schedule)
            assert found[1:] == whole[1:]
            assert found[0].keys() == whole[0].keys()
            assert all(torch.equal(found[0][key], whole[0][key]) for key in whole[0])


@pytest.mark.usefixtures("one_thread")
def test_sizes_that_only_the_batch_knows_change_nothing() -> None:
    model, batches = network("sage"), [random_batch(i, seeds=3) for i in range(5)]
    known, drawn = (gradients(model, batches, 3, known=known)[0] for known in (True, False))
    assert all(torch.equal(known[key], drawn[key]) for key in known)


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("num_micro", [1, 4, 7])
def test_gradients_are_those_of_the_summed_loss_in_double_precision(
    name: str, num_micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnsys.models.fold.float_rows", lambda x: x)
    sizes = {"in_channels": COLUMNS, "hidden_channels": 8, "num_layers": HOPS, "out_channels": CLASSES}
    model = build(name, **sizes, dropout=0.0, seed=1).double()
    batches = [random_batch(i, seeds=2 + i % 3) for i in range(num_micro)]
    found, loss, count = gradients(model, batches, 3)
    twin = copy.deepcopy(model)
    total: Any = 0.0
    for batch in batches:
        assert batch.y is not None
        out = twin(batch.x, batch.blocks)
        total = total + torch.nn.functional.cross_entropy(out, batch.y, ignore_index=-1, reduction="sum")
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-12)
    assert count == sum(int((batch.y >= 0).sum()) for batch in batches if batch.y is not None)
    for key, parameter in twin.named_parameters():
        if parameter.grad is not None:
            assert (found[key] - parameter.grad).abs().max() < 1e-12


def test_parameters_that_no_stage_would_train_or_two_would_are_refused() -> None:
    model: Any = network("sage")
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match="outside its layers"):
        check_cuttable(model)
    model = network("sage")
    model.layers[2].lin_self.weight = model.layers[1].lin_self.weight
    with pytest.raises(ConfigError, match="layers 1 and 2 of Sage share a parameter"):
        check_cuttable(model)


def test_names_of_a_stage_are_those_of_the_model() -> None:
    model = network("gin")
    names = [name for stage in range(2) for name in cut(model, [0, 3, 4], stage).state_dict()]
    assert names == list(model.state_dict())
