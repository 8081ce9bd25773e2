"""Models by name: ours, or a class in a file that the user names.

Parameters of layer l depend on (seed, l) alone, so they are the same however a pipeline cuts the model.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from gnnsys.errors import ConfigError
from gnnsys.keys import derive
from gnnsys.models.gcn import Gcn
from gnnsys.models.mlp import Mlp
from gnnsys.models.randomness import random_from
from gnnsys.models.sage import Sage
from gnnsys.models.stack import Stack

NAMES: dict[str, type[Stack]] = {"sage": Sage, "gcn": Gcn, "mlp": Mlp}


def build(
    name: str,
    *,
    in_channels: int,
    hidden_channels: int,
    num_layers: int,
    out_channels: int,
    dropout: float = 0.0,
    seed: int = 0,
) -> nn.Module:
    """A new model, initialised from `seed` whatever was drawn before.

    Args:
        name: `sage`, `gcn`, `mlp`, or `path/to/file.py:ClassName`. The file is run: it must be the user's own,
            never a path found in data.
        in_channels, hidden_channels, num_layers, out_channels, dropout: passed to the class by keyword.
        seed: of the parameters.

    Raises:
        ConfigError: no such name, file or class, or a class that does not take these keywords.
    """
    sizes: dict[str, Any] = {
        "in_channels": in_channels,
        "hidden_channels": hidden_channels,
        "num_layers": num_layers,
        "out_channels": out_channels,
        "dropout": dropout,
    }
    if ":" in name or name.endswith(".py"):
        kind = _user_class(name)
        _check_keywords(name, kind, sizes)
        with random_from(derive(seed, 0)):
            return kind(**sizes)
    with random_from(derive(seed, 0)):
        model = _named(name)(**sizes)
    for number in range(num_layers):
        with random_from(derive(seed, number)):
            model.reset_layer(number)
    return model


def _named(name: str) -> type[Stack]:
    if name in NAMES:
        return NAMES[name]
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(NAMES)}; or give my_model.py:Net."
    raise ConfigError("GS-CFG-604", f"there is no model named {name!r}", hint=hint)


def _user_class(spec: str) -> type[nn.Module]:
    file, colon, class_name = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError("GS-CFG-605", f"{spec!r} names no class in a file", hint="Write it like my_model.py:Net.")
    if not Path(file).is_file():
        raise ConfigError("GS-CFG-606", f"{file}: there is no such file", hint="The path is relative to this folder.")
    module = _run_file(Path(file))
    kind = getattr(module, class_name, None)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    offered = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
    raise ConfigError(
        "GS-CFG-607",
        f"{file} has no torch module class named {class_name!r}",
        hint=f"Classes in it: {', '.join(offered) or 'none'}.",
    )


def _run_file(path: Path) -> ModuleType:
    name = f"gnnsys_user_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    try:
        found.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise ConfigError("GS-CFG-608", f"{path} cannot be loaded: {error}") from error
    return module


def _check_keywords(spec: str, kind: type[nn.Module], sizes: dict[str, Any]) -> None:
    try:
        inspect.signature(kind).bind(**sizes)
    except TypeError as error:
        raise ConfigError(
            "GS-CFG-609",
            f"{spec} cannot be constructed: {error}",
            hint=f"Its __init__ must take the keywords {', '.join(sizes)}.",
        ) from error
