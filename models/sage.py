"""GraphSAGE with the mean aggregator."""

from __future__ import annotations

from gnnsys.models.layers import SageLayer
from gnnsys.models.stack import Stack


class Sage(Stack):
    """SAGE layers (Hamilton et al. 2017, mean aggregator)."""

    layer_type = SageLayer
