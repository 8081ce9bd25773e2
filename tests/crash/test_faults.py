"""A system call or a reservation of memory that fails at any one place of a verb ends in one clear line; repeating the
command ends in the same bytes. Reads and writes that do less than they were asked change nothing.

FAULTS says how many places are tried per verb, `make faults FAULTS=300`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gnnsys import failpoints
from gnnsys.budget import Budget
from gnnsys.errors import DiskSpaceError, GnnsysError, MemoryBudgetError
from gnnsys.storage.files import atomic_write
from tests.crash.small import VERBS, assert_whole, places
from tests.programme import record

ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EINTR", "EMFILE", "EACCES")
verbs = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture(autouse=True)
def disarmed(one_thread: None) -> Iterator[None]:
    yield
    failpoints.arm("")


def _fails(verb: str, world: Path, out: Path, rules: str) -> bool:
    """Run a verb with something failing; says whether it noticed, and lets only clean errors pass."""
    failpoints.arm(rules)
    try:
        VERBS[verb][0](world, out)
    except GnnsysError:
        return True
    except OSError as error:
        assert "failpoint" in str(error)  # the command line makes `explained` of it
        return True
    finally:
        failpoints.arm("")
    return False


def _tried(verb: str, points: list[Any]) -> list[Any]:
    wanted = int(os.environ.get("FAULTS", VERBS[verb][1]))
    return random.Random(0).sample(points, min(wanted, len(points)))


@pytest.mark.timeout(3600)
@verbs
def test_every_place_may_fail_once(verb: str, world: Path, tmp_path: Path) -> None:
    golden = VERBS[verb][0](world, tmp_path / "golden")
    num_places = len(places(verb, world, tmp_path / "counted"))
    tried = _tried(verb, [(error, n) for error in ERRORS for n in range(1, num_places + 1)])
    for error, n in tried:
        out = tmp_path / f"{error}-{n}"
        _fails(verb, world, out, f"*=raise:{error}@{n}")
        assert_whole(verb, world, out, golden, (error, n))
    record("faults", {"points": len(tried), f"points of {verb}": len(tried), "violations": 0})


@contextmanager
def _no_memory(nth: int) -> Iterator[Callable[[], int]]:
    """The n-th reservation is refused; gives how many there were."""
    numbers, reserve = count(1), Budget.reserve

    def refuse(self: Budget, num_bytes: int, what: str) -> None:
        if next(numbers) == nth:
            raise MemoryBudgetError("GS-MEM-002", f"{what} does not fit")
        reserve(self, num_bytes, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Budget, "reserve", refuse)
        yield lambda: next(numbers) - 1


@pytest.mark.timeout(3600)
@verbs
def test_every_reservation_may_be_refused(verb: str, world: Path, tmp_path: Path) -> None:
    golden = VERBS[verb][0](world, tmp_path / "golden")
    with _no_memory(0) as seen:
        VERBS[verb][0](world, tmp_path / "counted")
    tried = _tried(verb, list(range(1, seen() + 1)))
    for n in tried:
        with _no_memory(n), pytest.raises(MemoryBudgetError):
            VERBS[verb][0](world, tmp_path / str(n))
        assert_whole(verb, world, tmp_path / str(n), golden, n)
    record("faults", {"points": len(tried), f"points of {verb}": len(tried), "violations": 0})


@verbs
def test_short_reads_and_writes_change_nothing(
    verb: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = VERBS[verb][0](world, tmp_path / "golden")
    pwrite, preadv, calls = os.pwrite, os.preadv, count()

    def fewer(view: Any) -> Any:
        """A part, of whole pages where it may be direct, of what was asked for."""
        next(calls)
        size = memoryview(view).nbytes
        return view[: max(size // 2 // 4096 * 4096, min(size, 4096))] if size > 1 else view

    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: pwrite(fd, fewer(view), at))
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: preadv(fd, [fewer(views[0])], at))
    assert VERBS[verb][0](world, tmp_path / "short") == golden
    made = next(calls)
    assert made > 10
    record("short reads and writes", {"operations": made, "violations": 0})


def test_a_full_disk_under_a_small_file_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    failpoints.arm("file.sync=raise:ENOSPC@1")
    with pytest.raises(DiskSpaceError, match="GS-DISK-002"):
        atomic_write(path, b"new")
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (b"old", 1)


@pytest.mark.parametrize(
    ("name", "code"), [("EMFILE", "GS-DISK-310"), ("EACCES", "GS-DISK-311"), ("EIO", "GS-DISK-312")]
)
def test_what_the_system_refuses_has_a_code(name: str, code: str, tmp_path: Path) -> None:
    failpoints.arm(f"file.create=raise:{name}")
    with pytest.raises(GnnsysError, match=code):
        atomic_write(tmp_path / "file", b"new")
