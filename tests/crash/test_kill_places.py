"""kill -9 at any place where files change, half-written lines included: nothing is lost, the end is the same bytes.

Each attempt is a forked process that dies at its n-th failpoint. KILLS says how many per verb, `make crash KILLS=100`.
"""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from gnnsys import failpoints
from tests.crash.small import VERBS, assert_whole, fork, places, wait_for
from tests.programme import record

KILLS = int(os.environ.get("KILLS", "0"))


def _run(rules: str, verb: str, world: Path, out: Path) -> None:
    failpoints.arm(rules)
    VERBS[verb][0](world, out)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_chains_of_kills_at_any_place_end_in_the_same_bytes(
    verb: str, world: Path, tmp_path: Path, one_thread: None
) -> None:
    golden, rng = VERBS[verb][0](world, tmp_path / "golden"), random.Random(verb)
    num_places, kills, chains = len(places(verb, world, tmp_path / "counted")), 0, 0
    wanted = KILLS or VERBS[verb][1]
    while kills < wanted:
        out = tmp_path / str(chains)
        done = [
            f"*={rng.choice(['kill', f'torn:{rng.randrange(200)}'])}@{rng.randrange(1, num_places + 1)}"
            for _ in range(rng.randrange(1, 4))
        ]
        for rules in done:
            status = wait_for(fork(partial(_run, rules, verb, world, out)))
            assert status in (-signal.SIGKILL, 0), (done, rules, status)
            kills += status != 0
        assert_whole(verb, world, out, golden, done)
        chains += 1
    record("kills", {"kills": kills, f"kills of {verb}": kills, "violations": 0})


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_a_kill_at_every_failpoint_that_a_verb_passes(verb: str, world: Path, tmp_path: Path, one_thread: None) -> None:
    golden = VERBS[verb][0](world, tmp_path / "golden")
    names = sorted(set(places(verb, world, tmp_path / "counted")))
    tried = names if KILLS >= 20 else random.Random(0).sample(names, min(len(names), VERBS[verb][1]))
    for name in tried:
        assert wait_for(fork(partial(_run, f"{name}=kill@1", verb, world, tmp_path / name))) == -signal.SIGKILL, name
        assert_whole(verb, world, tmp_path / name, golden, name)
    record("failpoints", {"killed at": len(tried), "not reached": len(names) - len(tried)})
    record("kills", {"kills": len(tried), f"kills of {verb}": len(tried), "violations": 0})
