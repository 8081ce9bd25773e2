"""MLP: the network that sees rows and no graph."""

from __future__ import annotations

from gnnsys.models.layers import DenseLayer
from gnnsys.models.stack import Stack


class Mlp(Stack):
    """Dense layers. Each computes the destinations of its block only; fanouts of 0 make those just the seeds."""

    layer_type = DenseLayer
