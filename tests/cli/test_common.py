"""Progress on a terminal."""

from __future__ import annotations

from gnnsys.cli.common import _Bars


def test_a_bar_moves_inside_an_epoch() -> None:
    with _Bars() as bars:
        bars.report("train", 0.5, 2)
        (task,) = bars._rich.tasks
        assert (task.completed, task.total, task.percentage) == (0.5, 2, 25.0)
