"""Real Ctrl-C and SIGTERM in the middle of a verb: one clear line, the right exit code, a command that continues."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.verbs import INGEST, PACK, TRAIN, Golden, Verb, finish, start

BEGUN = {"ingest": "store/.work/journal", "pack": "pack/g000000/pool/.work/journal", "train": "run/checkpoints/latest"}
"""What is there once a verb is in the middle of its work."""


@pytest.fixture
def interrupt(golden: Golden, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a verb, send it signals once its work has begun, and wait for its end."""

    def run(verb: Verb, *signals: int) -> subprocess.Popen[str]:
        child = start(verb, golden.folder, tmp_path, quiet=False)
        while not (tmp_path / BEGUN[verb.name]).exists() and child.poll() is None:
            pass
        for number in signals:
            child.send_signal(number)
        return child

    return run


@pytest.mark.parametrize(
    ("verb", "number"),
    [(INGEST, signal.SIGINT), (PACK, signal.SIGTERM), (TRAIN, signal.SIGINT), (TRAIN, signal.SIGTERM)],
    ids=["ingest-ctrl-c", "pack-sigterm", "train-ctrl-c", "train-sigterm"],
)
def test_a_signal_ends_in_a_line_that_says_how_to_continue(
    verb: Verb, number: int, golden: Golden, tmp_path: Path, interrupt: Callable[..., subprocess.Popen[str]]
) -> None:
    child = interrupt(verb, number)
    _, stderr = child.communicate(timeout=240)
    assert child.returncode == 128 + number, stderr
    assert f"Continue with:\n  gnnsys {verb.name} " in stderr
    assert "Traceback" not in stderr
    result, expected = finish(start(verb, golden.folder, tmp_path)), golden.results[verb.name]
    assert {key: result[key] for key in verb.lasting} == {key: expected[key] for key in verb.lasting}


def test_a_second_ctrl_c_ends_training_at_once(interrupt: Callable[..., subprocess.Popen[str]]) -> None:
    child = interrupt(TRAIN, signal.SIGINT, signal.SIGINT)
    _, stderr = child.communicate(timeout=240)
    assert child.returncode == 128 + signal.SIGINT
    assert "Traceback" not in stderr
