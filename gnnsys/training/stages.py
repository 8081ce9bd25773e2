"""Cut a model into stages: which layers are whose, what crosses between them, and the part that one rank trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gnnsys.batch import Batch, Block
from gnnsys.errors import ConfigError
from gnnsys.models.fold import layers_of
from gnnsys.pipeline.balance import balance
from gnnsys.pipeline.ranks import Ranks
from gnnsys.training.feed import Feed

Widths = tuple[tuple[int, torch.dtype], ...]
"""Columns and dtype of every tensor that a layer reads."""

_BYTES_PER_S, _FLOPS_PER_S = 5e9, 4e10
"""Of sums over neighbours and of dense products: a core or two. Only their ratio matters, and it only decides where
the cut is, never a result."""


class StageModel(nn.Module):
    """Some consecutive layers of a model, under the names that they have in it, so that a checkpoint of any cut fits
    any other.

    Attributes:
        layers: those of the stage; `first_layer`: how many of the model come before.
    """

    def __init__(self, layers: Sequence[nn.Module], first: int) -> None:
        super().__init__()
        self.first_layer = first
        self.layers = nn.ModuleList()
        for number, layer in enumerate(layers, first):
            self.layers.add_module(str(number), layer)

    def forward(self, x: Any, blocks: Sequence[Block]) -> Any:
        """Outputs of the last layer of the stage, from what arrives (a tensor, or a tuple) and one block per layer."""
        for layer, block in zip(self.layers.children(), blocks, strict=True):
            x = layer(x, block)
        return x


def cut(model: nn.Module, bounds: Sequence[int], stage: int) -> StageModel:
    """Stage number `stage` of `model`; parameters are shared with it, not copied."""
    layers = layers_of(model)
    assert layers is not None
    return StageModel(layers[bounds[stage] : bounds[stage + 1]], bounds[stage])


def check_cuttable(model: nn.Module) -> None:
    """Raise ConfigError unless all that `model` learns is in `layers`, and no two layers share it."""
    name = type(model).__name__
    layers = layers_of(model)
    if layers is None:
        raise ConfigError(
            "GS-CFG-814",
            f"{name} offers no layers: it cannot be cut into stages",
            hint="Give it `layers`, an nn.ModuleList whose members take (h, block), and call it with (x, blocks).",
        )
    outside = [key for key in model.state_dict() if not key.startswith("layers.")]
    if outside:
        raise ConfigError(
            "GS-CFG-814",
            f"{name} has parameters outside its layers ({', '.join(outside[:3])}): no stage would train them",
            hint="Move them into the layers that use them.",
        )
    seen: dict[int, int] = {}
    for number, layer in enumerate(layers):
        for parameter in layer.parameters():
            if seen.setdefault(id(parameter), number) != number:
                raise ConfigError(
                    "GS-CFG-814",
                    f"layers {seen[id(parameter)]} and {number} of {name} share a parameter: two stages would train it "
                    "apart",
                    hint="Give every layer parameters of its own, or train without --pipeline.",
                )


def layer_widths(model: nn.Module, columns: int, precision: str) -> list[Widths]:
    """What every layer reads, and at the end what the last one gives: L + 1 entries, found by asking each layer for one
    isolated node."""
    layers = layers_of(model)
    assert layers is not None
    like = next(model.parameters())
    device = like.device
    zero = torch.zeros(2, dtype=torch.int32, device=device)
    block = Block(indptr=zero, indices=zero[:0], degree=zero[:1])
    h: Any = torch.zeros(1, columns, dtype=like.dtype, device=device)
    widths = [_widths(h)]
    training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for layer in layers:
            h = layer(h, block)
            widths.append(_widths(h))
    model.train(training)
    return widths


def choose_bounds(model: nn.Module, widths: Sequence[Widths], batch: Batch, num_stages: int) -> list[int]:
    """Where to cut: layers weighed by the bytes of their sums and the operations of their products on that batch."""
    layers = layers_of(model)
    assert layers is not None
    return balance(
        [
            _cost(layer, sum(columns for columns, _ in read), block.num_edges, block.num_dst)
            for layer, read, block in zip(layers, widths, batch.blocks, strict=False)
        ],
        num_stages,
    )


def _cost(layer: nn.Module, columns: int, num_edges: int, num_dst: int) -> float:
    """Seconds of forward and backward, roughly."""
    sums = 3 * 4 * num_edges * columns / _BYTES_PER_S
    products = 3 * 2 * num_dst * sum(p.numel() for p in layer.parameters()) / _FLOPS_PER_S
    return sums + products


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one rank's loader delivers: batches of its replica, hops of its layers, rows and labels where needed."""

    hops: int | None = None
    with_x: bool = True
    with_y: bool = True
    rank: int = 0
    world_size: int = 1

    def options(self) -> Mapping[str, Any]:
        return {"with_x": self.with_x, "with_y": self.with_y, "rank": self.rank, "world_size": self.world_size}


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one rank has of a run."""

    model: nn.Module
    """The whole model, or its stage of it."""
    loader: Feed
    bounds: list[int]
    """Layers of all stages."""
    arriving: Widths = ()
    """What its first layer reads."""


def open_share(
    model: nn.Module, make_loader: Callable[[Part], Feed], ranks: Ranks, num_layers: int, precision: str
) -> Share:
    """Cut `model` and open the loader of this rank's stage.

    Raises:
        ConfigError: the model cannot be cut, or has fewer layers than there are stages.
    """
    of_replica = partial(Part, rank=ranks.replica, world_size=ranks.num_replicas)
    if ranks.num_stages == 1:
        return Share(model=model, loader=make_loader(of_replica()), bounds=[0, num_layers])
    check_cuttable(model)
    mine: list[Feed] = []

    def plan() -> dict[str, Any]:
        loader = make_loader(of_replica(with_y=False))
        mine.append(loader)
        batch = loader.largest_batch()
        if not isinstance(batch.x, Tensor):
            raise ConfigError("GS-CFG-814", "a model that reads several tables cannot be cut into stages")
        widths = layer_widths(model, batch.x.shape[1], precision)
        return {"columns": batch.x.shape[1], "bounds": choose_bounds(model, widths, batch, ranks.num_stages)}

    plan_of_all = ranks.first(plan)
    bounds, columns = plan_of_all["bounds"], plan_of_all["columns"]
    first, last = ranks.stage == 0, ranks.stage == ranks.num_stages - 1
    hops = None if first else bounds[-1] - bounds[ranks.stage]
    return Share(
        model=cut(model, bounds, ranks.stage),
        loader=mine[0] if mine else make_loader(of_replica(hops=hops, with_x=first, with_y=last)),
        bounds=bounds,
        arriving=() if first else layer_widths(model, columns, precision)[bounds[ranks.stage]],
    )


def as_tensors(h: Any) -> tuple[Tensor, ...]:
    """What a layer gives as a tuple of tensors.

    Raises:
        ConfigError: it is neither a tensor nor a tuple of tensors.
    """
    found = h if isinstance(h, tuple) else (h,)
    if not all(isinstance(tensor, Tensor) and tensor.ndim == 2 for tensor in found):
        raise ConfigError(
            "GS-CFG-815",
            f"a layer gives {type(h).__name__}, expected a 2-D tensor or a tuple of them, one row per destination",
        )
    return found


def _widths(h: Any) -> Widths:
    return tuple((int(tensor.shape[1]), tensor.dtype) for tensor in as_tensors(h))
