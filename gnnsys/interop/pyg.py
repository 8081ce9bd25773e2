"""A Batch as PyG's `Data`: the same tensors under PyG's names."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

from gnnsys.batch import Batch
from gnnsys.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch_geometric.data import Data


def batch_to_pyg(batch: Batch) -> Data:
    """`torch_geometric.data.Data` with the fields that a NeighborLoader's batch has.

    `x` (N, F), `edge_index` (2, E) int64, `n_id` (N,), `batch_size`, `num_sampled_nodes` (L + 1 counts) and
    `num_sampled_edges` (L counts), so that `trim_to_layer` works. `y` (B,) has the labels of the seeds only: compare
    it with `out[:batch_size]`; labels of other nodes are not there to be used by mistake. `gs_batch_no` is the number
    of the batch in its pool. Several tables become several attributes. A batch of P pairs has `edge_label_index`
    (2, P), `edge_label` (P,) and, with times, `edge_label_time` (P,). `e_id` (E,) is there when the batch has it.
    There is no `input_id`: `n_id[:batch_size]` names the seeds.

    Raises:
        MissingDependencyError: torch_geometric is not installed.
    """
    try:
        with warnings.catch_warnings():
            # it compiles some of itself with torch.jit.script, which torch calls deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_geometric.data import Data
    except ImportError as error:
        raise MissingDependencyError(
            "GS-DEP-001",
            "batch.to_pyg() needs the package torch_geometric, which is not installed",
            hint='pip install "gnnsys[pyg]"',
        ) from error
    data = Data(edge_index=batch.edge_index, n_id=batch.n_id)
    for name, rows in (batch.x if isinstance(batch.x, dict) else {"x": batch.x}).items():
        data[name] = rows
    data.y = batch.y
    data.num_nodes = len(batch.n_id)
    data.batch_size = batch.batch_size
    data.num_sampled_nodes = [batch.num_nodes[0], *(b - a for a, b in pairwise(batch.num_nodes))]
    cumulative = [0, *(block.num_edges for block in reversed(batch.blocks))]
    data.num_sampled_edges = [b - a for a, b in pairwise(cumulative)]
    data.gs_batch_no = batch.index
    if batch.e_id is not None:
        data.e_id = batch.e_id
    if batch.pairs is not None:
        data.edge_label_index, data.edge_label = batch.pairs.T, batch.pair_label
        if batch.t is not None:
            data.edge_label_time = batch.t
    return data
