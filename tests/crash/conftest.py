"""Uninterrupted runs of every verb, large ones in processes and small ones here, shared by all crash tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.crash.small import VERBS
from tests.crash.verbs import FOLD, INGEST, PACK, TRAIN, Golden, finish, start


@pytest.fixture(scope="package")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    folder = tmp_path_factory.mktemp("golden")
    made = Golden(folder, {}, {})
    for verb in (INGEST, PACK, FOLD, TRAIN):
        begun = time.monotonic()
        made.results[verb.name] = finish(start(verb, folder, folder))
        made.seconds[verb.name] = time.monotonic() - begun
    return made


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each of the small verbs starts from."""
    folder = tmp_path_factory.mktemp("world")
    for verb, made in (("ingest", "store"), ("pack", "pack"), ("train", "run")):
        VERBS[verb][0](folder, folder / made)
    return folder
