"""Make one whole batch in one thread: draw it, fetch its rows straight into their tensors, assemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from gnnsys.batch import Batch
from gnnsys.loading.assemble import assemble, batch_bytes
from gnnsys.loading.rows import RowSource
from gnnsys.loading.scratch import Clock, RowMemory, Scratch
from gnnsys.loading.sources import BatchSource
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.manifest import numpy_dtype
from gnnsys.storage.tables import torch_rows


class BatchMaker:
    """Makes batches, for several threads at once.

    Args:
        source: who is in a batch.
        rows: a row source per table; none when rows are not wanted.
        pin: put the tensors into page-locked memory, for copies to a GPU.
    """

    def __init__(self, source: BatchSource, rows: Mapping[str, RowSource], *, pin: bool) -> None:
        self.source, self.rows = source, rows
        self._pin = pin
        self._scratch = Scratch()

    def of_epoch(self, epoch: int, prefetch: int) -> Callable[[int], Batch]:
        """k -> Batch for one pass; memory of rows that the consumer lets go of is used again within the pass."""
        memory = {name: RowMemory(kept=prefetch + 1) for name in self.rows}
        return partial(self._make, epoch, memory)

    def _make(self, epoch: int, memory: Mapping[str, RowMemory], k: int) -> Batch:
        clock = Clock()
        with clock.stage("load_s"):
            drawn = self.source.draw(epoch, k, self._scratch)
        x, row_bytes = self._fetch(k, drawn, memory, clock)
        io = {"bytes_read": float(drawn.bytes_read + row_bytes)}
        with clock.stage("assemble_s"):
            batch = assemble(drawn, x, pool_index=self.source.pool_index(epoch), io=io)
            batch = batch.pin_memory() if self._pin else batch
        io.update(clock.seconds)
        return batch

    def planned_bytes(self, epoch: int, k: int) -> int:
        """What making that batch will ask from the disk, from indexes alone where they know it."""
        needs_ids = any(rows.needs_ids for rows in self.rows.values())
        ids = self.source.ids(epoch, k) if needs_ids else None
        return self.source.planned_bytes(k) + sum(rows.planned_bytes(k, ids) for rows in self.rows.values())

    def max_batch_bytes(self) -> int:
        """Upper bound of the memory of one Batch."""
        return batch_bytes(*self.source.largest(), sum(rows.row_bytes for rows in self.rows.values()))

    def memory_bytes(self, prefetch: int, workers: int) -> int:
        """Upper bound of all that is held with that many batches ahead and threads: one batch more is the
        consumer's."""
        nodes = self.source.largest()[1]
        worker = self.source.worker_bytes() + sum(rows.worker_bytes(nodes) for rows in self.rows.values())
        held = sum(rows.held_bytes for rows in self.rows.values())
        return (prefetch + 1) * self.max_batch_bytes() + min(workers, prefetch) * worker + held

    def _fetch(
        self, k: int, drawn: PoolBatch, memory: Mapping[str, RowMemory], clock: Clock
    ) -> tuple[Tensor | dict[str, Tensor] | None, int]:
        """Rows of every table, and the bytes that they asked from disk."""
        found: dict[str, Tensor] = {}
        num_bytes = 0
        for name, rows in self.rows.items():
            out = memory[name].take(len(drawn.ids), rows.columns, numpy_dtype(rows.dtype_name))
            num_bytes += rows.fill(k, drawn.ids, out, self._scratch, clock)
            found[name] = torch_rows(out, rows.dtype_name)
        if not found:
            return None, 0
        return (found["x"] if list(found) == ["x"] else found), num_bytes
