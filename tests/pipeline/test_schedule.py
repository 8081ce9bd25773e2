"""Schedules on paper: everyone gets to the end, holds no more than promised, and waits as long as theory says."""

import itertools

import pytest

from gnnsys.errors import ConfigError
from gnnsys.pipeline.balance import balance
from gnnsys.pipeline.schedule import SCHEDULES, Action, Schedule, make_schedule
from gnnsys.pipeline.simulate import ScheduleError, grid, simulate

SIZES = [(s, m) for s in range(1, 9) for m in range(1, 17)]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_size_ends_without_a_deadlock_and_in_an_order_that_can_be_performed(name: str) -> None:
    for num_stages, num_micro in SIZES:
        timeline = simulate(make_schedule(name, num_stages, num_micro), 1.0, 2.0)
        assert len(timeline.actions) == 2 * num_stages * num_micro
        seen: set[tuple[int, Action]] = set()
        for timed in timeline.actions:
            stage, action = timed.stage, timed.action
            if action.kind == "F":
                assert stage == 0 or (stage - 1, action) in seen
            else:
                assert (stage, Action("F", action.micro)) in seen
                assert stage == num_stages - 1 or (stage + 1, action) in seen
            seen.add((stage, action))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_both_ends_of_a_boundary_see_the_same_order_in_each_direction(name: str) -> None:
    for num_stages, num_micro in SIZES:
        rows = make_schedule(name, num_stages, num_micro).rows
        for kind in "FB":
            assert len({tuple(a.micro for a in row if a.kind == kind) for row in rows}) == 1


def test_live_activations_are_bounded_as_promised() -> None:
    for num_stages, num_micro in SIZES:
        for stage in range(num_stages):
            assert make_schedule("1f1b", num_stages, num_micro).num_live(stage) == min(num_micro, num_stages - stage)
            assert make_schedule("gpipe", num_stages, num_micro).num_live(stage) == num_micro


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_bubble_is_that_of_theory(name: str) -> None:
    for num_stages, num_micro in SIZES:
        expected = (num_stages - 1) / (num_micro + num_stages - 1)
        for backward in (1.0, 2.0):
            found = simulate(make_schedule(name, num_stages, num_micro), 1.0, backward).bubble
            assert found == pytest.approx(expected, abs=1e-12)


def test_gradients_are_added_in_the_order_of_one_process() -> None:
    for name in ("gpipe", "1f1b"):
        for row in make_schedule(name, 4, 7).rows:
            assert [a.micro for a in row if a.kind == "B"] == list(range(7))
    assert [a.micro for a in make_schedule("fill-drain", 2, 3).rows[0] if a.kind == "B"] == [2, 1, 0]


def test_a_slow_stage_and_slow_links_make_the_others_wait() -> None:
    schedule = make_schedule("gpipe", 2, 3)
    assert simulate(schedule, [1.0, 2.0], [1.0, 2.0]).length == 1 + 6 + 6 + 1
    assert simulate(schedule, 1.0, 1.0, transfer=0.5).length == simulate(schedule).length + 1.0


def test_a_schedule_in_which_all_wait_for_each_other_is_refused() -> None:
    row = (Action("F", 0), Action("B", 0))
    with pytest.raises(ScheduleError, match="waits for another"):
        simulate(Schedule("crossed", 1, (row, (Action("B", 0), Action("F", 0)))))
    with pytest.raises(ScheduleError, match="exactly once"):
        simulate(Schedule("short", 2, (row, row)))


def test_the_grid_shows_who_waits() -> None:
    assert grid(make_schedule("1f1b", 2, 3)).splitlines() == [
        "stage 0  F0 F1 .  B0 F2 B1 .  B2",
        "stage 1  .  F0 B0 F1 B1 F2 B2 .",
    ]


def test_unknown_names_and_empty_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="GS-CFG-810"):
        make_schedule("zigzag", 2, 2)
    with pytest.raises(ConfigError, match="GS-CFG-810"):
        make_schedule("gpipe", 2, 0)


def test_the_cut_is_as_good_as_trying_every_cut() -> None:
    costs = [5.0, 1.0, 1.0, 7.0, 2.0, 2.0, 3.0]
    for num_stages in range(1, len(costs) + 1):
        bounds = balance(costs, num_stages)
        assert bounds[0] == 0
        assert bounds[-1] == len(costs)
        assert all(a < b for a, b in itertools.pairwise(bounds))
        assert _slowest(costs, bounds) == min(
            _slowest(costs, [0, *cuts, len(costs)])
            for cuts in itertools.combinations(range(1, len(costs)), num_stages - 1)
        )


def _slowest(costs: list[float], bounds: list[int]) -> float:
    return max(sum(costs[a:b]) for a, b in itertools.pairwise(bounds))


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 layers cannot be cut into 3 stages"):
        balance([1.0, 1.0], 3)
