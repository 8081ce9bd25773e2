"""Weights of the edges into the Store, in the order of its topology: ranges of it that fit into memory, one after the
other, each filled by one pass over the edges of the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.kernels import add_weights
from gnnsys.ingestion.source import Rows, Source
from gnnsys.storage.files import map_array
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.store import INDICES, INDPTR, WEIGHTS, id_dtype

_BYTES_PER_PLACE = 8
"""The weight at a place of the topology, and how many edges were met that belong there."""
_BYTES_PER_EDGE = 64
"""Both ends, weight, and temporaries of a source."""


@dataclass(frozen=True)
class Changes:
    """What was done to the edges on their way into the topology."""

    both: bool
    """Reverses were added, with the weight of the edge."""
    unique: bool
    """Of parallel edges one was kept; it has the sum of their weights."""
    loops: bool
    """Self loops were kept."""
    kept: np.ndarray | None
    """(N,) ids that the nodes had in the source, ascending; None when all were kept."""


def write_weights(
    job: Job, source: Source, weights: Rows, num_nodes: int, num_edges: int, changes: Changes
) -> tuple[FileEntry, ...]:
    """`graph/weights.bin`; parallel edges have their weights in the order of the source.

    Raises:
        InputDataError: not one finite number of at least 0 per edge of the source.
    """
    entries = job.finished_files(WEIGHTS)
    if entries is not None:
        return entries
    if (weights.num_rows, weights.columns) != (source.num_edges, 1) or weights.dtype.kind not in "iuf":
        raise InputDataError(
            "GS-IN-174",
            f"edge weights are {weights.dtype} ({weights.num_rows}, {weights.columns}) for {source.num_edges} edges",
            hint="One number per edge, in the order of the edges.",
        )
    state = job.stage.done.get(f"part/{WEIGHTS}", {"edges": 0, "file": None})
    step = max(1, job.sort_bytes // _BYTES_PER_PLACE)
    writer = job.writer(WEIGHTS, state["file"], num_bytes=4 * num_edges)
    filling = _Filling(job, source, weights, num_nodes, num_edges, changes)
    try:
        for start in range(state["edges"], num_edges, step):
            stop = min(start + step, num_edges)
            writer.append(filling.range(start, stop))
            writer.sync()
            job.stage.record(f"part/{WEIGHTS}", edges=stop, file=writer.state())
        entries = writer.finish(np.dtype(np.float32), (num_edges,), "edge_weights")
    finally:
        writer.close()
    job.finish_files(WEIGHTS, entries)
    return entries


class _Filling:
    """Ranges of the weights."""

    def __init__(
        self, job: Job, source: Source, weights: Rows, num_nodes: int, num_edges: int, changes: Changes
    ) -> None:
        self._job, self._source, self._weights, self._changes = job, source, weights, changes
        folder = job.stage.folder
        # Kernels compile once per array type: a plain array and a map must not be two.
        self._indptr = np.asarray(map_array(folder / INDPTR, "<i8", (num_nodes + 1,)))
        self._indices = np.asarray(map_array(folder / INDICES, id_dtype(num_nodes), (num_edges,)))

    def range(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) float32: the weights at these places."""
        out, met = np.zeros(stop - start, dtype=np.float32), np.zeros(stop - start, dtype=np.int32)
        filled, earlier, changes = 0, 0, self._changes
        for src, dst, weights in self._edges():
            more, earlier = add_weights(
                self._indptr,
                self._indices,
                src,
                dst,
                weights,
                changes.both,
                changes.loops,
                changes.unique,
                start,
                earlier,
                out,
                met,
            )
            filled += more
        if filled != stop - start:
            raise InputDataError(
                "GS-IN-175",
                f"{filled:,} of {stop - start:,} edges have a weight: the source gave other edges than before",
                hint="It must not change while it is read. Delete the unfinished folder and repeat the command.",
            )
        if not np.isfinite(out).all():
            raise InputDataError(
                "GS-IN-174", "the weights of parallel edges that are merged add up to no finite float32"
            )
        return out

    def _edges(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Both ends, numbered as in the Store, -1 where they are not in it, and weights of all edges, in blocks."""
        step, total = max(64, self._job.block_bytes // _BYTES_PER_EDGE), self._source.num_edges
        for start in range(0, total, step):
            stop = min(start + step, total)
            given = self._weights.read(start, stop)[:, 0]
            with np.errstate(over="ignore"):  # becomes an infinity, which is refused
                weights = given.astype(np.float32)
            good = np.isfinite(weights) & (weights >= 0)
            if not good.all():
                bad = start + int(np.argmin(good))
                raise InputDataError(
                    "GS-IN-174",
                    f"{self._source.edge_place(bad)}: the weight is {given[bad - start]}, expected a finite float32 "
                    "of at least 0",
                    hint="Neighbours are drawn in proportion to weights; other numbers of edges are not kept.",
                )
            src, dst = (self._numbered(ids) for ids in self._source.edges(start, stop))
            yield src, dst, weights
            self._job.progress(f"write {WEIGHTS}", stop, total)

    def _numbered(self, ids: np.ndarray) -> np.ndarray:
        kept = self._changes.kept
        if kept is None:
            return ids
        where = np.searchsorted(kept, ids)
        there = (where < len(kept)) & (kept[np.minimum(where, len(kept) - 1)] == ids)
        return np.where(there, where, -1)
