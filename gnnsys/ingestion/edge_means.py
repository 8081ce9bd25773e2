"""Features of edges as features of nodes: their mean over the edges that reach a node, in either direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import write_scratch
from gnnsys.ingestion.kernels import add_to_ends
from gnnsys.ingestion.npy import map_raw
from gnnsys.ingestion.source import Rows
from gnnsys.ingestion.values import rows_of_array

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job

_UNIT, _FILE = "edge-means", "edge-means.bin"
_STEP = 1 << 16


def edge_means(job: Job, pairs: np.ndarray, values: np.ndarray, num_nodes: int, what: str) -> Rows:
    """(N, F) float32: per node the mean of the `values` (E, F) of all `pairs` (E, 2) that it is an end of.

    That is the mean over in-edges once the reverse of every edge was added; a node without edges gets zeros. Sums are
    made in float64, in the order of the file. Ids out of range are left to those who write the edges.

    Raises:
        InputDataError: there are not as many values as edges; `what` names their file.
        MemoryBudgetError: 8 bytes per value of a node are not left.
    """
    if len(values) != len(pairs):
        raise InputDataError("GS-IN-122", f"{what} has {len(values)} rows for {len(pairs)} edges")
    columns = values.shape[1]
    if _UNIT not in job.stage.done:
        with job.budget.holding(num_nodes * (12 * columns + 8), "sums of edge features"):
            sums, counts = np.zeros((num_nodes, columns)), np.zeros(num_nodes, dtype=np.int64)
            for start in range(0, len(pairs), _STEP):
                ends = np.array(pairs[start : start + _STEP])
                add_to_ends(ends, np.array(values[start : start + _STEP]), sums, counts)
            sums /= np.maximum(counts, 1)[:, None]
            write_scratch(job.stage.work / _FILE, [sums.astype(np.float32)])
        job.stage.record(_UNIT, rows=num_nodes, columns=columns)
    return rows_of_array(map_raw(job.stage.work / _FILE, np.dtype(np.float32), (num_nodes, columns), fortran=False))
