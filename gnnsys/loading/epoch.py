"""One pass over an epoch: a few batches in the making, delivered in order, nothing left behind however it ends."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from gnnsys.errors import GnnsysError

_T = TypeVar("_T")
_THREADS = "gnnsys-load"


class OrderedAhead(Generic[_T]):
    """Iterator over `make(number)` for the numbers given, in order, with `ahead` of them under way in threads.

    The threads end with the last item, with `close`, with an error, and when the iterator is garbage collected; at
    most the items in the making are waited for.

    Args:
        make: called in a thread; must not refer to the object that holds this iterator.
        numbers: what to make, in order.
        ahead: items made or in the making beyond the one that was delivered last; at least 1.
        workers: threads.

    Attributes:
        wait_s: seconds that `next` has waited for an item.
    """

    def __init__(self, make: Callable[[int], _T], numbers: Iterator[int], *, ahead: int, workers: int) -> None:
        self._make, self._numbers, self._ahead = make, numbers, ahead
        self._threads = ThreadPoolExecutor(min(workers, ahead), thread_name_prefix=_THREADS)
        self._flying: deque[tuple[int, Future[_T]]] = deque()
        self.wait_s = 0.0
        self._stop = weakref.finalize(self, _end, self._threads)
        self._submit()

    def __iter__(self) -> OrderedAhead[_T]:
        return self

    def __next__(self) -> _T:
        self._submit()
        if not self._flying:
            self.close()
            raise StopIteration
        started = time.perf_counter()
        try:
            item = _result(*self._flying[0])
        except Exception:
            self.close()
            raise
        finally:
            self.wait_s += time.perf_counter() - started
        self._flying.popleft()  # not before: an interrupted wait leaves it to be delivered
        self._submit()
        return item

    def peek(self, count: int) -> list[_T]:
        """The next items, at most as many as are under way; they are still to be delivered."""
        return [_result(number, future) for number, future in list(self._flying)[:count]]

    def close(self) -> None:
        """Drop what was not delivered and wait for what is in the making. Repeating it does nothing."""
        self._stop()
        self._flying.clear()
        self._numbers = iter(())

    def _submit(self) -> None:
        while len(self._flying) < self._ahead and (number := next(self._numbers, None)) is not None:
            self._flying.append((number, self._threads.submit(self._make, number)))


def _end(threads: ThreadPoolExecutor) -> None:
    """Stop the threads; a garbage collection that happens to run in one of them must not wait for itself."""
    own = threading.current_thread().name.startswith(_THREADS)
    threads.shutdown(wait=not own, cancel_futures=True)


def _result(number: int, future: Future[_T]) -> _T:
    """The item; an error of its thread says which batch it happened in."""
    try:
        return future.result()
    except GnnsysError as error:
        message = f"batch {number}: {error.message}"
        raise type(error)(error.code, message, hint=error.hint) from error
    except Exception as error:
        error.add_note(f"while making batch {number}")
        raise
