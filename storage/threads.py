"""Work by threads with results in order: the caller sees what a plain loop would show it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


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
