"""Tensors between two stages: one message per micro-batch and direction, of a size that both ends know beforehand.

All tensors of a boundary travel as one buffer of bytes, the widest dtype first so that every one is aligned; there is
no header. Sends do not block: a buffer is kept until its message has left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of a tensor that will arrive."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> Spec:
        return cls(tuple(tensor.shape), tensor.dtype)


@dataclass
class Traffic:
    """What was sent so far."""

    num_bytes: int = 0
    num_messages: int = 0


class Channel:
    """One direction between two ranks, in a group of their own."""

    def __init__(self, group: Any, sender: int, receiver: int, device: torch.device) -> None:
        self._group, self._sender, self._receiver, self._device = group, sender, receiver, device
        self._leaving: deque[tuple[Any, Tensor]] = deque()

    def send(self, buffer: Tensor) -> None:
        while self._leaving and self._leaving[0][0].is_completed():
            self._leaving.popleft()
        work = dist.isend(buffer, self._receiver, group=self._group)
        self._leaving.append((work, buffer))

    def post(self, num_bytes: int) -> tuple[Any, Tensor]:
        """Begin to receive; the buffer is filled once the work returned was waited for."""
        buffer = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        return dist.irecv(buffer, self._sender, group=self._group), buffer

    def flush(self) -> None:
        """Wait until all messages have left."""
        while self._leaving:
            self._leaving.popleft()[0].wait()


@dataclass
class Wire:
    """Both directions between this stage and one neighbour; None where there is none."""

    out: Channel | None
    into: Channel | None
    traffic: Traffic = field(default_factory=Traffic)
    _posted: deque[tuple[Any, Tensor, Sequence[Spec]]] = field(default_factory=deque)

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Send one message; the tensors may be changed or dropped afterwards."""
        assert self.out is not None
        buffer = pack(tensors)
        self.traffic.num_bytes += buffer.numel()
        self.traffic.num_messages += 1
        self.out.send(buffer)

    def post(self, specs: Sequence[Spec]) -> None:
        """Begin to receive the next message, of these tensors."""
        assert self.into is not None
        self._posted.append((*self.into.post(sum(spec.num_bytes for spec in specs)), specs))

    @property
    def num_posted(self) -> int:
        return len(self._posted)

    def receive(self) -> tuple[Tensor, ...]:
        """The tensors of the message posted first."""
        work, buffer, specs = self._posted.popleft()
        work.wait()
        return unpack(buffer, specs)

    def flush(self) -> None:
        if self.out is not None:
            self.out.flush()


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """One (bytes,) uint8 buffer of all tensors, a copy."""
    order = _order([Spec.of(tensor) for tensor in tensors])
    return torch.cat([tensors[i].detach().contiguous().reshape(-1).view(torch.uint8) for i in order])


def unpack(buffer: Tensor, specs: Sequence[Spec]) -> tuple[Tensor, ...]:
    """The tensors in a buffer of `pack`, as views of it."""
    found: dict[int, Tensor] = {}
    begin = 0
    for i in _order(specs):
        end = begin + specs[i].num_bytes
        found[i] = buffer[begin:end].view(specs[i].dtype).view(specs[i].shape)
        begin = end
    return tuple(found[i] for i in range(len(specs)))


def _order(specs: Sequence[Spec]) -> list[int]:
    return sorted(range(len(specs)), key=lambda i: (-specs[i].dtype.itemsize, i))
