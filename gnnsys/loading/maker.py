"""Make one whole batch in one thread: draw it, fetch its rows straight into their tensors, assemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from gnnsys.batch import Batch, FoldedBlock
from gnnsys.failpoints import failpoint
from gnnsys.loading.assemble import assemble, batch_bytes
from gnnsys.loading.clock import Clock
from gnnsys.loading.edge_ids import EdgeIds
from gnnsys.loading.rows import FoldedRows, RowSource
from gnnsys.loading.sources import BatchSource
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.manifest import numpy_dtype
from gnnsys.storage.scratch import ArrayMemory, Scratch
from gnnsys.storage.tables import empty_rows, torch_rows

_PINNED_ROUNDING = 2
"""torch takes page-locked memory in powers of two."""


class BatchMaker:
    """Makes batches, for several threads at once.

    Args:
        source: who is in a batch.
        rows: a row source per table; none when rows are not wanted.
        folded: the aggregates of the outermost blocks, which `source` does not deliver then.
        edge_ids: finds `Batch.e_id`.
        pin: put the tensors into page-locked memory, for copies to a GPU.
    """

    def __init__(
        self,
        source: BatchSource,
        rows: Mapping[str, RowSource],
        folded: FoldedRows | None = None,
        edge_ids: EdgeIds | None = None,
        *,
        pin: bool,
    ) -> None:
        self.source, self.rows, self.folded = source, rows, folded
        self._edge_ids = edge_ids
        self._pin = pin
        self._scratch = Scratch()

    def of_epoch(self, epoch: int, prefetch: int) -> Callable[[int], Batch]:
        """k -> Batch for one pass; memory of rows that the consumer lets go of is used again within the pass."""
        memory = [ArrayMemory(kept=prefetch + 1) for _ in self._row_sources]
        return partial(self._make, epoch, memory)

    def _make(self, epoch: int, memory: Sequence[ArrayMemory], k: int) -> Batch:
        failpoint("loader.batch")
        clock = Clock()
        with clock.stage("load_s"):
            drawn = self.source.draw(epoch, k, self._scratch)
        io = {"bytes_read": float(drawn.bytes_read)}
        tensors = [self._fetch(k, drawn, *each, clock, io) for each in zip(self._row_sources, memory, strict=True)]
        with clock.stage("assemble_s"):
            edge_ids = self._edge_ids.of(drawn) if self._edge_ids else None
            batch = assemble(drawn, self._named(tensors), edge_ids, pool_index=self.source.pool_index(epoch))
            batch = self._with_folded(batch, tensors[-1], self.folded) if self.folded else batch
            batch = batch.pin_memory() if self._pin else batch
        return replace(batch, io={**io, **clock.seconds})

    def planned_bytes(self, epoch: int, k: int) -> int:
        """What making that batch will ask from the disk, from indexes alone where they know it."""
        needs_ids = any(rows.needs_ids for rows in self._row_sources)
        ids = self.source.ids(epoch, k) if needs_ids else None
        return self.source.planned_bytes(k) + sum(rows.planned_bytes(k, ids) for rows in self._row_sources)

    def max_batch_bytes(self) -> int:
        """Upper bound of the memory of one Batch."""
        row_bytes = sum(rows.row_bytes for rows in self._row_sources)
        edge_bytes = self._edge_ids.edge_bytes if self._edge_ids else 0
        return batch_bytes(*self.source.largest(), row_bytes, edge_bytes, self.source.label_bytes)

    def memory_bytes(self, prefetch: int, workers: int) -> int:
        """Upper bound of all that is held with that many batches ahead and threads: one batch more is the
        consumer's."""
        nodes = self.source.largest()[1]
        worker = self.source.worker_bytes() + sum(rows.worker_bytes(nodes) for rows in self._row_sources)
        held = sum(rows.held_bytes for rows in self._row_sources)
        batch = self.max_batch_bytes() * (_PINNED_ROUNDING if self._pin else 1)
        return (prefetch + 1) * batch + min(workers, prefetch) * worker + held

    @property
    def _row_sources(self) -> list[RowSource]:
        return [*self.rows.values(), *([self.folded] if self.folded else [])]

    def _fetch(
        self, k: int, drawn: PoolBatch, rows: RowSource, memory: ArrayMemory, clock: Clock, io: dict[str, float]
    ) -> Tensor:
        """One row per node of the batch; the bytes asked from disk are added in `io`."""
        shape = (len(drawn.ids), rows.columns)
        if self._pin:  # torch uses it again once no copy reads it any more
            tensor, out = empty_rows(*shape, rows.dtype_name, pin=True)
        else:
            out = memory.take(shape, numpy_dtype(rows.dtype_name))
            tensor = torch_rows(out, rows.dtype_name)
        io["bytes_read"] += rows.fill(k, drawn.ids, out, self._scratch, clock)
        return tensor

    def _named(self, tensors: Sequence[Tensor]) -> Tensor | dict[str, Tensor] | None:
        """`Batch.x` of what was fetched."""
        found = dict(zip(self.rows, tensors, strict=False))  # behind the tables come the aggregates
        if not found:
            return None
        return found["x"] if list(found) == ["x"] else found

    @staticmethod
    def _with_folded(batch: Batch, sums: Tensor, folded: FoldedRows) -> Batch:
        """The batch with the outermost block that was folded."""
        edges = folded.num_edges(batch.index)
        block = FoldedBlock(sums=sums, how=folded.how, degree=batch.degree, num_edges=edges)
        return replace(batch, blocks=(block, *batch.blocks))
