"""GCNII: a graph convolutional network that stays trainable at dozens of layers."""

from __future__ import annotations

from gnnsys.models.deep import GcniiLayer
from gnnsys.models.stack import Stack


class Gcnii(Stack):
    """GCNII layers (Chen et al. 2020): initial residual connections and identity maps."""

    layer_type = GcniiLayer
    deep = True
    options = frozenset()
