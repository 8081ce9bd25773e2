"""What several benchmarks need of DGL and PyG: the same graph in their forms, and a word when they cannot sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gnnsys.errors import MissingDependencyError
from gnnsys.interop.dgl import import_dgl
from gnnsys.storage.store import Store


def dgl_graph(store: Store) -> Any:
    """The topology of `store` as a DGL graph in CSC."""
    indptr, indices = (torch.from_numpy(np.array(a, dtype=np.int64)) for a in (store.graph.indptr, store.graph.indices))
    csc = ("csc", (indptr, indices, torch.empty(0, dtype=torch.int64)))
    return import_dgl().graph(csc, num_nodes=store.num_nodes)


def pyg_edge_index(store: Store) -> torch.Tensor:
    """(2, E) int64, source above destination.

    Raises:
        MissingDependencyError: PyG has nothing here to sample it with.
    """
    from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

    if not (WITH_PYG_LIB or WITH_TORCH_SPARSE):
        raise MissingDependencyError("GS-DEP-003", "PyG samples with pyg-lib or torch-sparse; neither is installed")
    into = np.repeat(np.arange(store.num_nodes), np.diff(store.graph.indptr))
    return torch.from_numpy(np.stack([np.asarray(store.graph.indices, dtype=np.int64), into]))
