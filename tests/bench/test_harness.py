"""Benchmarks say what they measured and leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gnnsys.bench import harness


def test_a_row_compares_medians() -> None:
    made = harness.row("read", "bandwidth", "GB/s", [1.0, 9.0, 4.0], "mapped file", [2.0])
    assert (made["ours"], made["peer"], made["ratio"]) == (4.0, 2.0, 2.0)
    assert made["ours_samples"] == [1.0, 9.0, 4.0]


def test_the_warm_up_is_not_counted() -> None:
    values = iter([100.0, 1.0, 2.0])
    prepared: list[int] = []
    assert harness.repeated(lambda: next(values), 2, before=lambda: prepared.append(1)) == [1.0, 2.0]
    assert len(prepared) == 3


def test_a_report_says_on_what_it_was_measured(tmp_path: Path) -> None:
    harness.write_report(harness.report([], {"nodes": 3}, notes=["so"]), tmp_path / "out" / "x.json")
    document = json.loads((tmp_path / "out" / "x.json").read_text())
    assert document["config"] == {"nodes": 3}
    assert document["notes"] == ["so"]
    assert {"processor", "cores", "memory", "caches_dropped", "memory_cgroup"} <= set(document["machine"])
    assert {"python", "numpy", "numba"} <= set(document["versions"])


def test_a_child_that_fails_is_an_error_with_its_message() -> None:
    with pytest.raises(RuntimeError, match="No module named"):
        harness.run_child(["gnnsys_that_is_not_there"])


def test_a_limited_child_runs_in_a_group_of_its_own_that_is_gone_afterwards() -> None:
    base = harness.memory_controller()
    if base is None:
        pytest.skip("this process may not make memory cgroups")
    with harness.memory_limit(256 << 20) as prefix:
        groups = [p for p in base.iterdir() if p.name.startswith("gnnsys-bench-")]
        assert len(groups) == 1
        limits = [groups[0] / name for name in ("memory.limit_in_bytes", "memory.max")]
        assert [p.read_text().strip() for p in limits if p.exists()] == [str(256 << 20)]
        assert "per loop" in harness.run_child(["timeit", "-n1", "-r1", "pass"], prefix=prefix)
    assert not groups[0].exists()
