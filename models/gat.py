"""GAT and GATv2: graph attention networks."""

from __future__ import annotations

from gnnsys.models.attention import GatLayer, Gatv2Layer
from gnnsys.models.stack import Stack


class Gat(Stack):
    """GAT layers (Velickovic et al. 2018); `heads` each, 8 when not given."""

    layer_type = GatLayer
    options = Stack.options | {"heads"}


class Gatv2(Stack):
    """GATv2 layers (Brody et al. 2022); `heads` each, 8 when not given."""

    layer_type = Gatv2Layer
    options = Stack.options | {"heads"}
