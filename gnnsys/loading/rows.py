"""Where the rows of a batch come from: the packed run of a generation and its RAM cache, its aggregates, or any
table."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gnnsys.errors import CorruptStoreError
from gnnsys.loading.clock import Clock
from gnnsys.storage import kernels
from gnnsys.storage.aggregates import Aggregates
from gnnsys.storage.files import PAGE
from gnnsys.storage.generation import SLOTS, Generation
from gnnsys.storage.pages import piece_bytes
from gnnsys.storage.pool import Pool
from gnnsys.storage.scratch import Scratch
from gnnsys.storage.tables import Table, byte_rows


class RowSource(Protocol):
    """Rows of whole batches; may be asked by several threads at once."""

    columns: int
    dtype_name: str
    row_bytes: int
    held_bytes: int
    """What it keeps in memory for as long as it is open."""

    def fill(self, k: int, ids: np.ndarray, out: np.ndarray, scratch: Scratch, clock: Clock) -> int:
        """out (n, columns) <- the rows of `ids`, the first n nodes of batch k; returns the bytes asked from disk."""
        ...

    def planned_bytes(self, k: int, ids: np.ndarray | None) -> int:
        """What `fill` should return; `ids` may be None when `needs_ids` is False."""
        ...

    needs_ids: bool

    def worker_bytes(self, num_nodes: int) -> int:
        """Upper bound of what one thread holds while it fills a batch of that many nodes."""
        ...

    @property
    def checksum_bytes(self) -> int: ...

    def close(self) -> None: ...


class PackedRows:
    """Rows of a packed generation: a run read front to back per batch, hot rows from memory."""

    needs_ids = False
    checksum_bytes = 0

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.columns, self.dtype_name, self.row_bytes = generation.columns, generation.dtype, generation.row_bytes
        self._cache = generation.load_cache()
        self.held_bytes = self._cache.nbytes
        batches = range(generation.pool.num_batches)
        self._largest_slots = max(generation.slots_bytes(k) for k in batches)
        self._largest_count = int(generation.count.max())
        largest_run = max(generation.run_bytes(k) for k in batches)
        self._piece_bytes = min(piece_bytes(self.row_bytes), largest_run)

    def fill(self, k: int, ids: np.ndarray, out: np.ndarray, scratch: Scratch, clock: Clock) -> int:
        generation, count = self._generation, int(self._generation.count[k])
        with clock.stage("read_s"):
            slots, asked = generation.read_slots(k, scratch.get("slots", self._largest_slots))
        if len(slots) and int(slots.max()) >= len(self._cache) + count:
            # seen by its checksum too, but not when verification is off, nor on a second read
            raise CorruptStoreError(
                "GS-STORE-004",
                f"{generation.path / SLOTS}: slots of batch {k} lie outside the cache and its run",
                hint="Check it with gnnsys verify --deep, and make the pack again.",
            )
        with clock.stage("assemble_s"):
            where = scratch.get("where", 4 * self._largest_count)[: 4 * count].view(np.int32)
            where[:] = -1
            kernels.place_cached(self._cache, slots[: len(out)], byte_rows(out), where)
        pieces = generation.pieces(k, scratch.get("piece", self._piece_bytes))
        while True:
            with clock.stage("read_s"):
                piece = next(pieces, None)
            if piece is None:
                return asked
            first, rows, asked_for_piece = piece
            asked += asked_for_piece
            with clock.stage("assemble_s"):
                kernels.scatter(rows, where[first : first + len(rows)], byte_rows(out))

    def planned_bytes(self, k: int, ids: np.ndarray | None) -> int:
        return self._generation.planned_bytes(k)

    def worker_bytes(self, num_nodes: int) -> int:
        return self._largest_slots + 4 * self._largest_count + self._piece_bytes

    def close(self) -> None:
        self._cache = self._cache[:0]


class NoRows:
    """The rows of a pre-aggregated generation whose first layer reads none beside the aggregates: no columns."""

    needs_ids = False
    columns = row_bytes = held_bytes = checksum_bytes = 0

    def __init__(self, generation: Generation) -> None:
        self.dtype_name = generation.dtype

    def fill(self, k: int, ids: np.ndarray, out: np.ndarray, scratch: Scratch, clock: Clock) -> int:
        return 0

    def planned_bytes(self, k: int, ids: np.ndarray | None) -> int:
        return 0

    def worker_bytes(self, num_nodes: int) -> int:
        return 0

    def close(self) -> None:
        pass


class FoldedRows:
    """What the destinations of the outermost blocks receive: one sequential read per batch.

    Attributes:
        how: the aggregation that was folded; fanout: neighbours per node that it was over.
        hops: those left to be delivered.
    """

    needs_ids = False
    held_bytes = checksum_bytes = 0

    def __init__(self, aggregates: Aggregates, pool: Pool) -> None:
        self._aggregates = aggregates
        self.how, self.hops, self.fanout = aggregates.how, pool.hops - 1, pool.fanouts[-1]
        self.columns, self.dtype_name, self.row_bytes = aggregates.columns, aggregates.dtype, aggregates.row_bytes

    def fill(self, k: int, ids: np.ndarray, out: np.ndarray, scratch: Scratch, clock: Clock) -> int:
        with clock.stage("read_s"):
            return self._aggregates.read_into(k, byte_rows(out), scratch.get("page", PAGE))

    def num_edges(self, k: int) -> int:
        """Edges of batch k, all of which are folded into its aggregates or lie within them."""
        return int(self._aggregates.num_folded[k])

    def planned_bytes(self, k: int, ids: np.ndarray | None) -> int:
        return self._aggregates.run_bytes(k)

    def worker_bytes(self, num_nodes: int) -> int:
        return PAGE

    def close(self) -> None:
        pass


class TableRows:
    """Rows of a table of the Store."""

    needs_ids = True

    def __init__(self, table: Table, held_bytes: int = 0) -> None:
        self._table = table
        self.columns, self.dtype_name, self.row_bytes = table.columns, table.dtype_name, table.row_bytes
        self.held_bytes = held_bytes

    @property
    def checksum_bytes(self) -> int:
        return self._table.checksum_bytes

    def fill(self, k: int, ids: np.ndarray, out: np.ndarray, scratch: Scratch, clock: Clock) -> int:
        with clock.stage("read_s"):
            return self._table.fetch(ids, out)[1]

    def planned_bytes(self, k: int, ids: np.ndarray | None) -> int:
        assert ids is not None
        return self._table.request_bytes(ids)

    def worker_bytes(self, num_nodes: int) -> int:
        # the ids ascending, their places, the runs of pages under them
        return 48 * num_nodes

    def close(self) -> None:
        self._table.close()
