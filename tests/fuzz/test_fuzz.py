"""Damaged inputs of every parser end in one clear error: nothing but GnnsysError gets out, no memory is lost to claims.

`make fuzz RUNS=100000` runs so many in all. Bytes that were once a finding lie in corpus/<target>/ and are run
every time.
"""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pytest

from gnnsys.errors import GnnsysError
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, make_room
from tests.programme import record

RUNS = int(os.environ.get("RUNS", "3000"))
SEED = int(os.environ.get("SEED", "0"))
CORPUS = Path(__file__).with_name("corpus")
MOST_MEMORY = 512 << 20


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_room(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(autouse=True)
def not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk finds nothing here, and is most of the time."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd: None)


def run(name: str, data: bytes, room: Path) -> bool:
    """Whether the parser accepts `data`."""
    kept = room / f"finding-{name}"
    kept.write_bytes(data)  # before: the parser may take the process with it
    try:
        TARGETS[name].parse(data, room)
    except GnnsysError:
        return False
    except BaseException as error:
        raise AssertionError(f"{name} lets {type(error).__name__} out ({error}); the bytes are in {kept}") from error
    return True


@pytest.mark.timeout(36_000 if RUNS > 10_000 else 600)
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_bytes_end_in_an_error_of_ours(name: str, room: Path) -> None:
    target = TARGETS[name]
    rng, samples = random.Random(f"{name} {SEED}"), target.samples(room / "golden")
    accepted = [run(name, sample, room) for sample in samples]
    assert any(accepted)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    shares = sum(1 / t.weight for t in TARGETS.values())
    runs = int(RUNS / shares / target.weight) + 1
    for _ in range(runs):
        run(name, mutate(rng.choice(samples), rng, samples), room)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < MOST_MEMORY
    record("fuzz", {"executions": runs, f"executions of {name}": runs, "findings": 0})


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_once_a_finding_is_none_now(path: Path, room: Path) -> None:
    run(path.parent.name, path.read_bytes(), room)
