"""One uninterrupted run of every verb, shared by all crash tests."""

from __future__ import annotations

import time

import pytest

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
