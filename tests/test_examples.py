"""The scripts on OGB data do what they say, on folders of a few KiB in the exact layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import gnnsys as gs
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
    runs = [json.loads((work / f"run-1-{seed}" / "result.json").read_text()) for seed in range(2)]
    assert entry["scores"]["test"] == [run["metrics"]["test"]["acc"] for run in runs]
    assert runs[0]["weights_digest"] != runs[1]["weights_digest"]
    # SAGE: a matrix for the node itself, one for its neighbours, a bias
    widths = [6, 256, 256, classes]
    assert entry["parameters"] == sum(2 * a * b + b for a, b in pairwise(widths))
    assert all(word in child.stdout for word in ("2 seeds", "parameters", "test  accuracy", "±", "cores"))


def test_a_first_try_of_one_seed_has_a_score_and_what_is_missing_is_said_in_a_line(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    root.mkdir()
    all_sets(root)
    for given, code, said in (("dataset", 0, "test  accuracy"), ("dataset/ogbn_arxiv", 5, "GS-IN-135")):
        command = [
            sys.executable,
            str(EXAMPLES / "ogbn_arxiv.py"),
            str(tmp_path / given),
            "--work",
            str(tmp_path / "w"),
        ]
        child = subprocess.run(
            [*command, "--seeds", "1", "--epochs", "1", "--memory", "512MiB"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == code, child.stderr
        assert said in child.stdout + child.stderr
        assert "Traceback" not in child.stderr
        assert "accuracy none" not in child.stdout


def test_predictions_of_mag240m_are_what_its_evaluator_takes(tmp_path: Path) -> None:
    papers, hidden = 150_000, {"test-dev": 88_092, "test-challenge": 58_726}
    root, rng = tmp_path / "dataset", np.random.default_rng(0)
    ids = rng.permutation(papers)
    write_mag240m(root, papers, ids, hidden)
    options = ["--work", str(tmp_path / "work"), "--epochs", "1", "--memory", "512MiB"]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", str(EXAMPLES / "mag240m.py"), str(root), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    run = gs.Run.open(tmp_path / "work" / "run")
    assert run.metrics.keys() == {"train", "valid"}
    sizes = {"in_channels": 8, "hidden_channels": 512, "num_layers": 2, "out_channels": 4}
    run.predict(tmp_path / "all.npy", model=gs.build("sage", **sizes))
    everything, at = np.load(tmp_path / "all.npy"), 100
    for split, count in hidden.items():
        with np.load(tmp_path / "work" / "submission" / f"y_pred_mag240m_{split}.npz") as submitted:
            assert np.array_equal(submitted["y_pred"], everything[ids[at : at + count]])
        at += count


def write_mag240m(root: Path, papers: int, ids: np.ndarray, hidden: dict[str, int]) -> None:
    """MAG240M's layout; of `ids` the first 50 are to train on, 50 to validate on, the rest in the hidden splits."""
    rng, folder = np.random.default_rng(1), root / "mag240m_kddcup2021"
    (folder / "processed/paper").mkdir(parents=True)
    (folder / "processed/paper___cites___paper").mkdir()
    (folder / "RELEASE_v1.txt").touch()
    y = np.full(papers, np.nan, dtype=np.float32)
    y[ids[:100]] = rng.integers(0, 4, 100)
    np.save(folder / "processed/paper/node_feat.npy", rng.normal(size=(papers, 8)).astype(np.float16))
    np.save(folder / "processed/paper/node_label.npy", y)
    np.save(folder / "processed/paper___cites___paper/edge_index.npy", rng.integers(0, papers, (2, 2000)))
    torch.save({"paper": papers, "author": 1, "institution": 1, "num_classes": 4}, folder / "meta.pt")
    ends = np.cumsum([50, 50, *hidden.values()])
    split = dict(zip(["train", "valid", *hidden], np.split(ids, ends), strict=False))
    torch.save(split, folder / "split_dict.pt")
