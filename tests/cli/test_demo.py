"""`gnnsys demo`: the promises of the README, checked on what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1200)  # a minute where nothing else runs, many on a busy machine


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    folder = tmp_path_factory.mktemp("demo")
    return [sys.executable, "-m", "gnnsys", "demo", "--out", str(folder / "demo")], folder


@pytest.fixture(scope="module")
def result(demo: tuple[list[str], Path]) -> dict[str, Any]:
    child = subprocess.run([*demo[0], "--json"], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def test_features_are_ten_times_the_budget_and_growth_stays_below_it(result: dict[str, Any]) -> None:
    assert result["feature_bytes"] >= 10 * result["budget_bytes"]
    assert 0 < result["peak_growth_bytes"] <= result["budget_bytes"]


def test_out_of_core_and_in_memory_give_the_same_losses_and_accuracy(result: dict[str, Any]) -> None:
    assert result["losses_identical"] is True
    assert result["accuracy"] == result["accuracy_in_memory"] > 0.9


def test_bytes_read_are_the_bytes_planned(result: dict[str, Any]) -> None:
    assert result["bytes_read_per_epoch"] == result["bytes_planned_per_epoch"] > 0
    assert result["read_amplification"] <= 1.02


def test_repeating_the_demo_is_quick_and_prints_the_table_for_people(
    demo: tuple[list[str], Path], result: dict[str, Any]
) -> None:
    child = subprocess.run(demo[0], capture_output=True, text=True, check=True)
    assert f"{result['accuracy']:.2%}" in child.stdout
    assert "identical" in child.stdout
    assert "gnnsys train" in child.stdout.splitlines()[-1]
