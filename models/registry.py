"""Models by name: ours, or a class in a file that the user names.

Parameters of layer l depend on (seed, l) alone, so they are the same however a pipeline cuts the model.
"""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from gnnsys.errors import ConfigError
from gnnsys.keys import derive
from gnnsys.models import user_file
from gnnsys.models.gat import Gat, Gatv2
from gnnsys.models.gcn import Gcn
from gnnsys.models.gcnii import Gcnii
from gnnsys.models.gin import Gin
from gnnsys.models.mlp import Mlp
from gnnsys.models.randomness import random_from
from gnnsys.models.resgcn import ResGcn
from gnnsys.models.sage import Sage
from gnnsys.models.sgc import Sgc
from gnnsys.models.stack import Stack

NAMES: dict[str, type[Stack]] = {
    "sage": Sage,
    "gcn": Gcn,
    "gin": Gin,
    "gat": Gat,
    "gatv2": Gatv2,
    "sgc": Sgc,
    "mlp": Mlp,
    "gcnii": Gcnii,
    "resgcn": ResGcn,
}


def build(
    name: str,
    *,
    in_channels: int,
    hidden_channels: int,
    num_layers: int,
    out_channels: int,
    dropout: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """A new model, initialised from `seed` whatever was drawn before.

    Args:
        name: a key of `NAMES`, or `path/to/file.py:ClassName`. The file is run: it must be the user's own, never a path
            found in data.
        in_channels, hidden_channels, num_layers, out_channels, dropout: passed to the class by keyword.
        seed: of the parameters.
        options: `residual`, `jk` and `heads`, passed on where given; which of them a network takes, its class says.

    Raises:
        ConfigError: no such name, file or class, or a class that does not take these keywords or fails.
    """
    sizes: dict[str, Any] = {
        "in_channels": in_channels,
        "hidden_channels": hidden_channels,
        "num_layers": num_layers,
        "out_channels": out_channels,
        "dropout": dropout,
        **options,
    }
    if user_file.is_spec(name):
        with random_from(derive(seed, 0)):
            return user_file.construct(name, sizes)
    with random_from(derive(seed, 0)):
        model = NAMES[_checked(name)](**sizes)
    for number in range(num_layers):
        with random_from(derive(seed, number)):
            model.reset_layer(number)
    model.built_as = {"name": name, **sizes, "seed": seed}
    return model


def identity(name: str) -> dict[str, str]:
    """What of a model is decided by its name: `name`, and for a class in the user's file also `code`.

    Raises:
        ConfigError: no such name or file.
    """
    return user_file.identity(name) if user_file.is_spec(name) else {"name": _checked(name)}


def _checked(name: str) -> str:
    if name in NAMES:
        return name
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(NAMES)}; or give my_model.py:Net."
    raise ConfigError("GS-CFG-604", f"there is no model named {name!r}", hint=hint)
