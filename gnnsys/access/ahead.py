"""Rows of the next batch on their way while this one is computed on: two CUDA streams, handed over by events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from gnnsys.access.readers import FeatureReader


def gather_ahead(reader: FeatureReader, ids: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Rows (n, F) of every tensor of ids (n,), in order, each asked for before the one before it is given.

    On the CPU there is nothing to overlap: rows are fetched when they are wanted.
    """
    if device.type != "cuda":
        yield from (reader.gather(each) for each in ids)
        return
    side = torch.cuda.Stream(device)
    waiting: list[tuple[Tensor, torch.cuda.Event]] = []
    for each in ids:
        if each.is_cuda:  # they may be unfinished, and must outlive the gather
            side.wait_stream(torch.cuda.current_stream(device))
            each.record_stream(side)
        with torch.cuda.stream(side):
            rows = reader.gather(each, stream=side)
            waiting.append((rows, side.record_event()))
        if len(waiting) > 1:
            yield _handed_over(*waiting.pop(0))
    while waiting:
        yield _handed_over(*waiting.pop(0))


def _handed_over(rows: Tensor, ready: torch.cuda.Event) -> Tensor:
    """Rows for the current stream, whose allocator must not reuse them before it is done."""
    current = torch.cuda.current_stream(rows.device)
    current.wait_event(ready)
    rows.record_stream(current)
    return rows
