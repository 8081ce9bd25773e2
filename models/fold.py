"""Run any model on any batch: the call style is read from the names of forward's parameters, rows become float32.

    forward(self, h_or_x, edge_index)    PyG's style: all rows in, all rows out
    forward(self, x, blocks)             one block per layer, outermost first
    forward(self, batch)                 the whole Batch, its rows as float32

A model that takes `blocks` or `batch` and has `layers`, each with `forward(self, h, block)`, is called layer by
layer: it can then be cut into pipeline stages and inferred one layer at a time. A stage has the attribute
`first_layer`, how many layers came before: it is given their output for rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gnnsys.batch import Batch, FoldedBlock
from gnnsys.errors import ConfigError
from gnnsys.keys import derive
from gnnsys.models.randomness import random_from

Style = Literal["edge_index", "blocks", "batch"]
Rows = Tensor | Mapping[str, Tensor]

_TO_FLOAT32 = {torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int8}


def fold(model: nn.Module, batch: Batch, key: tuple[int, ...] | None = None) -> Any:
    """Outputs of `model` on `batch`; the rows of the seeds are `out[:batch.batch_size]`.

    Args:
        model: in one of the styles above.
        batch: with `x`; on the device of the model.
        key: makes dropout a function of itself: before layer l the torch generators are seeded by
            `derive(*key, l)` and put back afterwards. A model without `layers` counts as layer 0.

    Raises:
        ConfigError: forward's parameters fit no style, there are more or fewer layers than hops, or the batch is of
            a pre-aggregated pack that does not fit the first layer.
    """
    style = call_style(type(model))
    if batch.x is None:
        raise ConfigError("GS-CFG-601", "the batch has no rows", hint="Give the Loader with_x=True.")
    first = int(getattr(model, "first_layer", 0))
    x: Any = batch.x if first else float_rows(batch.x)
    outermost = batch.blocks[0] if batch.blocks else None
    if isinstance(outermost, FoldedBlock):
        refuse_folded(model, outermost.how)
        batch = replace(batch, blocks=(replace(outermost, rows=x), *batch.blocks[1:]))
    layers = layers_of(model)
    if layers is None:
        return _seeded(lambda: _whole(model, style, x, batch), key, 0, batch)
    if len(layers) != len(batch.blocks):
        raise ConfigError(
            "GS-CFG-602",
            f"{type(model).__name__} has {len(layers)} layers, the batch has {len(batch.blocks)} hops",
            hint="Give one fanout per layer, or a Loader with hops= the number of layers.",
        )
    h: Any = x
    for number, (layer, block) in enumerate(zip(layers, batch.blocks, strict=True), first):
        h = _seeded(lambda layer=layer, h=h, block=block: layer(h, block), key, number, batch)
    return h


def refuse_folded(model: nn.Module, how: str) -> None:
    """Raise ConfigError unless the first layer of `model` can be served by a pack pre-aggregated with `how`."""
    declared = foldable(model)
    if declared != how:
        raise ConfigError(
            "GS-CFG-605",
            f"the pack was pre-aggregated with {how!r}, but the first layer, {_first_layer(model)}, aggregates its "
            f"rows with {declared!r}",
            hint="Pack again for this model, or load this pack with rows='direct'.",
        )


def foldable(model: nn.Module) -> str:
    """How the first layer of `model` aggregates its rows, so that a pack may do it ahead: `sum`, `mean` or `gcn`.

    Raises:
        ConfigError: it does something else with them first, or does not say (names the layer).
    """
    how = aggregates_input(model)
    if how is None:
        raise ConfigError(
            "GS-CFG-605",
            f"the first layer, {_first_layer(model)}, declares no linear aggregation of its rows: it cannot be folded "
            "into a pack",
            hint="Attention, edge weights and dropout before the aggregation (gcn: --dropout 0) forbid it. Use a plain "
            "pack, or load this one with rows='direct'.",
        )
    return how


def aggregates_input(model: nn.Module) -> str | None:
    """As `foldable`, but None where it raises."""
    layers = layers_of(model)
    return getattr(layers[0], "aggregates_input", None) if layers else None


def _first_layer(model: nn.Module) -> str:
    layers = layers_of(model)
    return type(layers[0] if layers else model).__name__


def layers_of(model: nn.Module) -> list[nn.Module] | None:
    """The layers of a model that offers them, in order; None when it must be called as a whole."""
    layers = getattr(model, "layers", None)
    if not isinstance(layers, nn.ModuleList | nn.Sequential) or call_style(type(model)) == "edge_index":
        return None
    return list(layers) if all(_parameters(type(layer).forward)[1:] == ("block",) for layer in layers) else None


def call_style(kind: type[nn.Module]) -> Style:
    """How models of class `kind` are called.

    Raises:
        ConfigError: the names of forward's parameters fit no style.
    """
    names = _parameters(kind.forward)
    for style in ("edge_index", "blocks"):
        if style in names[1:]:
            return style
    if names[:1] == ("batch",):
        return "batch"
    raise ConfigError(
        "GS-CFG-603",
        f"{kind.__name__}.forward takes ({', '.join(names)})",
        hint="Name its parameters (x, edge_index), (x, blocks) or (batch).",
    )


def float_rows(x: Rows) -> Any:
    """Rows as a model takes them: float16, bfloat16, float64 and 8-bit integers become float32, float32 and wider
    integers (ids) stay as they are. Tables by name are converted one by one."""
    if isinstance(x, Mapping):
        return {name: float_rows(table) for name, table in x.items()}
    return x.to(torch.float32) if x.dtype in _TO_FLOAT32 else x


@cache
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Names of forward's parameters, without self; looked at once per class."""
    return tuple(inspect.signature(forward).parameters)[1:]


def _whole(model: nn.Module, style: Style, x: Any, batch: Batch) -> Any:
    if style == "edge_index":
        return model(x, edge_index=batch.edge_index)
    return model(x, blocks=batch.blocks) if style == "blocks" else model(replace(batch, x=x))


def _seeded(call: Any, key: tuple[int, ...] | None, layer: int, batch: Batch) -> Any:
    if key is None:
        return call()
    with random_from(derive(*key, layer), batch.seeds.device):
        return call()
