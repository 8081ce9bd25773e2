"""Readers: rows of a table in memory by id, for a device. All give the same bits."""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch
from torch import Tensor

from gnnsys.access.kernel import MAX_THREADS, gather_rows
from gnnsys.access.registry import REGISTRY, HostRegistry
from gnnsys.access.ring import Ring
from gnnsys.errors import ConfigError, InputDataError

_BUFFERS = 2


class FeatureReader(Protocol):
    """Rows by id, in the dtype of the table."""

    @property
    def nbytes_moved(self) -> int:
        """Of rows given so far that came from host memory."""
        ...

    def gather(self, ids: Tensor, out: Tensor | None = None, stream: Any = None) -> Tensor:
        """Rows of `ids` on the reader's device.

        Args:
            ids: (n,) int64 on the CPU or that device, any order, repeats allowed.
            out: (n, F) to be filled, contiguous, of the table's dtype; a new tensor when None.
            stream: CUDA stream that the work is queued on; the current one when None.

        Raises:
            InputDataError: an id is negative or too large, or `out` is another kind of tensor.
        """
        ...

    def close(self) -> None:
        """Let go of buffers and registered memory; a second time nothing is left to do."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...


class _Closing:
    """A reader as a context manager."""

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


class CpuReader(_Closing):
    """Rows for the CPU: the reference.

    Args:
        table: (N, F) on the CPU.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table
        self.nbytes_moved = 0

    def gather(self, ids: Tensor, out: Tensor | None = None, stream: Any = None) -> Tensor:
        ids = checked(ids, len(self._table))
        out = room(out, len(ids), self._table, self._table.device)
        self.nbytes_moved += out.nbytes
        return torch.index_select(self._table, 0, ids, out=out)


class StagedReader(_Closing):
    """Rows copied on the CPU into page-locked buffers, and from there by the GPU's copy engine.

    Args:
        table: (N, F) on the CPU.
        device: a CUDA device.
    """

    def __init__(self, table: Tensor, device: torch.device) -> None:
        self._table, self._device = table, numbered(device)
        self._copies = torch.cuda.Stream(device)
        self._ring = self._empty_buffers()
        self.nbytes_moved = 0

    def gather(self, ids: Tensor, out: Tensor | None = None, stream: Any = None) -> Tensor:
        ids = checked(ids.cpu(), len(self._table))
        consumer = stream or torch.cuda.current_stream(self._device)
        with torch.cuda.stream(consumer):
            rows = room(out, len(ids), self._table, self._device)
        holder = self._ring.take()
        if len(holder[0]) < len(ids):
            holder[0] = torch.empty(len(ids), *self._table.shape[1:], dtype=self._table.dtype, pin_memory=True)
        staged = holder[0][: len(ids)]
        torch.index_select(self._table, 0, ids, out=staged)
        self._copies.wait_stream(consumer)  # `rows` may still be in use there
        with torch.cuda.stream(self._copies):
            rows.copy_(staged, non_blocking=True)
            done = self._copies.record_event()
        rows.record_stream(self._copies)
        self._ring.give(done)
        consumer.wait_event(done)
        self.nbytes_moved += staged.nbytes
        return rows

    def close(self) -> None:
        self._copies.synchronize()
        self._ring = self._empty_buffers()

    def _empty_buffers(self) -> Ring[list[Tensor]]:
        return Ring([[self._table[:0]] for _ in range(_BUFFERS)])


class ZeroCopyReader(_Closing):
    """Rows read by the GPU from host memory, without a copy on the way (PyTorch-Direct).

    Args:
        table: (N, F) on the CPU, contiguous; page-locked where it is, and released by `close`.
        device: a CUDA device.
        max_threads: of a launch; fewer leave processors to a step that runs meanwhile.

    Raises:
        ConfigError: the table cannot be page-locked.
    """

    def __init__(
        self, table: Tensor, device: torch.device, *, max_threads: int = MAX_THREADS, registry: HostRegistry = REGISTRY
    ) -> None:
        if not table.is_contiguous():
            raise ConfigError(
                "GS-CFG-821", "rows of the table do not lie one behind the other: it cannot be read there"
            )
        if not registry.register(table):
            raise ConfigError(
                "GS-CFG-821", "the table cannot be page-locked for the GPU to read", hint="Use backend='staged'."
            )
        self._table, self._device, self._max_threads, self._registry = table, numbered(device), max_threads, registry
        self._open = True
        self.nbytes_moved = 0

    def gather(self, ids: Tensor, out: Tensor | None = None, stream: Any = None) -> Tensor:
        queue = stream or torch.cuda.current_stream(self._device)
        with torch.cuda.stream(queue):
            ids = checked(ids, len(self._table)).to(self._device)
            out = room(out, len(ids), self._table, self._device)
            if out.numel():
                gather_rows(self._table, ids, out, max_threads=self._max_threads, stream=queue)
        self.nbytes_moved += out.nbytes
        return out

    def close(self) -> None:
        if self._open:
            self._open = False
            torch.cuda.synchronize(self._device)
            self._registry.unregister(self._table)


class CachedReader(_Closing):
    """Hot rows from the device, the rest from another reader.

    Args:
        table: (N, F) on the CPU, from which the hot rows are copied.
        hot: (H,) int64 ids without repeats.
        misses: of the same table and device.
    """

    def __init__(self, table: Tensor, hot: Tensor, device: torch.device, misses: FeatureReader) -> None:
        hot = checked(hot, len(table))
        self._misses, self._num_rows = misses, len(table)
        self._rows = table[hot].to(device)
        self._slots = torch.full((len(table),), -1, dtype=torch.int32)
        self._slots[hot] = torch.arange(len(hot), dtype=torch.int32)
        self._slots = self._slots.to(device)

    @property
    def nbytes_moved(self) -> int:
        return self._misses.nbytes_moved

    def gather(self, ids: Tensor, out: Tensor | None = None, stream: Any = None) -> Tensor:
        with torch.cuda.stream(stream):  # nothing where it is None
            ids = checked(ids, self._num_rows).to(self._rows.device)
            out = room(out, len(ids), self._rows, self._rows.device)
            slots = self._slots[ids]
            missed = (slots < 0).nonzero().squeeze(1)
            hit = (slots >= 0).nonzero().squeeze(1)
            out[hit] = self._rows[slots[hit].long()]
            out[missed] = self._misses.gather(ids[missed], stream=stream)
        return out

    def close(self) -> None:
        self._misses.close()


def numbered(device: torch.device) -> torch.device:
    """The device with its number, as tensors that are on it name it."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def checked(ids: Tensor, num_rows: int) -> Tensor:
    """`ids` as (n,) int64 in [0, num_rows).

    Raises:
        InputDataError: they are not, with the first that is out of range.
    """
    if ids.ndim != 1 or ids.dtype.is_floating_point or ids.dtype == torch.bool:
        raise InputDataError(
            "GS-IN-820", f"ids of shape {tuple(ids.shape)} and {ids.dtype}; row ids are one-dimensional integers"
        )
    ids = ids.long()
    if len(ids):
        least, greatest = torch.aminmax(ids)
        if int(least) < 0 or int(greatest) >= num_rows:
            bad = ids[(ids < 0) | (ids >= num_rows)][0]
            raise InputDataError("GS-IN-820", f"row {int(bad)} is asked for, the table has {num_rows:,}")
    return ids


def room(out: Tensor | None, count: int, table: Tensor, device: torch.device) -> Tensor:
    """`out` as it is, or a new (count, F) tensor for rows of `table`.

    Raises:
        InputDataError: `out` has another shape, dtype, device or layout.
    """
    shape = (count, *table.shape[1:])
    if out is None:
        return torch.empty(shape, dtype=table.dtype, device=device)
    fits = out.shape == shape and out.dtype == table.dtype and out.device == device
    if not fits or not out.is_contiguous():
        raise InputDataError(
            "GS-IN-821",
            f"out is {tuple(out.shape)} {out.dtype} on {out.device} with strides {out.stride()}; the rows are {shape} "
            f"{table.dtype} on {device}, one behind the other",
        )
    return out
