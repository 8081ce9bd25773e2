"""events.jsonl: complete lines, numbered without gaps, also after a kill."""

import json
import os
from pathlib import Path

import pytest

from gnnsys.errors import DiskSpaceError
from gnnsys.training.events import EventLog, read_events


def test_every_event_has_the_required_keys(tmp_path: Path) -> None:
    EventLog(tmp_path / "e", "cora", rank=2).write("epoch", epoch=0, loss=0.5)
    (event,) = read_events(tmp_path / "e")
    assert event.pop("ts").endswith("Z")
    assert event == {"seq": 0, "kind": "epoch", "run": "cora", "rank": 2, "epoch": 0, "loss": 0.5}


def test_numbers_continue_in_a_later_process(tmp_path: Path) -> None:
    for _ in range(3):
        log = EventLog(tmp_path / "e", "r")
        log.write("step")
        log.write("step")
    assert [e["seq"] for e in read_events(tmp_path / "e")] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("torn", [b'{"seq"', b'{"seq": 1}', b"\xff"])
def test_a_torn_last_line_is_ignored_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "e"
    EventLog(path, "r").write("step", step=1)
    with path.open("ab") as file:
        file.write(torn)
    assert [e["seq"] for e in read_events(path)] == [0]
    EventLog(path, "r").write("step", step=2)
    assert [e["step"] for e in read_events(path)] == [1, 2]


def test_an_event_that_does_not_fit_on_the_disk_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "events.jsonl", os.write
    log = EventLog(path, "run")
    log.write("first")
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
        with pytest.raises(DiskSpaceError, match=r"events\.jsonl"):
            log.write("second")
    log.write("third")
    assert [(event["kind"], event["seq"]) for event in read_events(path)] == [("first", 0), ("third", 1)]


def test_numbers_that_json_lacks_become_strings(tmp_path: Path) -> None:
    EventLog(tmp_path / "e", "r").write("eval", metrics={"acc": float("nan")}, losses=[float("inf"), -float("inf")])
    assert json.loads((tmp_path / "e").read_text())["metrics"] == {"acc": "nan"}
    assert json.loads((tmp_path / "e").read_text())["losses"] == ["inf", "-inf"]


def test_a_file_that_is_not_there_has_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "e")) == []
