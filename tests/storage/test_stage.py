"""Stages: journal, resume, refusals. The stage under test concatenates numbered units into one file."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import (
    ConfigError,
    CorruptStoreError,
    DiskSpaceError,
    InputDataError,
    InterruptedWorkError,
    StoreBusyError,
)
from gnnsys.storage.manifest import NAME, Manifest, read_manifest
from gnnsys.storage.stage import Stage
from gnnsys.storage.writer import SequentialWriter

UNITS = 4


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that open a stage hundreds of times do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def _stage(folder: Path, **parameters: Any) -> Stage:
    return Stage(folder, "test", 1, inputs={"in": "digest"}, parameters={"units": UNITS, **parameters})


def _make(folder: Path, *, units: int = UNITS, torn: bool = False) -> Manifest:
    """Make the artefact, dying after `units` units, with bytes of the next one already written when `torn`."""
    with _stage(folder) as stage:
        if stage.finished:
            return stage.finished
        state = list(stage.done.values())[-1]["file"] if stage.done else None
        writer = SequentialWriter(folder, "a.bin", stage.id, resume=state)
        for unit in range(UNITS):
            if f"u/{unit}" in stage.done:
                continue
            if unit == units:
                if torn:
                    writer.append(np.full(9, 255, dtype=np.uint8))
                writer.close()
                raise Killed
            writer.append(np.full(1000 + unit, unit, dtype=np.uint8))
            writer.sync()
            stage.record(f"u/{unit}", file=writer.state())
        return stage.commit(counts={}, files=writer.finish(np.dtype(np.uint8), (writer.num_bytes,), "r"))


def _begin(folder: Path, units: int) -> None:
    with pytest.raises(Killed):
        _make(folder, units=units)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("units", range(UNITS))
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, units: int, torn: bool) -> None:
    golden = _make(tmp_path / "golden")
    with pytest.raises(Killed):
        _make(tmp_path / "a", units=units, torn=torn)
    assert _make(tmp_path / "a").digest == golden.digest
    assert (tmp_path / "a/a.bin").read_bytes() == (tmp_path / "golden/a.bin").read_bytes()


def test_a_finished_stage_repeated_changes_nothing(tmp_path: Path) -> None:
    _make(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != ".lock"}
    _make(tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != ".lock"} == before


def test_scratch_is_gone_after_the_commit(tmp_path: Path) -> None:
    _make(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".lock", NAME, "provenance.json", "a.bin", "a.bin.xxh"}


def test_scratch_that_outlived_the_commit_is_removed_by_the_next_run(tmp_path: Path) -> None:
    _make(tmp_path)
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "journal").touch()
    _make(tmp_path)
    assert not (tmp_path / ".work").exists()


def test_an_unfinished_stage_is_not_readable(tmp_path: Path) -> None:
    _begin(tmp_path, 2)
    with pytest.raises(InterruptedWorkError, match="Repeat the command"):
        read_manifest(tmp_path, "test", 1)


@pytest.mark.usefixtures("quick_disk")
def test_every_torn_tail_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    golden = _make(tmp_path / "golden")
    _begin(tmp_path / "a", 2)
    journal = tmp_path / "a/.work/journal"
    good = journal.read_bytes()
    second = good.index(b"\n") + 1
    for size in range(second, len(good)):
        journal.write_bytes(good[:size])
        with _stage(tmp_path / "a") as stage:
            assert list(stage.done) == ["u/0"]
    assert _make(tmp_path / "a").digest == golden.digest


@pytest.mark.usefixtures("quick_disk")
def test_every_flipped_bit_in_the_last_line_only_costs_that_unit(tmp_path: Path) -> None:
    _begin(tmp_path, 2)
    journal = tmp_path / ".work/journal"
    good = journal.read_bytes()
    for bit in range(8 * (good.index(b"\n") + 1), 8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        journal.write_bytes(bad)
        with _stage(tmp_path) as stage:
            assert list(stage.done) == ["u/0"]


@pytest.mark.usefixtures("quick_disk")
def test_every_flipped_bit_before_a_good_line_is_corruption(tmp_path: Path) -> None:
    _begin(tmp_path, 3)
    journal = tmp_path / ".work/journal"
    good = journal.read_bytes()
    first = good.index(b"\n")
    for bit in range(8 * first):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        journal.write_bytes(bad)
        with pytest.raises(CorruptStoreError, match=r"GS-STORE-005.*journal: line [12] is damaged"), _stage(tmp_path):
            pass


def test_a_unit_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    with _stage(tmp_path) as stage:
        stage.record("u", value=[1, 2])
        assert b'{"unit":"u","value":[1,2]}\n' in (tmp_path / ".work/journal").read_bytes()


def test_units_come_back_in_the_order_they_finished(tmp_path: Path) -> None:
    with _stage(tmp_path) as stage:
        for name in ("b", "a", "c"):
            stage.record(name, n=name)
    with _stage(tmp_path) as stage:
        assert stage.done == {"b": {"n": "b"}, "a": {"n": "a"}, "c": {"n": "c"}}


def test_other_parameters_are_refused_with_the_difference(tmp_path: Path) -> None:
    _begin(tmp_path, 1)
    expected = r"GS-CFG-010.*fanout was None, now 10"
    with pytest.raises(ConfigError, match=expected) as caught, _stage(tmp_path, fanout=10):
        pass
    assert "delete the unfinished folder to start over" in caught.value.hint


def test_work_that_recorded_nothing_starts_over_with_other_parameters(tmp_path: Path) -> None:
    _begin(tmp_path, 0)
    with _stage(tmp_path, fanout=10) as stage:
        stage.record("u")
    with pytest.raises(ConfigError, match="fanout was 10, now None"), _stage(tmp_path):
        pass


@pytest.mark.parametrize("error", [InputDataError("GS-IN-000", "bad"), ConfigError("GS-CFG-000", "bad")])
def test_work_refused_for_its_inputs_starts_over_with_others(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), _stage(tmp_path) as stage:
        (stage.work / "scratch.bin").touch()
        stage.record("u")
        raise error
    assert (tmp_path / ".work/void").exists()
    with _stage(tmp_path, fanout=10) as stage:
        assert stage.done == {}
        assert {p.name for p in stage.work.iterdir()} == {"stage.json", "journal"}


def test_work_refused_for_its_inputs_continues_with_the_same(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(InputDataError), _stage(tmp_path) as stage:
            stage.record("u", n=1)
            raise InputDataError("GS-IN-000", "bad")
    with _stage(tmp_path) as stage:
        assert stage.done == {"u": {"n": 1}}
    with pytest.raises(ConfigError, match="fanout was None, now 10"), _stage(tmp_path, fanout=10):
        pass


def test_starting_over_removes_only_files_that_the_work_made(tmp_path: Path) -> None:
    _begin(tmp_path, 0)
    for name in ("graph/a.bin", "graph/a.bin.xxh", "graph/notes.txt", "mine/b.bin", "c.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with Stage(tmp_path, "test", 1, inputs={}, parameters={}, parts=("graph", "tables")):
        pass
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file() and ".work" not in p.parts}
    assert left == {".lock", "a.bin", "c.bin", "graph/notes.txt", "mine/b.bin"}


def test_other_parameters_are_refused_on_a_finished_folder_too(tmp_path: Path) -> None:
    _make(tmp_path)
    with pytest.raises(ConfigError, match="fanout was None, now 10") as caught, _stage(tmp_path, fanout=10):
        pass
    assert "delete" not in caught.value.hint


def test_other_inputs_are_refused_with_the_difference(tmp_path: Path) -> None:
    _begin(tmp_path, 1)
    other = Stage(tmp_path, "test", 1, inputs={"in": "changed"}, parameters={"units": UNITS})
    with pytest.raises(ConfigError, match="in was 'digest', now 'changed'"), other:
        pass


def test_a_damaged_stage_file_is_named(tmp_path: Path) -> None:
    _begin(tmp_path, 1)
    (tmp_path / ".work/stage.json").write_bytes(b'{"id": ')
    with pytest.raises(CorruptStoreError, match=r"stage\.json"), _stage(tmp_path):
        pass


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputDataError, match=r"GS-IN-022.*not empty"), _stage(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_maker_is_refused(tmp_path: Path) -> None:
    with _stage(tmp_path), pytest.raises(StoreBusyError), _stage(tmp_path):
        pass


def test_a_full_disk_while_recording_leaves_a_stage_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def nearly_full(fd: int, data: memoryview, offset: int) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:20], offset)

    with _stage(tmp_path) as stage:
        stage.record("a", n=1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", nearly_full)
            with pytest.raises(DiskSpaceError, match=r"GS-DISK-002.*journal"):
                stage.record("b", n=2)
    with _stage(tmp_path) as stage:
        assert stage.done == {"a": {"n": 1}}
        stage.record("b", n=2)
    with _stage(tmp_path) as stage:
        assert list(stage.done) == ["a", "b"]


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_descriptor_is_left_open_when_the_journal_is_refused(tmp_path: Path) -> None:
    _begin(tmp_path, 3)
    journal = tmp_path / ".work/journal"
    journal.write_bytes(b"x" + journal.read_bytes()[1:])
    before = _open_descriptors()
    for _ in range(5):
        with pytest.raises(CorruptStoreError), _stage(tmp_path):
            pass
    assert _open_descriptors() == before
