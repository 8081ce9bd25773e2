"""A system call that fails at any one place of ingest ends in one clear line, and repeating ends in the same bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import gnnsys as gs
from gnnsys import failpoints
from gnnsys.cli.inspect import problems_of
from gnnsys.errors import DiskSpaceError, GnnsysError
from gnnsys.storage.files import atomic_write
from tests.programme import record

SOURCE = "synthetic:powerlaw:nodes=300,edges=1500,feat=4,classes=3,train=0.2,seed=3"
FAULTS = ("ENOSPC", "EDQUOT", "EIO", "EINTR", "EMFILE", "EACCES")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def _fails(out: Path, rules: str) -> bool:
    """Ingest with something failing; says whether it noticed, and lets only clean errors pass."""
    failpoints.arm(rules)
    try:
        gs.ingest(SOURCE, out=out)
    except GnnsysError:
        return True
    except OSError as error:
        assert "failpoint" in str(error)  # the command line makes `explained` of it
        return True
    finally:
        failpoints.arm("")
    return False


def test_every_place_of_ingest_may_fail_once(tmp_path: Path) -> None:
    golden = gs.ingest(SOURCE, out=tmp_path / "golden").manifest.digest
    places = 0
    while _fails(tmp_path / f"probe-{places}", f"*=kill@{10**9},*=raise:EIO@{places + 1}"):
        places += 1
    points = [(fault, n) for fault in FAULTS for n in range(1, places + 1)]
    wanted = min(int(os.environ.get("FAULTS", "40")), len(points))
    for fault, n in random.Random(0).sample(points, wanted):
        out = tmp_path / f"{fault}-{n}"
        _fails(out, f"*=raise:{fault}@{n}")
        assert gs.ingest(SOURCE, out=out).manifest.digest == golden, (fault, n)
        assert problems_of(out, deep=True) == []
        assert [p for p in out.rglob("*") if ".tmp." in p.name or p.name == ".work"] == [], (fault, n)
    record("faults", {"points": wanted, "violations": 0})


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
