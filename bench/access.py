"""Rows of a table in memory for a device, 512 bytes each, at random: readers against what they replace.

On a CPU: `index_select` into a buffer that stays, against indexing, which makes a new tensor every time. With a GPU:
rows read where they are, and rows staged through page-locked buffers, against one copy of as many bytes that are
page-locked already (the most that the link gives) and against indexing and then copying.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnsys.access.readers import CpuReader, FeatureReader, StagedReader, ZeroCopyReader
from gnnsys.bench.harness import Report, repeated, report, row

COLUMNS, BATCH = 128, 100_000
_GB = 1e9


def run(quick: bool, folder: Path) -> Report:
    """Measure in memory; `folder` is not used."""
    rows = 500_000 if quick else 4_000_000
    repeats = 3 if quick else 7
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(rows, COLUMNS, generator=generator)
    ids = [torch.randint(rows, (BATCH,), generator=generator) for _ in range(4)]
    measured = _on_cpu(table, ids, repeats)
    notes = []
    if torch.cuda.is_available():
        measured += _on_gpu(table, ids, repeats)
    else:
        notes.append("There was no CUDA device: nothing was measured of staged rows and of rows read by a GPU.")
    config = {"rows": rows, "row_bytes": 4 * COLUMNS, "batch_rows": BATCH, "repeats": repeats, "quick": quick}
    return report(measured, config, notes=notes)


def _on_cpu(table: Tensor, ids: list[Tensor], repeats: int) -> list[dict[str, Any]]:
    reader, out = CpuReader(table), torch.empty(BATCH, COLUMNS)
    ours = _rates(lambda each: reader.gather(each, out=out), ids, repeats)
    return [row("access, CPU", "rows", "GB/s", ours, "indexing", _rates(lambda each: table[each], ids, repeats))]


def _on_gpu(table: Tensor, ids: list[Tensor], repeats: int) -> list[dict[str, Any]]:
    device = torch.device("cuda")
    pinned = torch.empty(BATCH, COLUMNS, pin_memory=True)
    link = _rates(lambda _each: pinned.to(device, non_blocking=True), ids, repeats)
    plain = _rates(lambda each: table[each].to(device), ids, repeats)
    rows = []
    for name, kind in (("zero copy", ZeroCopyReader), ("staged", StagedReader)):
        reader: FeatureReader = kind(table, device)
        ours = _rates(reader.gather, ids, repeats)
        reader.close()
        rows.append(row(f"access, {name}", "rows", "GB/s", ours, "one pinned copy", link))
        rows.append(row(f"access, {name}", "rows", "GB/s", ours, "indexing, then a copy", plain))
    return rows


def _rates(work: Callable[[Tensor], Any], ids: list[Tensor], repeats: int) -> list[float]:
    """GB/s, with a batch after the other."""

    def once() -> float:
        began = time.perf_counter()
        for each in ids:
            work(each)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return len(ids) * BATCH * COLUMNS * 4 / _GB / (time.perf_counter() - began)

    return repeated(once, repeats)
