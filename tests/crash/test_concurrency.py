"""Several processes on one folder: of two writers one wins, readers see all of an artefact or none while writers die.

RACES and SECONDS are sizes, `make concurrency RACES=500 SECONDS=300`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import gnnsys as gs
from gnnsys import failpoints
from gnnsys.cli.inspect import problems_of
from gnnsys.errors import InputDataError, InterruptedWorkError, StoreBusyError
from gnnsys.storage.manifest import read_manifest
from tests.crash.small import VERBS, assert_whole, fork, places, wait_for
from tests.programme import record

RACES, SECONDS = int(os.environ.get("RACES", "10")), float(os.environ.get("SECONDS", "3"))
READERS = 8


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("verb", "place"),
    [
        *(("ingest", "lock.taken"), ("sample", "lock.taken"), ("pack", "lock.taken")),
        ("train", "checkpoint.file"),  # it has locks of its warm-up before
    ],
)
def test_of_two_writers_exactly_one_wins(verb: str, place: str, world: Path, tmp_path: Path, one_thread: None) -> None:
    golden = VERBS[verb][0](world, tmp_path / "golden")
    races = max(2, RACES // 4)

    def write(out: Path, hold: int) -> None:
        failpoints.arm(f"{place}=sleep:1@1")
        failpoints.time = SimpleNamespace(sleep=lambda _s: os.read(hold, 1))  # the winner waits for the other
        VERBS[verb][0](world, out)

    for number in range(races):
        out, (hold, release) = tmp_path / str(number), os.pipe()
        children = {fork(partial(write, out, hold)) for _ in range(2)}
        loser, status = os.wait()
        assert os.waitstatus_to_exitcode(status) == StoreBusyError.exit_code, number
        os.write(release, b"!")
        assert [wait_for(winner) for winner in children - {loser}] == [0], number
        os.close(hold), os.close(release)
        assert_whole(verb, world, out, golden, number)
    record("races of two writers", {"races": races, "violations": 0})


def _read_until(stop: float, folder: Path, golden: str, counts: Path) -> None:
    """Open what is newest in `folder` again and again: it is not there yet, or it is whole."""
    whole = 0
    while time.monotonic() < stop:
        for path in sorted(folder.iterdir())[-2:]:
            try:
                assert gs.Pack.open(path).manifest.digest == golden
                assert problems_of(path, deep=True) == []
                whole += 1
            except (InputDataError, InterruptedWorkError):
                continue
    counts.write_text(str(whole))


@pytest.mark.timeout(3600)
def test_readers_see_all_or_nothing_while_writers_die(world: Path, tmp_path: Path, one_thread: None) -> None:
    golden, num_places = VERBS["pack"][0](world, tmp_path / "golden"), len(places("pack", world, tmp_path / "counted"))
    folder, stop, rng, kills = tmp_path / "packs", time.monotonic() + SECONDS, random.Random(0), 0
    folder.mkdir()

    def write(out: Path, place: int) -> None:
        failpoints.arm(f"*=kill@{place}")
        VERBS["pack"][0](world, out)

    readers = [
        fork(partial(_read_until, stop, folder, golden, tmp_path / f"counts-{i}"), SECONDS) for i in range(READERS)
    ]
    for number in range(10**6):
        if time.monotonic() > stop:
            break
        out = folder / f"{number:06d}"
        while (code := wait_for(fork(partial(write, out, rng.randrange(1, 2 * num_places))))) != 0:
            assert code == -signal.SIGKILL
            kills += 1
    assert [wait_for(reader) for reader in readers] == [0] * READERS
    seen = [int((tmp_path / f"counts-{i}").read_text()) for i in range(READERS)]
    whole = sum(seen)
    assert whole > 0
    assert kills > 0
    assert {read_manifest(path, "gnnsys-pack", 1).digest for path in folder.iterdir()} == {golden}
    record(
        "readers beside a dying writer", {"seconds": round(SECONDS), "reads": whole, "kills": kills, "violations": 0}
    )
