"""A system like macOS, without O_DIRECT, posix_fallocate, fdatasync, affinity or /proc: same bytes, same weights."""

from __future__ import annotations

import fcntl
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs
from gnnsys.planning.calibrate import measure
from gnnsys.storage import files
from gnnsys.storage.threads import usable_cores
from gnnsys.training.run import train_from_config

SOURCE = "synthetic:powerlaw:nodes=300,edges=2000,feat=8,classes=3,train=0.4,valid=0.2,test=0.2"
ABSENT = ("O_DIRECT", "O_TMPFILE", "posix_fallocate", "posix_fadvise", "fdatasync", "sched_getaffinity")


def like_macos(patch: pytest.MonkeyPatch) -> None:
    for name in ABSENT:
        patch.delattr(os, name)
    patch.setattr("gnnsys.budget._status_bytes", lambda _fields, _pid="self": 0)
    patch.setattr("gnnsys.budget._reset_high_water", lambda: False)


def made(folder: Path, layout: str) -> dict[str, Any]:
    """Digests of all that comes of ingesting, packing and training in `folder`."""
    store = gs.ingest(SOURCE, folder / "store", memory="64MiB")
    pack = gs.pack(store, folder / "pack", fanouts=[4, 3], batch_size=16, memory="64MiB", layout=layout)
    options = {"epochs": 1, "hidden": 8, "memory": "512MiB", "threads": 1}
    run = train_from_config(pack.path, options, folder / "run")
    return {
        "store": store.digest,
        "pool": pack.pool.manifest.digest,
        "pack": pack.manifest.digest,
        "weights": run.result["weights_digest"],
        "metrics": run.evaluate("test")["metrics"],
    }


@pytest.mark.parametrize("layout", ["packed", "direct"])
def test_what_is_made_does_not_depend_on_the_system(tmp_path: Path, layout: str) -> None:
    here = made(tmp_path / "here", layout)
    with pytest.MonkeyPatch.context() as patch:
        like_macos(patch)
        with pytest.warns(RuntimeWarning, match="GS-CFG-888: .*--memory is kept by calculation alone") as told:
            there = made(tmp_path / "there", layout)
    assert there == here
    assert len(told) == 1


def test_a_disk_whose_speed_cannot_be_measured_is_planned_for_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like_macos(monkeypatch)
    assert measure(tmp_path) is None
    assert usable_cores() == os.cpu_count()


def test_where_fsync_stops_at_the_drive_the_stronger_call_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _fd, what, *_rest: calls.append(what))
    monkeypatch.setattr(os, "fsync", None)
    files.atomic_write(tmp_path / "a", b"bytes")
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    files.make_data_durable(fd)
    os.close(fd)
    assert calls == [51, 51, 51]  # the file, its folder, and once more


def test_a_measured_system_says_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(tmp_path, "packed")
