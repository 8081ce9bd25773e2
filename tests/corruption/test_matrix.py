"""Every way to damage every file of a Store, Pool, Pack or Run is found, the file named, and no reader hangs or dies.

Not covered, because nothing that is computed depends on their bytes: `provenance.json`, `hint.json` (the Store's id
decides), `events.jsonl`, `config.toml` (the user's to edit), `latest` (any checkpoint that it can name is whole) and
`.lock`. GNNSYS_FLIPS says how many bits are flipped in all (make corruption).
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gnnsys.errors import GnnsysError
from tests.golden import KINDS, all_problems, make_golden, read_everything
from tests.programme import record

UNCOVERED = {"provenance.json", "hint.json", "events.jsonl", "config.toml", "latest", ".lock"}
FLIPS = int(os.environ.get("GNNSYS_FLIPS", "60"))


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    make_golden(folder / "one")
    make_golden(folder / "other", seed=1)
    return folder


@pytest.fixture
def world(golden: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(golden / "one", tmp_path / "one"))


def covered(folder: Path) -> list[Path]:
    """Files of an artefact whose every byte counts."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in UNCOVERED and p.stat().st_size)


def found_by(kind: str, path: Path, file: Path) -> set[str]:
    """Who of reader, `verify` and `verify --deep` says that something is wrong with `file` or the folder it is in."""
    found = set()
    try:
        read_everything(kind, path)
    except GnnsysError as error:
        found.add("read")
        assert names(error.message, file), error.message
    for what, deep in (("verify", False), ("deep", True)):
        try:
            problems = all_problems(path, deep)
        except GnnsysError as error:
            problems = [error.message]
        if problems:
            found.add(what)
            assert any(names(problem, file) for problem in problems), (file, problems)
    return found


def names(message: str, file: Path) -> bool:
    """The message has the file or the folder that it lies in or is part of."""
    return file.name in message or any(str(parent) in message for parent in list(file.parents)[:4])


def check(kind: str, world: Path, file: Path, what: str, counts: Counter[str]) -> None:
    found = found_by(kind, world / kind, file)
    counts[what] += 1
    counts[f"{what} found"] += bool(found)
    for who in found:
        counts[f"{what} found by {who}"] += 1
    assert found, f"{what} of {file.relative_to(world)} was not found"
    assert "deep" in found, f"{what} of {file.relative_to(world)} was not found by verify --deep but by {found}"


def flips(rng: random.Random, data: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        at, changed = rng.randrange(len(data)), bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        yield bytes(changed)


def sizes(size: int, count: int) -> list[int]:
    """Up to `count` lengths shorter than `size`, none and one byte less among them."""
    return sorted({size * i // count for i in range(count)} | {size - 1})


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found(kind: str, world: Path) -> None:
    rng, counts, files = random.Random(kind), Counter[str](), covered(world / kind)
    for file in files:
        data = file.read_bytes()
        for changed in flips(rng, data, -(-FLIPS // (len(KINDS) * len(files)))):
            file.write_bytes(changed)
            check(kind, world, file, "bit flips", counts)
        file.write_bytes(data)
    record("corruption", counts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_or_longer_or_in_disorder_is_found(kind: str, world: Path) -> None:
    counts = Counter[str]()
    for file in covered(world / kind):
        data = file.read_bytes()
        for size in sizes(len(data.rstrip(b"\n") if file.suffix == ".json" else data), 20 if FLIPS >= 2000 else 3):
            file.write_bytes(data[:size])
            check(kind, world, file, "truncations", counts)
        file.write_bytes(data + b"\0")
        check(kind, world, file, "appended bytes", counts)
        middle = len(data) // 2
        if (swapped := data[middle:] + data[:middle]) != data:
            file.write_bytes(swapped)
            check(kind, world, file, "swapped blocks", counts)
        file.write_bytes(data)
    record("corruption", counts)


@pytest.mark.parametrize("kind", KINDS)
def test_another_file_in_its_place_is_found(kind: str, world: Path, golden: Path) -> None:
    counts, files = Counter[str](), covered(world / kind)
    for file, neighbour in pairwise(files):
        data, foreign = file.read_bytes(), golden / "other" / file.relative_to(world)
        other = neighbour.read_bytes()
        if data != other:
            file.write_bytes(other)
            neighbour.write_bytes(data)
            check(kind, world, file, "swapped files", counts)
            neighbour.write_bytes(other)
        # a manifest, plan or result of another artefact is whole in itself: what it is of must differ
        if file.suffix != ".json" and foreign.exists() and foreign.read_bytes() != data:
            file.write_bytes(foreign.read_bytes())
            check(kind, world, file, "foreign files", counts)
        file.write_bytes(data)
    record("corruption", counts)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_found_without_waiting(kind: str, world: Path) -> None:
    counts, roots = Counter[str](), {world / kind, *(world / kind).glob("added/*")}
    for file in covered(world / kind):
        if file.name in ("config.json", "manifest.json") and file.parent in roots:
            continue  # without it the folder is no artefact, which is another answer
        kept = file.rename(world / "kept")
        for what, place in (("deleted", None), ("symlinks", _link), ("folders", Path.mkdir), ("pipes", os.mkfifo)):
            if place is not None:
                place(file)
            if not (what == "deleted" and file.name == "result.json"):  # then it is a run that goes on
                check(kind, world, file, what, counts)
            if place is not None:
                file.rmdir() if what == "folders" else file.unlink()
        kept.rename(file)
    record("corruption", counts)


def _link(file: Path) -> None:
    """A link to the very bytes that were there."""
    root = next(parent for parent in file.parents if (parent / "kept").exists())
    file.symlink_to(root / "kept")
