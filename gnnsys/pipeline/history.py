"""History: the rows that chunks read of each other, per layer, and what gradients they ask of each other.

A chunk overwrites its rows when its turn comes; until then they are those of an earlier epoch. Every `refresh` epochs
the rows as they are become the snapshot that the next epochs start from, so what is read is at most `refresh` epochs
old. With a refresh of 1 rows simply stay where they are.

Gradients along edges to a chunk whose rows were not fresh are dropped. In a random order that is every second edge
between two chunks, so those that remain count `compensation` times, 2 by default: the sum over one hop is right on
average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Rows:
    """Of one aggregation of one layer: (N, F) each."""

    current: Tensor
    snapshot: Tensor | None
    gradient: Tensor | None
    """None when nothing learns in front of it."""


class KeptRows:
    """What one layer keeps, one set of rows per time that it aggregates.

    Args:
        num_nodes: of the graph.
        refresh: epochs between snapshots, at least 1.
        compensation: factor of gradients between chunks.
    """

    def __init__(self, num_nodes: int, refresh: int, compensation: float) -> None:
        self._num_nodes, self._refresh, self._compensation = num_nodes, refresh, compensation
        self._sets: list[_Rows] = []

    def write(self, call: int, span: slice, h: Tensor, *, learns: bool) -> Tensor:
        """Put the rows `h` (D, F) of a range of nodes in their place; returns those of all nodes, (N, F).

        Args:
            learns: their gradient will be asked for.
        """
        if call == len(self._sets):
            self._sets.append(self._new(h.shape[1], h.dtype, h.device, learns=learns))
        rows = self._sets[call].current
        rows[span] = h.detach()
        return rows

    def write_gradient(self, call: int, span: slice, grad: Tensor) -> Tensor:
        """Put what a range of nodes asks for, (D, F), in its place; returns what all ask for, (N, F)."""
        found = self._sets[call].gradient
        assert found is not None
        found[span] = grad
        return found

    def compensate(self, call: int, span: slice) -> None:
        """The range is done: from now on its gradients are read by other chunks only."""
        found = self._sets[call].gradient
        assert found is not None
        found[span] *= self._compensation

    def begin(self) -> None:
        """Go back to the snapshot, and forget last epoch's gradients."""
        for rows in self._sets:
            if rows.snapshot is not None:
                rows.current.copy_(rows.snapshot)
            if rows.gradient is not None:
                rows.gradient.zero_()

    def end(self, epoch: int) -> None:
        """Take a snapshot when it is time."""
        if (epoch + 1) % self._refresh == 0:
            self.keep()

    def keep(self) -> None:
        """Take a snapshot of the rows as they are."""
        for rows in self._sets:
            if rows.snapshot is not None:
                rows.snapshot.copy_(rows.current)

    def clear(self) -> None:
        """All zero."""
        for rows in self._sets:
            rows.current.zero_()
        self.keep()

    def sized(self, num_nodes: int) -> KeptRows:
        """The same sets of rows for another number of nodes, all zero."""
        other = KeptRows(num_nodes, self._refresh, self._compensation)
        for rows in self._sets:
            like = rows.current
            learns = rows.gradient is not None
            other._sets.append(other._new(like.shape[1], like.dtype, like.device, learns=learns))
        return other

    @property
    def num_bytes(self) -> int:
        """Of everything kept."""
        tensors = (t for rows in self._sets for t in (rows.current, rows.snapshot, rows.gradient))
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def current(self) -> list[Tensor]:
        """The rows as they are, set by set."""
        return [rows.current for rows in self._sets]

    def lasting(self) -> Iterator[Tensor]:
        """The rows that the next epoch starts from, set by set: all that must outlive this one."""
        for rows in self._sets:
            yield rows.current if rows.snapshot is None else rows.snapshot

    def restore(self, lasting: list[Tensor]) -> None:
        """Start from rows that `lasting` gave."""
        for rows, tensor in zip(self._sets, lasting, strict=True):
            rows.current.copy_(tensor)
        self.keep()

    def _new(self, columns: int, dtype: torch.dtype, device: torch.device, *, learns: bool) -> _Rows:
        def zeros() -> Tensor:
            return torch.zeros(self._num_nodes, columns, dtype=dtype, device=device)

        return _Rows(zeros(), zeros() if self._refresh > 1 else None, zeros() if learns else None)


class History:
    """What all layers of a stage keep.

    Args:
        layers: `KeptRows` by number of the layer in the whole model.
    """

    def __init__(self, layers: Mapping[int, KeptRows]) -> None:
        self.layers = layers

    def begin(self) -> None:
        for kept in self.layers.values():
            kept.begin()

    def end(self, epoch: int) -> None:
        for kept in self.layers.values():
            kept.end(epoch)

    def keep(self) -> None:
        for kept in self.layers.values():
            kept.keep()

    def clear(self) -> None:
        for kept in self.layers.values():
            kept.clear()

    def sized(self, num_nodes: int) -> History:
        return History({number: kept.sized(num_nodes) for number, kept in self.layers.items()})

    @property
    def num_bytes(self) -> int:
        return sum(kept.num_bytes for kept in self.layers.values())

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next epoch starts from, under names that are the same for any number of stages."""
        return {
            f"{number}-{call}": rows for number, kept in self.layers.items() for call, rows in enumerate(kept.lasting())
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from `tensors` of this stage's layers."""
        for number, kept in self.layers.items():
            kept.restore([tensors[f"{number}-{call}"] for call, _ in enumerate(kept.lasting())])
