"""The memory budget: shares reserved before they are allocated, and growth measured the way the promise is worded.

The promise (`--memory`) covers anonymous + shared + swapped memory of the process and its children, minus the same
after warm-up. Read-only maps are evictable and do not count.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from gnnsys.errors import MemoryBudgetError
from gnnsys.units import format_size, size_at_least

DEFAULT_MEMORY = 4 << 30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_COUNTED = ("RssAnon:", "RssShmem:", "VmSwap:")


class Budget:
    """Who holds how much of `total` bytes.

    `reserve` raises before anything is allocated; the error lists every share.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.shares: dict[str, int] = {}

    @property
    def left(self) -> int:
        return self.total - sum(self.shares.values())

    def reserve(self, num_bytes: int, what: str) -> None:
        """Take `num_bytes` for `what`; a second reservation under one name replaces the first.

        Raises:
            MemoryBudgetError: less than that is left.
        """
        if num_bytes > self.left + self.shares.get(what, 0):
            raise self.refusal("GS-MEM-002", what, num_bytes, ", or smaller batches")
        self.shares[what] = num_bytes

    def refusal(self, code: str, what: str, num_bytes: int, otherwise: str = "") -> MemoryBudgetError:
        """The error to raise when `what` does not fit into what the others leave.

        Args:
            otherwise: what would help besides more memory.
        """
        others = {name: size for name, size in self.shares.items() if name != what}
        left = self.total - sum(others.values())
        held = "".join(f", {name} {format_size(size)}" for name, size in others.items())
        return MemoryBudgetError(
            code,
            f"{what} needs {format_size(num_bytes)}, {format_size(left)} are left of "
            f"--memory {format_size(self.total)}{held}",
            hint=f"At least --memory {size_at_least(self.total + num_bytes - left)} is needed{otherwise}.",
        )

    def fork(self) -> Budget:
        """A budget with the same shares; what is reserved in it is not reserved here."""
        twin = Budget(self.total)
        twin.shares = dict(self.shares)
        return twin

    @contextmanager
    def holding(self, num_bytes: int, what: str) -> Iterator[None]:
        """Reserve for the length of a `with` block."""
        self.reserve(num_bytes, what)
        try:
            yield
        finally:
            del self.shares[what]


def counted_bytes(pid: int | str = "self") -> int:
    """Anonymous + shared + swapped bytes of one process; 0 where the system does not tell."""
    return _status_bytes(_COUNTED, pid)


def peak_growth(work: Callable[[], object], interval_s: float = 0.001) -> int:
    """Bytes by which this process grows at most while `work` runs, never less than it does.

    A meter that samples misses peaks whenever its thread waits for a core, so the kernel's own mark of resident memory
    is reset before and read after. That one counts pages of files too, code that runs for the first time among them.
    Where the mark cannot be reset the samples have to do.
    """
    resident = _status_bytes(("VmRSS:",))
    marked = _reset_high_water()
    with GrowthMeter(interval_s) as meter:
        work()
        sampled = meter.peak_growth
    return max(sampled, _status_bytes(("VmHWM:",)) - resident) if marked else sampled


def _reset_high_water() -> bool:
    """Set the kernel's mark of the most resident memory to what is resident now; says whether it could."""
    try:
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(fd, b"5")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _status_bytes(fields: tuple[str, ...], pid: int | str = "self") -> int:
    """Sum of some lines of a process's status; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(fields))


def give_back_freed_blocks() -> None:
    """From now on blocks of 1 MiB and more go back to the system the moment they are freed.

    glibc by itself raises that size to 32 MiB as it goes and keeps what is freed, which counts as growth: an epoch
    inside 64 MiB then grows by 73 to 94 MiB instead of 55. Does nothing where the C library has no such knob.
    """
    _tune(_M_MMAP_THRESHOLD, 1 << 20)
    _tune(_M_TRIM_THRESHOLD, 128 << 10)  # as it is by default: of smaller blocks those at the end of the heap


def keep_freed_blocks() -> None:
    """From now on freed blocks stay with the process and are used again: undoes `give_back_freed_blocks`.

    A page given back must be cleared by the kernel when it is wanted again. Reusing it took a step of 16 GCNII layers
    over 10,000 nodes from 0.66 to 0.37 s (2 cores), at the price of gaps that count as growth.
    """
    if not _tune(_M_MMAP_THRESHOLD, 1 << 30):
        _tune(_M_MMAP_THRESHOLD, 32 << 20)  # the most that older versions of glibc take
    _tune(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _tune(parameter: int, value: int) -> bool:
    """Turn a knob of glibc's allocator; says whether it moved."""
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(parameter, value)) if hasattr(libc, "mallopt") else False


class GrowthMeter:
    """Samples `counted_bytes` of this process in a thread; `peak_growth` is the highest value over the first,
    `recent_growth` the highest since it was asked for last."""

    def __init__(self, interval_s: float = 0.01) -> None:
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gnnsys-growth", daemon=True)
        self.baseline = counted_bytes()
        self._peak = self._recent = self.baseline

    def recent_growth(self) -> int:
        recent, self._recent = max(self._recent, counted_bytes()), 0
        return recent - self.baseline

    @property
    def peak_growth(self) -> int:
        self._peak = max(self._peak, counted_bytes())
        return self._peak - self.baseline

    def leave_out(self, work: Callable[[], object]) -> None:
        """Run `work`; what it leaves behind is no growth, such as code that is loaded when it first runs."""
        before = counted_bytes()
        work()
        self.baseline += max(0, counted_bytes() - before)

    def __enter__(self) -> GrowthMeter:
        self.baseline = self._peak = self._recent = counted_bytes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            counted = counted_bytes()
            self._peak, self._recent = max(self._peak, counted), max(self._recent, counted)
