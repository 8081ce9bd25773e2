"""A ring of buffers between a thread that fills them and a device that reads them later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

Buffer = TypeVar("Buffer")


class Done(Protocol):
    """Something that the device passes once it no longer reads a buffer, such as `torch.cuda.Event`."""

    def synchronize(self) -> Any: ...


class Ring(Generic[Buffer]):
    """Hands out buffers in turn; one that is still read is waited for.

    Args:
        buffers: at least one; two let one be filled while another is read.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = list(buffers)
        self._reading: list[Done | None] = [None] * len(buffers)
        self._next = 0

    def take(self) -> Buffer:
        """The buffer that was given back longest ago, free to be written."""
        reading = self._reading[self._next]
        if reading is not None:
            reading.synchronize()
            self._reading[self._next] = None
        return self._buffers[self._next]

    def give(self, done: Done) -> None:
        """The buffer taken last is read until `done`."""
        self._reading[self._next] = done
        self._next = (self._next + 1) % len(self._buffers)
