"""Splits: given ones are checked, drawn ones are fair, disjoint and the same everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.ingestion import ArraySource, ingest
from gnnsys.ingestion.drawn_splits import random
from gnnsys.ingestion.splits import make_splits, parse_split
from gnnsys.keys import GOLDEN, derive, mix
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays

pytestmark = pytest.mark.usefixtures("tiny")

N = 100
NONE = np.empty(0, dtype=np.int64)


def _ingest(folder: Path, splits: dict[str, list[int]] | None = None, **options: Any) -> Store:
    given = None if splits is None else {name: np.array(ids, dtype=np.int64) for name, ids in splits.items()}
    return ingest_arrays(folder, NONE, NONE, N, splits=given, **options)


def test_given_splits_are_stored_ascending(tmp_path: Path) -> None:
    store = _ingest(tmp_path, {"train": [7, 2, 5], "test": [99]})
    assert store.split_names == ["train", "test"]
    assert store.split("train").tolist() == [2, 5, 7]


def test_the_error_for_one_of_many_versions_names_a_way_out(tmp_path: Path) -> None:
    versions = [{"train": np.array([1])}, {"train": np.array([2])}]
    source = ArraySource((NONE, NONE), N)
    source.splits = versions
    with pytest.raises(ConfigError, match=r"no split named 'train'(?s:.*)choose one, as train\.0, .*--split given:0"):
        ingest(source, tmp_path).split("train")


def test_given_splits_that_are_asked_for_and_not_there_are_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-103: --split given: the source has no splits"):
        _ingest(tmp_path / "asked", split="given")
    assert _ingest(tmp_path / "not").split_names == []


def test_none_leaves_given_splits_out(tmp_path: Path) -> None:
    assert _ingest(tmp_path, {"train": [1]}, split="none").split_names == []


@pytest.mark.parametrize(
    ("splits", "code", "what"),
    [
        ({"train": [1, 2], "test": [3, 2]}, "GS-IN-142", "node 2 is in split train and in split test"),
        ({"train": [1, 4, 1]}, "GS-IN-141", "node 1 is listed twice"),
        ({"train": [0, N]}, "GS-IN-140", r"node 100 is outside \[0, 100\)"),
        ({"train": [-1, 2]}, "GS-IN-140", "node -1 is outside"),
        ({"train": [1], "valid": []}, "GS-IN-143", "split valid is empty"),
        ({"train": [1], "test": [50, 51]}, "GS-IN-144", "no node of split test has a label"),
    ],
)
def test_a_split_that_makes_no_sense_is_named(
    tmp_path: Path, splits: dict[str, list[int]], code: str, what: str
) -> None:
    y = np.zeros(N, dtype=int)
    y[50:52] = -1
    with pytest.raises(InputDataError, match=f"{code}: .*{what}"):
        _ingest(tmp_path, splits, y=y)


@pytest.mark.parametrize("kind", ["class", "regression"])
def test_random_parts_the_labelled_nodes_by_percent(tmp_path: Path, kind: str) -> None:
    y = np.where(np.arange(N) % 10 == 3, -1, np.arange(N) % 4)
    given = y if kind == "class" else np.where(y < 0, np.nan, y + 0.5).reshape(-1, 1)
    store = _ingest(tmp_path, y=given, label_kind=kind, split="random:50/25/25")
    parts = [store.split(name) for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [45, 22, 23]
    assert all((np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.flatnonzero(y >= 0))


def test_random_splits_are_the_nodes_in_the_order_of_their_draws() -> None:
    y = np.zeros(300_000, dtype=np.int64)
    y[::7] = -1
    found = random(y, 20, 30, seed=5)
    ids = np.flatnonzero(y >= 0)
    ordered = ids[np.argsort(mix(np.uint64(derive(5, 0x5150117)) + ids.astype(np.uint64) * GOLDEN))]
    first, second = len(ids) // 5, len(ids) // 2
    assert np.array_equal(found["train"], np.sort(ordered[:first]))
    assert np.array_equal(found["valid"], np.sort(ordered[first:second]))
    assert np.array_equal(found["test"], np.sort(ordered[second:]))


def test_random_splits_follow_the_seed_alone(tmp_path: Path) -> None:
    def drawn(folder: str, seed: int) -> list[int]:
        return _ingest(tmp_path / folder, y=_labels(), split="random:60/20/20", split_seed=seed).split("train").tolist()

    assert drawn("a", 1) == drawn("b", 1) != drawn("c", 2)


@pytest.mark.parametrize("split", ["random:60/20/20", "per-class:5/5"])
def test_memory_of_splits_that_are_drawn_is_counted(tmp_path: Path, split: str) -> None:
    with pytest.raises(MemoryBudgetError, match="GS-MEM-002: node ids of the splits needs 117"):
        ingest_arrays(tmp_path, NONE, NONE, 5000, y=np.arange(5000) % 3, split=split, memory=100_000, workers=1)


def test_random_splits_of_too_few_or_no_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-102: --split random needs labels"):
        _ingest(tmp_path / "none", split="random:60/20/20")
    y = np.where(np.arange(N) < 2, 0, -1)
    with pytest.raises(InputDataError, match="GS-IN-145: random:60/20/20 of 2 labelled nodes: a split is empty"):
        _ingest(tmp_path / "few", y=y, split="random:60/20/20")


def _labels() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat([-1, 0, 1, 2], 25))


def test_per_class_takes_equal_numbers_and_leaves_the_rest_to_test(tmp_path: Path) -> None:
    y = _labels()
    store = _ingest(tmp_path, y=y, split="per-class:5/8")
    parts = {name: store.split(name) for name in ("train", "valid", "test")}
    assert [np.bincount(y[parts[name]]).tolist() for name in parts] == [[5] * 3, [8] * 3, [12] * 3]
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.flatnonzero(y >= 0))


def test_per_class_depends_on_its_seed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _ingest(tmp_path / "a", y=_labels(), split="per-class:5/8", split_seed=1)
    monkeypatch.setattr("gnnsys.ingestion.splits._STEP", 7)
    again = _ingest(tmp_path / "b", y=_labels(), split="per-class:5/8", split_seed=1)
    other = _ingest(tmp_path / "c", y=_labels(), split="per-class:5/8", split_seed=2)
    assert first.digest == again.digest
    assert first.split("train").tolist() != other.split("train").tolist()


@pytest.mark.parametrize("split", [None, "given", "given:0", "none"])
def test_a_seed_for_a_split_that_is_not_drawn_is_refused(tmp_path: Path, split: str | None) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-108: --split-seed 3 was given with --split"):
        _ingest(tmp_path, {"train": [1]}, split=split, split_seed=3)


def test_no_seed_is_seed_zero(tmp_path: Path) -> None:
    made = [_ingest(tmp_path / str(s), y=_labels(), split="per-class:5/8", split_seed=s).id for s in (None, 0)]
    assert made[0] == made[1]


def test_splits_may_share_nodes_when_told_so(tmp_path: Path) -> None:
    store = _ingest(tmp_path, {"train": [1, 2], "test": [3, 2]}, allow_overlap=True)
    assert (store.split("train").tolist(), store.split("test").tolist()) == ([1, 2], [2, 3])
    assert store.verify(deep=True) == []


@pytest.mark.parametrize("split", ["none", "per-class:1/1"])
def test_an_overlap_is_refused_where_it_would_change_nothing(tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-108: --allow-overlap was given with --split"):
        _ingest(tmp_path, y=_labels(), split=split, allow_overlap=True)


def test_every_node_of_a_class_is_as_likely_to_be_drawn() -> None:
    taken = np.zeros(N)
    for seed in range(60):
        splits = make_splits(parse_split("per-class:10/1", seed), [], N, None, np.zeros(N, dtype=np.int64), 1)
        taken[splits["train"]] += 1
    # Chi-square with 99 degrees of freedom: 149 is passed once in 1,000 keys; draws without replacement vary less.
    assert ((taken - 6) ** 2 / 6).sum() < 149


def test_a_class_that_is_too_small_is_named(tmp_path: Path) -> None:
    y = np.zeros(N, dtype=int)
    y[:6] = 1
    with pytest.raises(InputDataError, match="GS-IN-145: class 1 has 6 labelled nodes, per-class:5/2 needs 7"):
        _ingest(tmp_path, y=y, split="per-class:5/2")


def test_per_class_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-102"):
        _ingest(tmp_path, split="per-class:5/2")


def test_splits_follow_their_nodes_into_the_largest_component(tmp_path: Path) -> None:
    splits = {"train": np.array([90, 3, 40]), "test": np.array([41, 5])}
    store = ingest_arrays(tmp_path, np.array([3, 40]), np.array([40, 41]), N, splits=splits, largest_component=True)
    assert {name: store.split(name).tolist() for name in store.split_names} == {"train": [0, 1], "test": [2]}


@pytest.mark.parametrize(
    "text",
    ["givn", "given:-1", "given:x", "per-class:20", "per-class:0/5", "random:0.5/0.2", ""]
    + [f"random:{parts}" for parts in ("60/20", "60/20/30", "80/20/0", "\uff16\uff10/20/20", "9" * 5000)]
    + ["given:\u00b2", f"per-class:{'1' * 5000}/1"],
)
def test_an_unknown_rule_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-101(?s:.*)given, given:K, per-class:20/30 .* or none"):
        parse_split(text, 0)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-146: split '\.\./train'"):
        _ingest(tmp_path, splits={"../train": np.array([1])})


def test_more_classes_than_nodes_are_refused_before_a_list_of_them_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="GS-IN-145: per-class:5/2 of 2000000001 classes"):
        _ingest(tmp_path, y=np.full(N, 2_000_000_000), split="per-class:5/2")


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_outside_the_keys_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"GS-CFG-106: --split-seed is {seed}"):
        parse_split("per-class:5/2", seed)
