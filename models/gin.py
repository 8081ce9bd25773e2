"""GIN: the graph isomorphism network."""

from __future__ import annotations

from gnnsys.models.layers import GinLayer
from gnnsys.models.stack import Stack


class Gin(Stack):
    """GIN layers (Xu et al. 2019), for node classification: no readout over graphs."""

    layer_type = GinLayer
