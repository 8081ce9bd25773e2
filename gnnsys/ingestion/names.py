"""The user's own node ids into the Store: UTF-8 bytes one after another, and where each begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from gnnsys.ingestion.job import Job
from gnnsys.ingestion.source import Names
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.store import NAME_BYTES, NAME_OFFSETS

_STEP = 1 << 13


def write_names(job: Job, names: Names | None, kept: np.ndarray | None, num_nodes: int) -> tuple[FileEntry, ...]:
    """`names/bytes.bin` and `names/offsets.bin` for the nodes `kept`, or for all; without `names` those of the source
    are its numbers."""
    entries = job.finished_files("names")
    if entries is not None:
        return entries
    named = _numbers if names is None else _given(names)
    text_writer, offset_writer = job.writer(NAME_BYTES, None), job.writer(NAME_OFFSETS, None)
    try:
        offset_writer.append(np.zeros(1, dtype=np.int64))
        for start in range(0, num_nodes, _STEP):
            stop = min(start + _STEP, num_nodes)
            ids = np.arange(start, stop) if kept is None else np.asarray(kept[start:stop])
            lengths, pieces = named(ids)
            offset_writer.append(text_writer.num_bytes + np.cumsum(lengths))
            for piece in pieces:
                text_writer.append(piece)
        size = text_writer.num_bytes
        entries = (
            *text_writer.finish(np.dtype(np.uint8), (size,), "names"),
            *offset_writer.finish(np.dtype(np.int64), (num_nodes + 1,), "name_offsets"),
        )
    finally:
        text_writer.close()
        offset_writer.close()
    job.finish_files("names", entries)
    return entries


_Named = tuple[np.ndarray, Iterable[np.ndarray]]
"""Lengths of some names, and their bytes in pieces."""


def _numbers(ids: np.ndarray) -> _Named:
    names = [str(i).encode() for i in ids.tolist()]
    lengths = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
    return lengths, [np.frombuffer(b"".join(names), dtype=np.uint8)]


def _given(names: Names) -> Callable[[np.ndarray], _Named]:
    text, offsets = names.mapped()

    def of(ids: np.ndarray) -> _Named:
        lengths = offsets[ids + 1] - offsets[ids]
        return lengths, _pieces(text, offsets[ids], lengths)

    return of


def _pieces(text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The names in order, neighbours in the file joined into one piece."""
    ends = starts + lengths
    first = 0
    for i in range(1, len(starts) + 1):
        if i == len(starts) or starts[i] != ends[i - 1]:
            yield text[starts[first] : ends[i - 1]]
            first = i
