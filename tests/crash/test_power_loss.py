"""Power is lost at any moment of a protocol: what it had promised is there, the rest is whole or known to be missing.

STATES says how many states per protocol, `make power STATES=5000`.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.ingestion.job import write_scratch
from gnnsys.storage import files
from gnnsys.storage.checksums import digest_file
from gnnsys.storage.files import atomic_write, map_array, remove_temps
from gnnsys.storage.stage import Stage
from gnnsys.storage.writer import SequentialWriter
from gnnsys.training.checkpoint import Checkpoint, Checkpoints
from tests.crash.simulated import Recorder, crash_states, materialize
from tests.programme import record

STATES = int(os.environ.get("STATES", "250"))
UNITS = 4
Ack = Callable[[Any], None]
Write = Callable[[Path, Ack], None]
Check = Callable[[Path, list[Any]], None]


def _write_file(root: Path, ack: Ack) -> None:
    for n in range(UNITS):
        atomic_write(root / "file", bytes([n]) * 6000)
        ack(n)


def _check_file(root: Path, promised: list[int]) -> None:
    remove_temps(root)
    found = [path.read_bytes() for path in root.iterdir()]
    allowed = [bytes([n]) * 6000 for n in range(UNITS)][max(len(promised) - 1, 0) : len(promised) + 1]
    assert (found == [] and not promised) or (len(found) == 1 and found[0] in allowed)


def _stage(root: Path) -> Stage:
    return Stage(root / "s", "gnnsys-test", 1, inputs={}, parameters={})


def _write_units(root: Path, ack: Ack) -> None:
    """Units with a file of their own each, then a commit."""
    with _stage(root) as stage:
        for n in range(UNITS):
            write_scratch(stage.work / f"{n}.bin", [np.full(700, n)])
            stage.record(str(n))
            ack(n)
        stage.commit(counts={"units": UNITS}, files=())
        ack("committed")


def _check_units(root: Path, promised: list[Any]) -> None:
    with _stage(root) as stage:
        if stage.finished is not None:
            assert stage.finished.counts == {"units": UNITS}
            return
        assert "committed" not in promised
        assert [str(n) for n in promised] == list(stage.done)[: len(promised)]
        for unit in stage.done:
            assert (map_array(stage.work / f"{unit}.bin", "<i8", (700,)) == int(unit)).all()


def _write_table(root: Path, ack: Ack) -> None:
    """One file that grows in units."""
    with _stage(root) as stage:
        writer = SequentialWriter(stage.folder, "t.bin", stage.id, num_bytes=UNITS * 5600)
        for n in range(UNITS):
            writer.append(np.full(700, n))
            writer.sync()
            stage.record("part", number=n, file=writer.state())
            ack(n)
        entries = writer.finish(np.dtype(np.int64), (UNITS * 700,), "table")
        stage.commit(counts={}, files=entries)
        ack("committed")


def _check_table(root: Path, promised: list[Any]) -> None:
    with _stage(root) as stage:
        if stage.finished is not None:
            for entry in stage.finished.files:
                assert digest_file(stage.folder / entry.path) == entry.digest
            return
        assert "committed" not in promised
        state = stage.done.get("part")
        assert (state["number"] if state else -1) >= (promised[-1] if promised else -1)
        SequentialWriter(stage.folder, "t.bin", stage.id, resume=state and state["file"]).close()


def _checkpoints(root: Path) -> Checkpoints:
    return Checkpoints(root / "checkpoints", "xxh3-128:0")


def _write_checkpoints(root: Path, ack: Ack) -> None:
    kept = _checkpoints(root)
    for step in range(UNITS):
        tensors = {"model": {"w": torch.full((300,), step)}, "optimizer": {"w/m": torch.zeros(3)}}
        kept.commit(Checkpoint(step=step, tensors=tensors, state={"train": {"step": step}}))
        ack(step)


def _check_checkpoints(root: Path, promised: list[int]) -> None:
    found, _ = _checkpoints(root).load_latest()
    assert (found.step if found else -1) >= (promised[-1] if promised else -1)
    assert found is None or bool((found.tensors["model"]["w"] == found.step).all())


PROTOCOLS: dict[str, tuple[Write, Check]] = {
    "small file": (_write_file, _check_file),
    "journal and manifest": (_write_units, _check_units),
    "growing file": (_write_table, _check_table),
    "checkpoints": (_write_checkpoints, _check_checkpoints),
}


def _lose_power(name: str, write: Write, check: Check, tmp_path: Path) -> None:
    """In STATES ways."""
    recorder = Recorder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with recorder.recording():
        write(tmp_path / "run", recorder.ack)
    for number, (left, promised) in enumerate(crash_states(recorder.ops, random.Random(name), STATES)):
        root = tmp_path / "state"
        materialize(left, root)
        try:
            check(root, promised)
        except BaseException as error:
            kept = "\n".join(f"{o.kind} {o.path} {o.to} {o.file} {o.at} {len(o.data)}" for o in left)
            raise AssertionError(f"state {number}, {promised} was promised; left was\n{kept}") from error
        shutil.rmtree(root)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_was_promised_is_there_after_any_loss_of_power(name: str, tmp_path: Path) -> None:
    _lose_power(name, *PROTOCOLS[name], tmp_path)
    record("simulated", {"states": STATES, f"states of {name}": STATES, "violations": 0})


def _write_without(call: str) -> Write:
    """`_write_file` by a system in which `call` does nothing."""

    def write(root: Path, ack: Ack) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, call, lambda *_: None)
            _write_file(root, ack)

    return write


@pytest.mark.parametrize("call", ["make_durable", "fsync_dir"])
def test_a_sync_that_is_left_out_is_found(call: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="was promised"):
        _lose_power("careless", _write_without(call), _check_file, tmp_path)
