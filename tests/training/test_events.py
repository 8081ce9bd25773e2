"""events.jsonl: complete lines, numbered without gaps, also after a kill."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from gnnsys.errors import DiskSpaceError
from gnnsys.training.events import EventLog, read_events


def test_every_event_has_the_required_keys(tmp_path: Path) -> None:
    EventLog(tmp_path / "e", "cora", rank=2).write("step", epoch=0, loss=0.5)
    (event,) = read_events(tmp_path / "e")
    assert event.pop("ts").endswith("Z")
    assert event == {"seq": 0, "kind": "step", "run": "cora", "rank": 2, "epoch": 0, "loss": 0.5}


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


GOOD = b'{"ts": "2026", "seq": 0, "kind": "note", "run": "r", "rank": 0}\n'


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xff" + GOOD,
        GOOD.replace(b'"kind"', b'"kinf"'),
        GOOD.replace(b'"note"', b'"epoch"'),
        GOOD.replace(b'"note"', b'"warning"'),
        b'"kind"\n',
        b"\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_line_is_left_out_and_counted_and_the_log_goes_on_behind_it(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "e"
    path.write_bytes(GOOD + damaged)
    EventLog(path, "r").write("step")
    found = read_events(path)
    assert [event["seq"] for event in found] == [0, 2]
    assert found.unreadable == 1


def test_no_number_is_given_twice_when_lines_were_lost(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(GOOD.replace(b'"seq": 0', b'"seq": 7'))
    EventLog(path, "r").write("step")
    path.write_bytes(path.read_bytes() + GOOD.replace(b'"seq"', b'"srq"'))
    EventLog(path, "r").write("step")
    assert [event["seq"] for event in read_events(path) if "seq" in event] == [7, 8, 9]


def test_a_log_goes_on_after_any_byte_was_changed(tmp_path: Path) -> None:
    path, rng = tmp_path / "e", np.random.default_rng(0)
    for number in range(4):
        EventLog(path, "r").write("epoch", epoch=number, loss=0.5, wall_s=1.0)
    whole = path.read_bytes()
    for place in rng.permutation(len(whole)):
        path.write_bytes(whole[:place] + bytes([int(rng.integers(256))]) + whole[place + 1 :])
        EventLog(path, "r").write("end")
        assert list(read_events(path))[-1]["kind"] == "end"
