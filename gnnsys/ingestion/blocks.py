"""Rows that a function of the user's yields block by block: a table need not exist anywhere before it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import xxhash

from gnnsys.errors import InputDataError
from gnnsys.ingestion.source import Rows
from gnnsys.ingestion.values import as_array, native
from gnnsys.storage.files import raw_bytes

MakeBlocks = Callable[[], Iterable[Any]]
"""Called more than once; yields arrays or tensors (n, F), n of any size, the same rows every time."""


class Blocks:
    """The blocks of `make` as rows to be read front to back.

    They are gone through once at first, for shape, type and digest; going back later starts again. What is read to
    the end is compared with that digest.

    Raises:
        InputDataError: `make` yields nothing, or blocks that do not fit together.
    """

    _blocks: Iterator[np.ndarray]
    _block: np.ndarray
    _hash: xxhash.xxh3_128

    def __init__(self, make: MakeBlocks, name: str) -> None:
        self._make, self._name = make, name
        self._columns, self._dtype, self._num_rows = -1, np.dtype(np.void), 0
        self._restart()
        for block in self._blocks:
            self._num_rows += len(block)
        if self._columns < 0:
            raise InputDataError("GS-IN-170", f"{name}: the function yields no block")
        self._digest = self._hash.hexdigest()
        self._restart()

    def rows(self) -> Rows:
        return Rows(self._num_rows, self._columns, self._dtype, self._read, sequential=True)

    def fingerprint(self) -> list[Any]:
        return [self._dtype.str, [self._num_rows, self._columns], f"xxh3-128:{self._digest}"]

    def _read(self, start: int, stop: int) -> np.ndarray:
        if start < self._at:
            self._restart()
        out = np.empty((stop - start, self._columns), dtype=self._dtype)
        while self._at < stop:
            if not len(self._block):
                self._block = self._next()
            taken = self._block[: (start if self._at < start else stop) - self._at]
            if self._at >= start:
                out[self._at - start : self._at - start + len(taken)] = taken
            self._at += len(taken)
            self._block = self._block[len(taken) :]
        if stop == self._num_rows and (next(self._blocks, None) is not None or self._hash.hexdigest() != self._digest):
            raise self._changed()
        return out

    def _next(self) -> np.ndarray:
        block = next(self._blocks, None)
        if block is None:
            raise self._changed()
        return block

    def _restart(self) -> None:
        self._at, self._block = 0, np.empty((0, 0))
        self._hash = xxhash.xxh3_128()
        self._blocks = self._checked()

    def _checked(self) -> Iterator[np.ndarray]:
        """The blocks that are not empty, hashed."""
        made = self._make()
        if not isinstance(made, Iterable):
            raise InputDataError(
                "GS-IN-170", f"{self._name}: the function gives a {type(made).__name__}, expected blocks (n, F)"
            )
        for block in (native(as_array(given)) for given in made):
            if self._columns < 0 and block.ndim == 2:
                self._columns, self._dtype = block.shape[1], block.dtype
            if block.ndim != 2 or block.shape[1] != self._columns or block.dtype != self._dtype:
                raise InputDataError(
                    "GS-IN-170",
                    f"{self._name}: block of {block.dtype} {block.shape}, expected {self._expected}",
                )
            if len(block):
                self._hash.update(raw_bytes(block))
                yield block

    @property
    def _expected(self) -> str:
        return f"{self._dtype} (n, {self._columns})" if self._columns >= 0 else "(n, F)"

    def _changed(self) -> InputDataError:
        return InputDataError(
            "GS-IN-171",
            f"{self._name}: the function yields other rows when it is called again",
            hint="It must make the same blocks every time: no random numbers without a seed, no iterator made outside.",
        )
