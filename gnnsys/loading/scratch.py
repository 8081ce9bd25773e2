"""What is kept between batches: staging buffers of a worker, memory of rows that were let go, a clock per stage."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gnnsys.storage.direct import aligned_buffer


class Scratch(threading.local):
    """Buffers of the thread that asks, by name; they are reused and grow only when more is asked for."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def get(self, name: str, num_bytes: int) -> np.ndarray:
        """(num_bytes,) uint8 starting on a page; its content is whatever was left there."""
        held = self._held.get(name)
        if held is None or len(held) < num_bytes:
            self._held[name] = held = aligned_buffer(num_bytes, reused=True)
        return held[:num_bytes]


class RowMemory:
    """Memory for rows of batches, used again as soon as no tensor over it is left.

    Fresh memory is several times slower to fill than memory that was touched before: the kernel hands it out page by
    page, and zeroes it.

    Args:
        kept: buffers that may lie idle.
    """

    def __init__(self, kept: int) -> None:
        # A deque and no lock: buffers come back whenever garbage is collected, in any thread, inside `take` as well.
        self._idle: deque[np.ndarray] = deque(maxlen=kept)
        self._num_bytes = 0

    def take(self, num_rows: int, columns: int, dtype: np.dtype) -> np.ndarray:
        """(num_rows, columns) with any content, starting on a page."""
        num_bytes = num_rows * columns * dtype.itemsize
        buffer = self._buffer(num_bytes)
        rows = buffer[:num_bytes].view(dtype).reshape(num_rows, columns)
        weakref.finalize(rows, self._idle.append, buffer).atexit = False
        return rows

    def _buffer(self, num_bytes: int) -> np.ndarray:
        """An idle buffer, or a new one with room to spare: batches differ a little, and what is not touched is free."""
        while True:
            try:
                buffer = self._idle.pop()
            except IndexError:
                self._num_bytes = max(self._num_bytes, num_bytes + num_bytes // 8)
                return aligned_buffer(self._num_bytes, reused=True)
            if len(buffer) >= num_bytes:
                return buffer


class Clock:
    """Seconds per stage of making one batch."""

    def __init__(self) -> None:
        self.seconds = {"load_s": 0.0, "read_s": 0.0, "assemble_s": 0.0}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the length of a `with` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
