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
from tests.crash.small import VERBS, assert_whole, count_places, fork, wait_for
from tests.programme import record


def _run(rules: str, verb: str, world: Path, out: Path) -> None:
    failpoints.arm(rules)
    VERBS[verb][0](world, out)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_chains_of_kills_at_any_place_end_in_the_same_bytes(
    verb: str, world: Path, tmp_path: Path, one_thread: None
) -> None:
    golden, rng = VERBS[verb][0](world, tmp_path / "golden"), random.Random(verb)
    places, kills, chains = count_places(verb, world, tmp_path / "counted"), 0, 0
    wanted = int(os.environ.get("KILLS", VERBS[verb][1]))
    while kills < wanted:
        out = tmp_path / str(chains)
        done = [
            f"*={rng.choice(['kill', f'torn:{rng.randrange(200)}'])}@{rng.randrange(1, places + 1)}"
            for _ in range(rng.randrange(1, 4))
        ]
        for rules in done:
            status = wait_for(fork(partial(_run, rules, verb, world, out)))
            assert status in (-signal.SIGKILL, 0), (done, rules, status)
            kills += status != 0
        assert_whole(verb, world, out, golden, done)
        chains += 1
    record("kills", {"kills": kills, f"kills of {verb}": kills, "violations": 0})
