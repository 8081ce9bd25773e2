"""Training for long: killed every so often and resumed it ends in the weights of a run that nobody touched, which grows
by no memory and no open files. `make soak MINUTES=30`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.crash.verbs import TRAIN, Golden, Verb, finish, start
from tests.programme import record

MINUTES = float(os.environ.get("MINUTES", "0"))
_LONGEST_S = 3600 + 180 * MINUTES
MOST_GROWTH = 1.0
"""MiB a minute."""


def _for_minutes(golden: Golden) -> Verb:
    """Training of about MINUTES."""
    epochs = max(20, int(60 * MINUTES / golden.results["train"]["epoch_s"][-1]))
    options = list(TRAIN.arguments)
    options[options.index("--epochs") + 1] = str(epochs)
    options[options.index("--checkpoint-steps") + 1] = "100"
    return replace(TRAIN, arguments=tuple(options))


@pytest.mark.skipif(MINUTES == 0, reason="make soak MINUTES=30")
@pytest.mark.timeout(2 * _LONGEST_S)
def test_killed_training_equals_training_left_alone_which_does_not_grow(golden: Golden, tmp_path: Path) -> None:
    verb, rng, kills = _for_minutes(golden), random.Random(0), 0
    alone = start(verb, golden.folder, tmp_path / "alone")
    watched, samples = psutil.Process(alone.pid), []
    killed, due = start(verb, golden.folder, tmp_path / "killed"), _later(rng)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(finish, alone, _LONGEST_S)
        while not done.done():
            time.sleep(1)
            with suppress(psutil.Error):
                samples.append((time.monotonic() / 60, watched.memory_info().rss / 2**20, watched.num_fds()))
            if killed.poll() is None and time.monotonic() > due:
                os.killpg(killed.pid, signal.SIGKILL)
                killed.communicate()
                kills += 1
                killed, due = start(verb, golden.folder, tmp_path / "killed"), _later(rng)
    expected, found = done.result(), finish(killed, _LONGEST_S)
    assert {key: found[key] for key in TRAIN.lasting} == {key: expected[key] for key in TRAIN.lasting}
    minutes, memory, files = np.array(samples[len(samples) // 3 : -5]).T
    slope = float(np.polyfit(minutes, memory, 1)[0])
    assert slope < MOST_GROWTH, samples
    assert np.median(files[-30:]) <= np.median(files[:30]), samples
    record(
        "soak",
        {
            "minutes": round(MINUTES),
            "kills": kills,
            "KiB grown": max(0, round(slope * MINUTES * 1024)),
            "violations": 0,
        },
    )


def _later(rng: random.Random) -> float:
    return time.monotonic() + rng.uniform(20, 60)
