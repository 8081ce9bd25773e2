"""GCN: the graph convolutional network."""

from __future__ import annotations

from gnnsys.models.layers import GcnLayer
from gnnsys.models.stack import Stack


class Gcn(Stack):
    """GCN layers (Kipf and Welling 2017), on sampled blocks with weights that keep the sum unbiased."""

    layer_type = GcnLayer
