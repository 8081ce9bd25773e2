"""Page-aligned memory that is used again: staging buffers of a thread, and arrays that were let go."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

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


class ArrayMemory:
    """Memory for arrays, used again as soon as nobody holds the array or a tensor over it any more.

    Fresh memory is several times slower to fill than memory that was touched before: the kernel hands it out page by
    page, and zeroes it.

    Args:
        kept: buffers that may lie idle.
    """

    def __init__(self, kept: int) -> None:
        # A deque and no lock: buffers come back whenever garbage is collected, in any thread, inside `take` as well.
        self._idle: deque[np.ndarray] = deque(maxlen=kept)
        self._num_bytes = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with any content, starting on a page. Views of it do not keep it: hold the array itself."""
        num_bytes = math.prod(shape) * dtype.itemsize
        buffer = self._buffer(num_bytes)
        array = buffer[:num_bytes].view(dtype).reshape(shape)
        weakref.finalize(array, self._idle.append, buffer).atexit = False
        return array

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
