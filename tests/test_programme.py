"""Counts of the reliability programme add up in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.programme import measured, record


def test_counts_of_several_calls_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    monkeypatch.setenv("GNNSYS_PROGRAMME_OUT", str(out))
    record("kills", {"killed": 2, "violations": 0})
    record("faults", {"points": 7})
    record("kills", {"killed": 3, "violations": 1})
    assert json.loads(out.read_text()) == {"kills": {"killed": 5, "violations": 1}, "faults": {"points": 7}}


def test_a_figure_takes_the_place_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    monkeypatch.setenv("GNNSYS_PROGRAMME_OUT", str(out))
    for value in (90, 95):
        measured("lines", value)
    assert json.loads(out.read_text()) == {"measured": {"lines": 95}}


def test_nothing_is_written_when_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GNNSYS_PROGRAMME_OUT", raising=False)
    monkeypatch.chdir(tmp_path)
    record("kills", {"killed": 2})
    assert list(tmp_path.iterdir()) == []
