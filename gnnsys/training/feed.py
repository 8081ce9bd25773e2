"""Feed: what a trainer asks of whatever gives it batches: a `Loader`, or the chunks of a whole graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gnnsys.batch import Batch
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store


class Feed(Protocol):
    """See `Loader`, whose methods and attributes these are."""

    prefetch: int
    workers: int

    @property
    def opened(self) -> Pack | Pool | Store: ...

    @property
    def aggregate(self) -> str | None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def upcoming_nodes(self, count: int) -> list[tuple[int, ...] | None]: ...

    def planned_bytes(self, epoch: int) -> int: ...

    def largest_batch(self) -> Batch: ...

    def max_batch_bytes(self) -> int: ...

    def memory_bytes(self, prefetch: int | None = None, workers: int | None = None) -> int: ...

    def close(self) -> None: ...
