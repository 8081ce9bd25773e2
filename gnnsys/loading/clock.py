"""Seconds per stage of making a batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


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
