"""Pass 1 over the edges: chunks of them become sorted runs of keys in scratch files.

An edge is one uint64 key, `dst << 32 | src`. The runs together hold every key once; an order-free sum of all keys is
carried along, so that pass 2 can tell that none was lost or changed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.job import Job, write_scratch
from gnnsys.ingestion.kernels import key_facts, pack_edges
from gnnsys.ingestion.source import Source
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import map_array
from gnnsys.storage.threads import read_in_order

MAX_NODES = (1 << 32) - 1
"""Both ends of an edge share one 64-bit key, and the key after the last must fit too."""

_MAX_NODES_PER_EDGE, _FEW_NODES = 100, 1_000_000
"""Ids that tell how many nodes there are may be this sparse: beyond it they are keys of something else."""

_MIN_BLOCK_EDGES, _MAX_BLOCK_EDGES = 64, 1 << 18
_BYTES_PER_EDGE = 64
"""Both ends, two keys and temporaries of a source."""


@dataclass(frozen=True)
class Runs:
    """Sorted runs of keys, mapped from scratch files."""

    maps: list[np.ndarray]
    """Each (n,) uint64, ascending."""
    total: int
    """Order-free sum of all keys modulo 2^64."""
    max_id: int
    """Largest node id, -1 without edges."""
    dropped: int
    """Edges left out because an end was out of range."""
    dropped_loops: int
    """Self loops left out because they were not wanted."""

    @property
    def num_keys(self) -> int:
        return sum(len(run) for run in self.maps)


def refuse_sparse_ids(largest: int, num_edges: int) -> None:
    """Raise InputDataError where so large an id would make almost all nodes isolated ones."""
    if largest >= _MAX_NODES_PER_EDGE * num_edges + _FEW_NODES:
        raise InputDataError(
            "GS-IN-125",
            f"the largest node id is {largest:,} among {num_edges:,} edges: almost all nodes would be isolated",
            hint="Ids number the nodes from 0. Renumber them, or write them as names (n4711), which are numbered for "
            "you; if the nodes are there, say how many with --features, or with --labels that have a row of each.",
        )


def sort_edges(job: Job, source: Source, *, both: bool, drop_bad: bool, loops: bool) -> Runs:
    """Sorted runs of all edges of `source`, and of their reverses when `both`, without self loops unless `loops`.

    Raises:
        InputDataError: an id is negative or not below the number of nodes, unless `drop_bad`.
    """
    done = list(_payloads(job, "run"))
    last = done[-1] if done else {"edges": 0, "dropped": 0, "dropped_loops": 0}
    at, dropped, dropped_loops = last["edges"], last["dropped"], last["dropped_loops"]
    if at < source.num_edges:
        buffer = aligned_buffer(job.sort_bytes // 8 * 8).view(np.uint64)
        chunk = len(buffer) // (2 if both else 1)
        for number, start in enumerate(range(at, source.num_edges, chunk), len(done)):
            stop = min(start + chunk, source.num_edges)
            filled = 0
            with closing(_packed(job, source, start, stop, both, drop_bad, loops)) as blocks:
                for keys, bad, looped in blocks:
                    buffer[filled : filled + len(keys)] = keys
                    filled, dropped, dropped_loops = filled + len(keys), dropped + bad, dropped_loops + looped
            buffer[:filled].sort()
            facts = write_run(job, f"run-{number}.bin", [buffer[:filled]])
            job.stage.record(f"run/{number}", edges=stop, dropped=dropped, dropped_loops=dropped_loops, **facts)
    return open_runs(job, "run", dropped, dropped_loops)


def open_runs(job: Job, unit: str, dropped: int, dropped_loops: int) -> Runs:
    """The runs that were journalled as `<unit>/0`, `<unit>/1`, ..."""
    payloads = list(_payloads(job, unit))
    maps = [map_array(job.stage.work / p["file"], "<u8", (p["keys"],)) for p in payloads]
    total = sum(p["total"] for p in payloads) % (1 << 64)
    return Runs(maps, total, max((p["max_id"] for p in payloads), default=-1), dropped, dropped_loops)


def write_run(job: Job, file: str, pieces: Iterable[np.ndarray]) -> dict[str, Any]:
    """Write one run durably, from ascending pieces; returns what its journal line must hold."""
    num_keys, total, max_id = 0, 0, -1

    def summed() -> Iterator[np.ndarray]:
        nonlocal num_keys, total, max_id
        for keys in pieces:
            piece_total, piece_max = key_facts(keys)
            num_keys, total, max_id = num_keys + len(keys), total + int(piece_total), max(max_id, int(piece_max))
            yield keys

    write_scratch(job.stage.work / file, summed())
    return {"file": file, "keys": num_keys, "total": total % (1 << 64), "max_id": max_id}


def _packed(
    job: Job, source: Source, start: int, stop: int, both: bool, drop_bad: bool, loops: bool
) -> Generator[tuple[np.ndarray, int, int], None, None]:
    """Keys of edges start .. stop block by block, with the numbers of bad edges and of loops left out of each."""
    step = min(_MAX_BLOCK_EDGES, max(_MIN_BLOCK_EDGES, job.block_bytes // _BYTES_PER_EDGE))
    limit = MAX_NODES if source.num_nodes is None else source.num_nodes

    def read(first: int) -> tuple[int, np.ndarray, np.ndarray]:
        return first, *source.edges(first, min(first + step, stop))

    def pack(block: tuple[int, np.ndarray, np.ndarray]) -> tuple[np.ndarray, int, int]:
        first, src, dst = block
        keys = np.empty(len(src) * (2 if both else 1), dtype=np.uint64)
        filled, first_bad, bad, looped = pack_edges(src, dst, limit, both, loops, keys)
        if bad and not drop_bad:
            raise _bad_edge(source, first + first_bad, int(src[first_bad]), int(dst[first_bad]), limit)
        return keys[:filled], bad, looped

    starts = range(start, stop, step)
    with read_in_order(read, pack, starts, job.workers, sequential=source.sequential) as blocks:
        for number, block in enumerate(blocks):
            job.progress("sort edges", start + number * step, source.num_edges)
            yield block


def _bad_edge(source: Source, number: int, src: int, dst: int, limit: int) -> InputDataError:
    node, place = (src if src < 0 or src >= limit else dst), source.edge_place(number)
    if node < 0:
        return InputDataError(
            "GS-IN-101",
            f"{place}: node id {node} is negative",
            hint="Ids start at 0. --on-bad-edge drop leaves such out.",
        )
    tables = ", ".join([*source.tables, *([] if source.labels is None else ["labels"])])
    rows = f"rows ({tables})" if tables else "rows"
    return InputDataError(
        "GS-IN-102",
        f"{place}: node id {node} is outside [0, {limit})",
        hint=f"The number of nodes is that of the {rows}, or the shape in the file: do edges and rows use the same "
        "ids? --on-bad-edge drop leaves such edges out.",
    )


def _payloads(job: Job, unit: str) -> Iterator[dict[str, Any]]:
    for number in count():
        payload = job.stage.done.get(f"{unit}/{number}")
        if payload is None:
            return
        yield payload
