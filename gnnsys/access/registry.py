"""Page-lock memory where it is, so that a GPU may read it: a copy by `pin_memory` would take the table twice."""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import Any

import torch
from torch import Tensor

PORTABLE_MAPPED = 1 | 2
"""cudaHostRegisterPortable | cudaHostRegisterMapped."""
_OUT_OF_MEMORY = 2


class HostRegistry:
    """Which ranges of host memory are registered with CUDA, each once however many ask for it.

    Args:
        cudart: has `cudaHostRegister(address, size, flags)` and `cudaHostUnregister(address)`, 0 for success; that of
            torch when None.
    """

    def __init__(self, cudart: Any = None) -> None:
        self._cudart = cudart
        self._lock = threading.Lock()
        self._users: dict[tuple[int, int], int] = {}
        self._owners: dict[tuple[int, int], Tensor] = {}
        self._warned = False

    def register(self, table: Tensor) -> bool:
        """Make `table` readable by GPUs; False where that is not possible (a warning says why, once).

        The table is kept alive until it was unregistered as often.
        """
        key = _range(table)
        with self._lock:
            if key in self._users:
                self._users[key] += 1
                return True
            if table.is_pinned() or not key[1]:  # nothing to do, now and when it is let go
                self._users[key] = 1
                return True
            problem = self._tried(*key)
            if problem:
                self._warn(problem, key[1])
                return False
            self._users[key], self._owners[key] = 1, table
            return True

    def unregister(self, table: Tensor) -> None:
        """Undo one `register` that succeeded."""
        key = _range(table)
        with self._lock:
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key]
                if self._owners.pop(key, None) is not None:
                    self._runtime().cudaHostUnregister(key[0])

    @property
    def num_bytes(self) -> int:
        """Registered now."""
        return sum(size for _, size in self._owners)

    def _tried(self, address: int, size: int) -> str:
        """Register; returns what is wrong."""
        try:
            code = int(self._runtime().cudaHostRegister(address, size, PORTABLE_MAPPED))
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises either
            return str(error).splitlines()[0]
        if code:
            self._forget_error()
        reason = "; the limit of locked memory is ulimit -l" if code == _OUT_OF_MEMORY else ""
        return f"cudaHostRegister gives error {code}{reason}" if code else ""

    def _forget_error(self) -> None:
        """CUDA keeps the code of a failed call and would blame the next launch for it: let one of ours be blamed."""
        if self._cudart is None:
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device="cuda")

    def _runtime(self) -> Any:
        return self._cudart if self._cudart is not None else torch.cuda.cudart()

    def _warn(self, problem: str, size: int) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"GS-CFG-822: {size:,} bytes cannot be page-locked ({problem}): rows are copied through a buffer",
                RuntimeWarning,
                stacklevel=3,
            )


def _range(table: Tensor) -> tuple[int, int]:
    """All that the table is a view of, so that views share one range."""
    storage = table.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


REGISTRY = HostRegistry()
"""Of this process."""
