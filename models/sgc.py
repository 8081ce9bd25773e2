"""SGC: a linear classifier on rows smoothed over several hops."""

from __future__ import annotations

from typing import Any

from gnnsys.models.layers import SgcLayer
from gnnsys.models.stack import Stack


class Sgc(Stack):
    """SGC layers (Wu et al. 2019); `hidden_channels` is not used: the rows keep their width until the last layer."""

    layer_type = SgcLayer
    options = frozenset()

    def __init__(self, *, in_channels: int, hidden_channels: int, **rest: Any) -> None:
        super().__init__(in_channels=in_channels, hidden_channels=in_channels, **rest)
