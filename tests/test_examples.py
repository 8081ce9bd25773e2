"""The scripts on OGB data do what they say, on folders of a few KiB in the exact layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.ingestion.ogb_folders import all_sets

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize(("name", "classes"), [("ogbn_arxiv", 5), ("ogbn_products", 5), ("ogbn_papers100m", 2)])
def test_a_leaderboard_entry_has_what_a_leaderboard_asks_for(name: str, classes: int, tmp_path: Path) -> None:
    root, work = tmp_path / "dataset", tmp_path / "work"
    root.mkdir()
    all_sets(root)
    options = ["--work", str(work), "--seeds", "2", "--epochs", "1", "--memory", "512MiB"]
    child = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), str(root), *options], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    entry = json.loads((work / "entry.json").read_text())
    runs = [json.loads((work / f"run-{seed}" / "result.json").read_text()) for seed in range(2)]
    assert entry["scores"]["test"] == [run["metrics"]["test"]["acc"] for run in runs]
    assert runs[0]["weights_digest"] != runs[1]["weights_digest"]
    # SAGE: a matrix for the node itself, one for its neighbours, a bias
    widths = [6, 256, 256, classes]
    assert entry["parameters"] == sum(2 * a * b + b for a, b in pairwise(widths))
    assert all(word in child.stdout for word in ("2 seeds", "parameters", "test  accuracy", "±", "cores"))
