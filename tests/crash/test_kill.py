"""Real kill -9 at random moments of ingest, pack and train: nothing finished is lost, the end is the same bytes."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs
from gnnsys.cli.inspect import problems_of
from gnnsys.errors import InputDataError, InterruptedWorkError
from tests.crash.verbs import FOLD, INGEST, PACK, TRAIN, Golden, Verb, finish, killed_within, start
from tests.programme import record

OPEN = {"store": gs.Store.open, "pack": gs.Pack.open, "folded": gs.Pack.open, "run": gs.Run.open}


def _kill_and_repeat(verb: Verb, golden: Golden, out: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Start `verb` again and again until `kills` of its processes were killed, then let it end.

    One that ends first was faster than its kill: the work begins anew in another folder, so that every kill counts.
    """
    killed, finished = 0, 0
    while killed < kills:
        child = start(verb, golden.folder, out / str(finished))
        died = killed_within(child, rng.uniform(0.2, 1.0) * golden.seconds[verb.name])
        _assert_readable_or_refused(verb, out / str(finished))
        killed, finished = killed + died, finished + (not died)
    return finish(start(verb, golden.folder, out / str(finished)))


def _assert_readable_or_refused(verb: Verb, out: Path) -> None:
    """A reader that comes after a kill finds all of an artefact or is told that there is none yet."""
    try:
        OPEN[verb.made](out / verb.made)
    except (InputDataError, InterruptedWorkError):
        return
    assert problems_of(out / verb.made, deep=True) == []


def _litter(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if ".tmp" in p.name or p.name == ".work"]


def _check(verb: Verb, golden: Golden, tmp_path: Path, kills: int, seed: int) -> None:
    result = _kill_and_repeat(verb, golden, tmp_path, kills, random.Random(seed))
    expected = golden.results[verb.name]
    assert {key: result[key] for key in verb.lasting} == {key: expected[key] for key in verb.lasting}
    assert _litter(tmp_path) == []
    for made in tmp_path.glob(f"*/{verb.made}"):
        assert problems_of(made, deep=True) == []
    record("kills", {"kills": kills, f"kills of {verb.name}": kills, "violations": 0})


@pytest.mark.parametrize("verb", [INGEST, PACK, FOLD, TRAIN], ids=lambda v: v.name)
def test_two_kills_leave_the_same_result(verb: Verb, golden: Golden, tmp_path: Path) -> None:
    _check(verb, golden, tmp_path, kills=2, seed=1)


def test_a_kill_inside_an_epoch_resumes_inside_it(golden: Golden, tmp_path: Path) -> None:
    child = start(TRAIN, golden.folder, tmp_path)
    while not (tmp_path / "run/checkpoints/latest").exists():
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    result, expected = finish(start(TRAIN, golden.folder, tmp_path)), golden.results["train"]
    step, steps_per_epoch = int(result["resumed_from"].removeprefix("ckpt-")), expected["steps"] // expected["epochs"]
    assert step % steps_per_epoch > 0
    assert {key: result[key] for key in TRAIN.lasting} == {key: expected[key] for key in TRAIN.lasting}


@pytest.mark.crash
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("verb", "kills"), [(INGEST, 2), (PACK, 3), (FOLD, 3), (TRAIN, 4)], ids=lambda v: getattr(v, "name", "")
)
def test_chains_of_kills_leave_the_same_result(
    verb: Verb, kills: int, seed: int, golden: Golden, tmp_path: Path
) -> None:
    _check(verb, golden, tmp_path, kills, seed=100 + seed)
