"""Every verb in turn, each killed one to three times at random moments and repeated: in the end all is as if none were.

KILLS=100 (make crash KILLS=100) makes five such chains, about sixty kills.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from gnnsys.cli.inspect import problems_of
from gnnsys.storage.checksums import digest_file
from tests.crash.verbs import (
    ADD,
    EVALUATE,
    INGEST,
    PACK_POOL,
    PREDICT,
    SAMPLE,
    TRAIN,
    Golden,
    finish,
    killed_within,
    start,
)
from tests.programme import record

CHAIN = (INGEST, SAMPLE, PACK_POOL, TRAIN, EVALUATE, PREDICT, ADD)
CHAINS = max(1, int(os.environ.get("KILLS", "20")) // 20)


MINE = "\n".join(map(str, range(0, 60_000, 7)))
"""The split that is added: ids of a text."""


@pytest.fixture(scope="module")
def whole(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """With the verbs that no other test needs, of which `add` has a Store of its own."""
    made = Golden(tmp_path_factory.mktemp("whole"), dict(golden.results), dict(golden.seconds))
    shutil.copytree(golden.folder / "store", made.folder / "store")
    (made.folder / "mine.txt").write_text(MINE)
    for verb in (SAMPLE, EVALUATE, PREDICT, ADD):
        begun = time.monotonic()
        made.results[verb.name] = finish(start(verb, golden.folder, made.folder))
        made.seconds[verb.name] = time.monotonic() - begun
    return made


@pytest.mark.crash
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(CHAINS))
def test_a_chain_of_killed_verbs_ends_in_the_same_bytes(seed: int, whole: Golden, tmp_path: Path) -> None:
    rng, kills = random.Random(seed), 0
    (tmp_path / "mine.txt").write_text(MINE)
    for verb in CHAIN:
        for _ in range(rng.randrange(1, 4)):
            child = start(verb, tmp_path, tmp_path)
            kills += killed_within(child, rng.uniform(0.3, 1.0) * whole.seconds[verb.name])
        result, expected = finish(start(verb, tmp_path, tmp_path)), whole.results[verb.name]
        assert {key: result[key] for key in verb.lasting} == {key: expected[key] for key in verb.lasting}
        assert problems_of(tmp_path / verb.made, deep=True) == []
    for made in ("preds.csv", "store/added/split-mine/splits/mine.bin"):
        assert digest_file(tmp_path / made) == digest_file(whole.folder / made)
    assert [p for p in tmp_path.rglob("*") if ".tmp" in p.name or p.name == ".work"] == []
    record("kills", {"kills": kills, "kills in chains of all verbs": kills, "violations": 0})
