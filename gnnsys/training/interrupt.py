"""Ctrl-C in a script or a cell that trains: the step under way is finished and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gnnsys.errors import InterruptedWorkError


@contextmanager
def interruptible(given: threading.Event | None) -> Iterator[threading.Event | None]:
    """What training looks at after every step: the event `given`, or one that the first Ctrl-C sets.

    The second Ctrl-C ends at once, as the first does where none of this is ours to decide: the caller gave an event,
    has a handler of SIGINT, or is not the main thread.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once training has stopped or was finished all the same.
    """
    if given is not None or not _is_ours():
        yield given
        return
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    except InterruptedWorkError as error:
        if not asked.is_set():
            raise
        raise KeyboardInterrupt(f"{error.message}. Repeat the call to continue") from error
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked.is_set():
        raise KeyboardInterrupt("the run was finished all the same")


def _is_ours() -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
