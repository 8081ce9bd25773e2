"""Progress on a terminal, and in logs and notebooks."""

from __future__ import annotations

import pytest

import gnnsys as gs
from gnnsys import progress
from gnnsys.progress import _Bars


def test_a_bar_moves_inside_an_epoch() -> None:
    with _Bars() as bars:
        bars.report("train", 0.5, 2)
        (task,) = bars._rich.tasks
        assert (task.completed, task.total, task.percentage) == (0.5, 2, 25.0)


def test_where_there_is_no_terminal_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with gs.show_progress() as report:
        for now[0], done in ((101, 1), (109, 2), (111, 3), (112, 4), (121.5, 5000)):
            report("read", done, 10_000)
    assert capsys.readouterr().err == "read: 3 of 10,000\nread: 5,000 of 10,000\n"
