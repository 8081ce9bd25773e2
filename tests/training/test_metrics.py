"""Metrics against slow obvious twins."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.training.metrics import Accuracy, RocAuc, make_metric


def pairwise_auc(scores: list[int], positive: list[bool]) -> float:
    """O(n^2): one for every positive above a negative, a half for a tie."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, is_a in zip(scores, positive, strict=True)
        for b, is_b in zip(scores, positive, strict=True)
        if is_a and not is_b
    ]
    return sum(wins) / len(wins)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40), st.integers(1, 40))
def test_roc_auc_equals_counting_all_pairs_however_it_is_cut_into_batches(
    rows: list[tuple[int, bool]], cut: int
) -> None:
    rows = [(0, True), (0, False), *rows]
    scores, positive = [r[0] for r in rows], [r[1] for r in rows]
    metric = RocAuc()
    for start in range(0, len(rows), cut):
        part = slice(start, start + cut)
        metric.update(torch.tensor(scores[part]).float(), torch.tensor(positive[part]).long())
    assert metric.compute() == pytest.approx(pairwise_auc(scores, positive), abs=1e-15)


def test_roc_auc_of_two_logits_ranks_by_their_difference() -> None:
    metric = RocAuc()
    metric.update(torch.tensor([[5.0, 6.0], [0.0, 3.0], [2.0, 1.0]]), torch.tensor([0, 1, 0]))
    assert metric.compute() == 1.0


def test_roc_auc_keeps_differences_that_a_softmax_would_round_to_one() -> None:
    metric = RocAuc()
    metric.update(torch.tensor([[0.0, 200.0], [0.0, 201.0]]), torch.tensor([0, 1]))
    assert metric.compute() == 1.0


def test_roc_auc_of_many_different_scores_takes_no_object_per_score() -> None:
    n = 200_000
    metric = RocAuc()
    metric.update(torch.arange(n), torch.arange(n) % 2)
    tracemalloc.start()
    try:
        assert metric.compute() == pytest.approx(0.5 + 1 / n, abs=1e-12)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 70 * n


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 30))
def test_accuracy_equals_a_loop_however_it_is_cut_into_batches(targets: list[int], cut: int) -> None:
    out = torch.tensor(np.random.default_rng(0).normal(size=(len(targets), 4)))
    expected = sum(int(row.argmax()) == t for row, t in zip(out, targets, strict=True)) / len(targets)
    metric = Accuracy()
    for start in range(0, len(targets), cut):
        metric.update(out[start : start + cut], torch.tensor(targets[start : start + cut]))
    assert metric.compute() == expected


@pytest.mark.parametrize("name", ["acc", "rocauc"])
def test_a_metric_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputDataError, match="GS-IN-501"):
        make_metric(name).compute()


@pytest.mark.parametrize("name", ["acc", "rocauc"])
def test_reset_forgets_everything(name: str) -> None:
    metric = make_metric(name)
    metric.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    metric.reset()
    metric.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0]))
    assert metric.compute() == 0.0


def test_roc_auc_of_one_class_is_refused() -> None:
    metric = RocAuc()
    metric.update(torch.tensor([0.1, 0.2]), torch.tensor([1, 1]))
    with pytest.raises(InputDataError, match="2 positives and 0 negatives"):
        metric.compute()


def test_nan_scores_are_refused() -> None:
    metric = RocAuc()
    metric.update(torch.tensor([0.1, float("nan")]), torch.tensor([1, 0]))
    with pytest.raises(InputDataError, match="1 of 2 scores are NaN"):
        metric.compute()


def test_an_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="acc, rocauc"):
        make_metric("f1")
