"""`gnnsys place`: which devices should get which layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnnsys.cli.common import Json, StorePath, emit, parse_fanouts
from gnnsys.models.registry import NAMES
from gnnsys.training.config import TrainConfig
from gnnsys.training.placing import place_training


def place(
    source: Annotated[Path, typer.Argument(metavar="PACK|POOL|STORE", help="What would be trained on.")],
    devices: Annotated[int, typer.Option(help="GPUs, or processes where there are none.")],
    model: Annotated[str, typer.Option(help=f"{' | '.join(NAMES)} | my_model.py:Net")] = "sage",
    layers: Annotated[int | None, typer.Option(help="Layers; one per hop when not given.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of hidden layers.")] = None,
    chunks: Annotated[int | None, typer.Option(help="Of the whole graph of a Store.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Split of a Store to train on; train when not given.")] = None,
    fanouts: Annotated[str | None, typer.Option(help="Neighbours per hop of a Store, e.g. 10,5.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Seeds per batch of a Store.")] = None,
    micro_batches: Annotated[int | None, typer.Option(help="Batches whose gradients make one step.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of all processes together; 4GiB when not given.")] = None,
    precision: Annotated[str | None, typer.Option(help="f32 | bf16, of dense products.")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Profile a model and predict every way to use the devices: stages, replicas, both, or one alone.

    Example: gnnsys place packs/products --devices 4 --model sage --hidden 256 --micro-batches 8
    """
    options = {name: value for name, value in locals().items() if name in TrainConfig.model_fields}
    options["fanouts"] = tuple(parse_fanouts(fanouts)) if fanouts else None
    found = place_training(source, options, devices, store=store)
    emit(found.to_json(), str(found), as_json)
