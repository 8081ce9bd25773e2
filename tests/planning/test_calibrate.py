"""Speeds are measured once, remembered per volume, and never in the way when they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gnnsys.planning import calibrate
from gnnsys.planning.calibrate import Speeds, measure, speeds_of
from gnnsys.storage.kernels import gather

KNOWN = Speeds(read=1.0, write=2.0, random=3.0, copy=4.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gnnsys"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were measured; measuring gives KNOWN."""
    folders: list[Path] = []

    def pretend(folder: Path) -> Speeds:
        folders.append(folder)
        return KNOWN

    monkeypatch.setattr(calibrate, "measure", pretend)
    return folders


def test_a_volume_is_measured_once_and_the_nearest_existing_folder_stands_for_it(
    tmp_path: Path, measured: list[Path]
) -> None:
    assert speeds_of(tmp_path / "not" / "there") == KNOWN
    assert speeds_of(tmp_path) == KNOWN
    assert measured == [tmp_path]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"version":1,"speeds":{"read":1}}', b'{"version":0,"speeds":{}}', b"\xff\xfe"],
)
def test_a_damaged_memory_is_ignored_and_replaced(
    tmp_path: Path, cache: Path, measured: list[Path], damage: bytes
) -> None:
    speeds_of(tmp_path)
    (path,) = cache.iterdir()
    path.write_bytes(damage)
    assert speeds_of(tmp_path) == KNOWN
    assert len(measured) == 2
    assert json.loads(path.read_bytes())["speeds"]["random"] == 3.0


def test_speeds_of_zero_are_not_believed(tmp_path: Path, cache: Path, measured: list[Path]) -> None:
    speeds_of(tmp_path)
    (path,) = cache.iterdir()
    path.write_text(path.read_text().replace("3.0", "0.0"))
    assert speeds_of(tmp_path).random == 3.0
    assert len(measured) == 2


def test_a_cache_directory_that_cannot_be_made_is_no_error(
    tmp_path: Path, measured: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert speeds_of(tmp_path) == KNOWN
    assert len(measured) == 1


def test_a_nearly_full_volume_is_not_measured(
    tmp_path: Path, measured: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "free_bytes", lambda _path: 1 << 20)
    assert speeds_of(tmp_path) is None
    assert measured == []


def test_measuring_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SECONDS", 0.01)
    found = measure(tmp_path, 4 << 20)
    assert found is not None
    assert min(found.read, found.write, found.random, found.copy) > 0
    assert list(tmp_path.iterdir()) == []


def test_copying_is_measured_on_rows_that_are_in_memory_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[bytes] = []

    def spy(rows: np.ndarray, where: np.ndarray, out: np.ndarray) -> None:
        sources.append(rows[where[0]].tobytes())
        gather(rows, where, out)

    monkeypatch.setattr(calibrate, "_SECONDS", 0.01)
    monkeypatch.setattr(calibrate, "gather", spy)
    assert measure(tmp_path, 4 << 20) is not None
    assert any(sources[0])  # what was written there, not the kernel's one page of zeros


def test_a_folder_that_cannot_be_written_is_not_measured(tmp_path: Path) -> None:
    assert measure(Path("/proc")) is None
