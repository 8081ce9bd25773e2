"""Work by threads with results in order: the caller sees what a plain loop would show it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from gnnsys.errors import ConfigError

_In = TypeVar("_In")
_Read = TypeVar("_Read")
_Out = TypeVar("_Out")


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_workers(given: int | None) -> int:
    """Threads to work with: `given`, or the cores that this process may use.

    Raises:
        ConfigError: fewer than one.
    """
    workers = usable_cores() if given is None else given
    if workers < 1:
        raise ConfigError(
            "GS-CFG-003", f"workers is {workers}; it must be at least 1", hint="Leave it out to use every core."
        )
    return workers


def loading_workers() -> int:
    """Threads that make batches where nobody says how many: half of the cores, as training needs some, 2 to 8.

    16 cores that feed one H200 with batches of 106 MB: 6.4 GB/s with two threads, 12 with four, 18 with eight.
    """
    return min(8, max(2, usable_cores() // 2))


def batches_ahead(workers: int) -> int:
    """Batches in the making or waiting, so that a slow one does not stop so many threads."""
    return max(2, workers * 3 // 2 - 1)


@contextmanager
def in_order(
    work: Callable[[_In], _Out], items: Iterable[_In], workers: int, ahead: int = 1
) -> Iterator[Iterator[_Out]]:
    """`map(work, items)` by `workers` threads, with at most `workers + ahead` items in memory at a time.

    When the block ends, however it ends, nothing of `work` is running any more.
    """
    waiting: deque[Future[_Out]] = deque()

    def results(pool: ThreadPoolExecutor) -> Iterator[_Out]:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= workers + ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="gnnsys-work")
    try:
        yield results(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def read_in_order(
    read: Callable[[_In], _Read], work: Callable[[_Read], _Out], items: Iterable[_In], workers: int, *, sequential: bool
) -> Iterator[Iterator[_Out]]:
    """`work(read(item))` by `workers` threads as `in_order` does it; when `sequential`, one thread of its own reads,
    strictly from the first item to the last."""
    if not sequential:
        with in_order(lambda item: work(read(item)), items, workers) as results:
            yield results
        return
    with in_order(read, items, 1) as found, in_order(work, found, workers) as results:
        yield results
