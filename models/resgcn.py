"""ResGCN: GCN layers that add to what they are given."""

from __future__ import annotations

from gnnsys.models.deep import ResGcnLayer
from gnnsys.models.stack import Stack


class ResGcn(Stack):
    """Residual GCN layers (Li et al. 2019, DeepGCN)."""

    layer_type = ResGcnLayer
    deep = True
    options = frozenset()
