"""Named tensors as safetensors bytes and back, with what a model or an optimizer needs around them.

Tensors that share memory are stored once; the file's metadata key `aliases` (JSON) maps every other name to the
stored one, so `safetensors` alone reads the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from gnnsys.errors import ConfigError, CorruptStoreError
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import open_read


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """The safetensors file of some named tensors; equal tensors give equal bytes."""
    stored: dict[str, Tensor] = {}
    first_name: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first_name:
            aliases[name] = first_name[place]
        else:
            first_name[place] = name
            stored[name] = _alone(tensor.detach().cpu())
    metadata = {"aliases": json.dumps(aliases, sort_keys=True)} if aliases else None
    return to_bytes(stored, metadata)


def decode(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, aliases restored.

    Args:
        path: named in errors.

    Raises:
        CorruptStoreError: not a valid safetensors file.
    """
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=_once)
        aliases = json.loads(header.get("__metadata__", {}).get("aliases", "{}"), object_pairs_hook=_once)
        return {**tensors, **{name: tensors[stored] for name, stored in aliases.items()}}
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CorruptStoreError("GS-STORE-007", f"{path}: not a valid safetensors file ({error})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which every key stands once: of two with one name, two readers might take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def assign_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load parameters and buffers into `model`, all or nothing.

    Raises:
        ConfigError: names, shapes or dtypes are not the model's; missing, unexpected and different ones are listed
            apart.
    """
    own = model.state_dict()
    different = [
        f"{name} is {_describe(weights[name])}, the model has {_describe(own[name])}"
        for name in own.keys() & weights.keys()
        if _describe(weights[name]) != _describe(own[name])
    ]
    found = {
        "missing": sorted(own.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape or dtype": sorted(different),
    }
    problems = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
    if problems:
        raise ConfigError(
            "GS-CFG-510",
            f"{path}: these are not the weights of this {type(model).__name__}; {'; '.join(problems)}",
            hint="Build the model with the options of the run (config.json).",
        )
    model.load_state_dict(dict(weights))


def read_weights(model: nn.Module, path: Path, expected: str) -> None:
    """Load the weights in a safetensors file into `model`.

    Args:
        expected: digest of the file.

    Raises:
        CorruptStoreError: the file is missing, or is not the one that was written.
        ConfigError: they are another model's.
    """
    fd = open_read(path)
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    if digest(data) != expected:
        raise CorruptStoreError(
            "GS-STORE-004",
            f"{path}: fails its checksum",
            hint="The weights changed since they were written. Copy them from a good run, or train again.",
        )
    assign_weights(model, decode(data, path), path)


def weights_digest(model: nn.Module) -> str:
    """`sha256:<hex>` over names (sorted), dtypes, shapes and bytes of all parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return "sha256:" + total.hexdigest()


def split_optimizer(state: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's `state_dict()` as tensors named `<parameter>/<name>` and everything else as JSON.

    Args:
        names: of the parameters, in the order in which the optimizer was given them.

    Raises:
        ConfigError: its state holds something that is neither a tensor nor a plain number.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            key = f"{names[index]}/{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            elif value is None or isinstance(value, bool | int | float):
                scalars[key] = value
            else:
                raise ConfigError(
                    "GS-CFG-511",
                    f"optimizer state {key} is a {type(value).__name__}; checkpoints hold tensors and numbers",
                    hint="Use Adam, AdamW, SGD or another optimizer with plain state.",
                )
    groups = [{**group, "params": [names[index] for index in group["params"]]} for group in state["param_groups"]]
    return tensors, {"state": scalars, "groups": groups}


def merge_optimizers(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON halves of `split_optimizer` of several stages as that of one optimizer of all their parameters."""
    groups = [
        {**same[0], "params": [name for group in same for name in group["params"]]}
        for same in zip(*(part["groups"] for part in parts), strict=True)
    ]
    return {"state": {key: value for part in parts for key, value in part["state"].items()}, "groups": groups}


def join_optimizer(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The inverse of `split_optimizer`, for `optimizer.load_state_dict`; parameters not in `names` are left out."""
    index_of = {name: index for index, name in enumerate(names)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *rest["state"].items()):
        parameter, _, name = key.rpartition("/")
        if parameter in index_of:
            state.setdefault(index_of[parameter], {})[name] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in rest["groups"]]
    for group in groups:
        group["params"] = [index_of[name] for name in group["params"] if name in index_of]
    return {"state": state, "param_groups": groups}


def _alone(tensor: Tensor) -> Tensor:
    """`tensor` contiguous and with no other values in its storage; a copy only where it must be."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor.contiguous() if whole else tensor.clone(memory_format=torch.contiguous_format)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
