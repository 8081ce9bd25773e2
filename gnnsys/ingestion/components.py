"""Keep only the largest weakly connected component: union-find over the runs, then runs with new node numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gnnsys.ingestion.job import Job, write_scratch
from gnnsys.ingestion.kernels import number_largest, renumber, union
from gnnsys.ingestion.sorting import Runs, open_runs, write_run
from gnnsys.storage.files import map_array
from gnnsys.storage.store import id_dtype

_PIECE_KEYS = 1 << 17


def keep_largest_component(job: Job, runs: Runs, num_nodes: int) -> tuple[Runs, np.ndarray]:
    """Runs of the largest component and its node ids, (kept,) int64 ascending: node `ids[i]` becomes node i.

    Equally large components: the one with the smallest node wins. Memory: 8 bytes per node (16 beyond 2^31 nodes).

    Raises:
        MemoryBudgetError: that is not left.
    """
    dtype = id_dtype(num_nodes)
    with job.budget.holding(2 * num_nodes * dtype.itemsize, "component of every node"):
        if "component" not in job.stage.done:
            numbers = _number(job, runs, np.arange(num_nodes, dtype=dtype))
            write_scratch(job.stage.work / "numbers.bin", [numbers])
            write_scratch(job.stage.work / "kept.bin", _kept_ids(numbers))
            job.stage.record("component", kept=int(numbers.max(initial=-1)) + 1)
        else:
            numbers = np.array(map_array(job.stage.work / "numbers.bin", dtype, (num_nodes,)))
        for number, run in enumerate(runs.maps):
            if f"kept/{number}" not in job.stage.done:
                job.stage.record(f"kept/{number}", **write_run(job, f"kept-{number}.bin", _renumbered(run, numbers)))
    kept = job.stage.done["component"]["kept"]
    ids = map_array(job.stage.work / "kept.bin", "<i8", (kept,))
    return open_runs(job, "kept", runs.dropped, runs.dropped_loops), ids


def _number(job: Job, runs: Runs, parent: np.ndarray) -> np.ndarray:
    """`parent` (N,) as new node numbers, -1 = dropped."""
    for number, run in enumerate(runs.maps):
        job.progress("components", number, len(runs.maps))
        for start in range(0, len(run), _PIECE_KEYS):
            union(parent, np.array(run[start : start + _PIECE_KEYS]))
    number_largest(parent)
    return parent


def _renumbered(run: np.ndarray, numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(run), _PIECE_KEYS):
        keys = np.array(run[start : start + _PIECE_KEYS])
        # New numbers rise with the old ones, so what was sorted stays sorted.
        yield keys[: renumber(keys, numbers)]


def _kept_ids(numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), _PIECE_KEYS):
        yield start + np.flatnonzero(numbers[start : start + _PIECE_KEYS] >= 0).astype(np.int64)
