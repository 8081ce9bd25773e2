"""Manifests: equal in, equal out; any flipped bit, foreign folder or newer version is refused by name."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnsys.errors import CorruptStoreError, GnnsysError, InputDataError, InterruptedWorkError, VersionError
from gnnsys.storage.manifest import (
    NAME,
    FileEntry,
    Manifest,
    artefact_id,
    canonical_json,
    dtype_name,
    numpy_dtype,
    read_manifest,
    write_manifest,
)

ENTRY = FileEntry(path="tables/x.bin", size=24, dtype="F32", shape=(2, 3), role="table", digest="xxh3-128:00")
MANIFEST = Manifest(
    format="gnnsys-store",
    version=1,
    id="xxh3-128:ab",
    inputs={"edges": "xxh3-128:cd"},
    parameters={"undirected": True, "note": "é"},
    counts={"nodes": 2},
    files=(ENTRY,),
)


def _read(folder: Path) -> Manifest:
    return read_manifest(folder, "gnnsys-store", 1)


def _forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A manifest whose own digest is right but whose content was changed by someone who knows how."""
    document = {**asdict(MANIFEST), "files": [asdict(ENTRY)]}
    change(document)
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    (folder / NAME).write_bytes(json.dumps({**document, "digest": f"sha256:{digest}"}).encode())


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert _read(tmp_path) == MANIFEST


def test_the_digest_covers_every_field(tmp_path: Path) -> None:
    others = [
        replace(MANIFEST, id="other"),
        replace(MANIFEST, counts={"nodes": 3}),
        replace(MANIFEST, files=(replace(ENTRY, digest="xxh3-128:01"),)),
        replace(MANIFEST, parameters={}),
    ]
    assert len({m.digest for m in [MANIFEST, *others]}) == 5


def test_the_written_bytes_are_pinned(tmp_path: Path) -> None:
    small = Manifest(format="f", version=1, id="i", inputs={}, parameters={"b": 1, "a": [2]})
    write_manifest(tmp_path, small)
    expected = (
        b'{"counts":{},"digest":"' + small.digest.encode() + b'","files":[],"format":"f","id":"i","inputs":{},'
        b'"parameters":{"a":[2],"b":1},"version":1}\n'
    )
    assert (tmp_path / NAME).read_bytes() == expected


def test_nothing_that_differs_between_equal_runs_is_in_the_manifest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, MANIFEST)
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()


def test_a_flipped_bit_in_any_byte_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    good = (tmp_path / NAME).read_bytes()
    for bit in range(0, 8 * len(good), 7):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (tmp_path / NAME).write_bytes(bad)
        with pytest.raises(GnnsysError):
            _read(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    good = (tmp_path / NAME).read_bytes()
    for size in range(len(good) - 1):
        (tmp_path / NAME).write_bytes(good[:size])
        with pytest.raises(CorruptStoreError, match="GS-STORE-001"):
            _read(tmp_path)


def test_a_folder_without_a_manifest_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-021.*no store there"):
        _read(tmp_path)


def test_an_unfinished_folder_says_that_repeating_continues(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    with pytest.raises(InterruptedWorkError, match=r"GS-IN-023.*not finished(?s:.*)Repeat the command"):
        _read(tmp_path)


def test_a_foreign_artefact_is_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, replace(MANIFEST, format="gnnsys-pool"))
    with pytest.raises(InputDataError, match="holds a 'gnnsys-pool', expected 'gnnsys-store'"):
        _read(tmp_path)


def test_a_newer_version_is_a_version_error(tmp_path: Path) -> None:
    write_manifest(tmp_path, replace(MANIFEST, version=2))
    with pytest.raises(VersionError, match="version 2 is newer"):
        _read(tmp_path)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/./b", "", "a\\b", "a\0b", "x" * 129, "tables/é"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    _forge(tmp_path, lambda m: m["files"][0].update(path=path))
    with pytest.raises(CorruptStoreError, match="is not a path inside the folder"):
        _read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "PICKLE"},
        {"size": -1},
        {"size": 23},
        {"shape": [2, -3]},
        {"shape": [1 << 62, 1 << 62]},
        {"shape": [0, 1 << 62]},
        {"shape": [1] * 9},
        {"shape": [2.5]},
        {"path": 5},
        {"surprise": 1},
    ],
)
def test_an_impossible_entry_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    _forge(tmp_path, lambda m: m["files"][0].update(change))
    with pytest.raises(CorruptStoreError, match="GS-STORE-001"):
        _read(tmp_path)


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    _forge(tmp_path, lambda m: m["files"].append({**m["files"][0], "path": "tables/X.bin"}))
    with pytest.raises(CorruptStoreError, match="lists a file twice"):
        _read(tmp_path)


@pytest.mark.parametrize("text", [b"[]", b"null", b"NaN", b'{"a":' * 10_000, b"\xff", b'{"format": "gnnsys-store"}'])
def test_json_of_another_shape_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / NAME).write_bytes(text)
    with pytest.raises(GnnsysError):
        _read(tmp_path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
)


@given(_JSON)
def test_the_id_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    forwards = artefact_id("k", 1, {"a": value, "b": 1}, {})
    assert forwards == artefact_id("k", 1, {"b": 1, "a": value}, {})


def test_the_id_depends_on_inputs_parameters_kind_and_version() -> None:
    ids = [
        artefact_id("k", 1, {"a": 1}, {}),
        artefact_id("k", 1, {}, {"a": 1}),
        artefact_id("l", 1, {"a": 1}, {}),
        artefact_id("k", 2, {"a": 1}, {}),
    ]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "U64", "U32", "U16", "U8", "I64", "I32", "I16", "I8", "BOOL"])
def test_dtype_names_go_both_ways_in_either_byte_order(name: str) -> None:
    assert dtype_name(numpy_dtype(name).newbyteorder(">")) == name


def test_a_dtype_without_a_name_is_refused() -> None:
    with pytest.raises(InputDataError, match="GS-IN-002"):
        dtype_name(np.dtype("c8"))
