"""Positions of sampled edges in the Store's topology, found from their ends: what was sampled holds only those."""

from __future__ import annotations

import numpy as np

from gnnsys.samplers.kernels import find_positions
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.store import Store


class EdgeIds:
    """Finds them in a mapped topology, for several threads at once.

    Attributes:
        edge_bytes: memory of each.
    """

    edge_bytes = 8

    def __init__(self, store: Store) -> None:
        self._graph = store.graph
        self._parallel = int(store.manifest.counts["parallel_edges"]) > 0

    def of(self, drawn: PoolBatch) -> np.ndarray:
        """(E,) int64, in the order of the batch's edges; of parallel edges see `find_positions`."""
        out = aligned_buffer(8 * len(drawn.indices)).view(np.int64)
        graph = self._graph
        find_positions(graph.indptr, graph.indices, drawn.ids, drawn.indptr, drawn.indices, self._parallel, out)
        return out
