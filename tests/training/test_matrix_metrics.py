"""Metrics of label matrices: scikit-learn's numbers column by column, unknown values nowhere, any cut into batches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.training.matrix_metrics import MULTILABEL_METRICS, REGRESSION_METRICS
from gnnsys.training.metrics import make_metric

sklearn_metrics = pytest.importorskip("sklearn.metrics")
N, T = 200, 5


def answers() -> tuple[Tensor, Tensor]:
    """Logits of few values, so that many tie; of the last column only one answer is known."""
    rng = np.random.default_rng(0)
    out = rng.integers(-3, 4, (N, T)).astype(np.float32)
    y = np.where(rng.random((N, T)) < 0.3, np.nan, rng.integers(0, 2, (N, T))).astype(np.float32)
    y[:, -1] = np.where(np.isnan(y[:, -1]), np.nan, 1)
    return torch.from_numpy(out), torch.from_numpy(y)


def numbers() -> tuple[Tensor, Tensor]:
    """Years: far from 0 and close to each other."""
    rng = np.random.default_rng(1)
    y = (2015 + rng.normal(size=(N, T))).astype(np.float32)
    out = (y + rng.normal(size=(N, T)) / 2).astype(np.float32)
    y[rng.random((N, T)) < 0.2] = np.nan
    return torch.from_numpy(out), torch.from_numpy(y)


def computed(name: str, out: Tensor, y: Tensor, cut: int = N) -> float:
    metric = make_metric(name, {**MULTILABEL_METRICS, **REGRESSION_METRICS})
    for start in range(0, N, cut):
        metric.update(out[start : start + cut], y[start : start + cut])
    return metric.compute()


def per_column(function: str, out: Tensor, y: Tensor) -> float:
    """The mean over columns of scikit-learn's number of what is known in each."""
    found = []
    for scores, truth in zip(out.T.double().numpy(), y.T.double().numpy(), strict=True):
        known = ~np.isnan(truth)
        if len(np.unique(truth[known])) > 1:
            found.append(getattr(sklearn_metrics, function)(truth[known], scores[known]))
    return float(np.mean(found))


def test_roc_auc_is_the_mean_over_columns_with_both_answers() -> None:
    assert computed("rocauc", *answers()) == pytest.approx(per_column("roc_auc_score", *answers()), abs=1e-12)


def test_roc_auc_is_what_the_evaluator_of_ogb_says() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = pytest.importorskip("ogb.nodeproppred").Evaluator("ogbn-proteins")
    out, y = torch.randn(80, 112), torch.randint(0, 2, (80, 112)).float()
    expected = evaluator.eval({"y_true": y.numpy(), "y_pred": out.numpy()})["rocauc"]
    metric = MULTILABEL_METRICS["rocauc"]()
    metric.update(out, y)
    assert metric.compute() == pytest.approx(expected, abs=1e-12)


def test_f1_and_accuracy_count_all_known_answers_together() -> None:
    out, y = answers()
    known = ~y.isnan()
    truth, said = y[known].numpy(), (out[known] > 0).numpy()
    assert computed("f1", out, y) == pytest.approx(sklearn_metrics.f1_score(truth, said), abs=1e-12)
    assert computed("acc", out, y) == pytest.approx((truth == said).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "function"),
    [("rmse", "root_mean_squared_error"), ("mae", "mean_absolute_error"), ("r2", "r2_score")],
)
def test_errors_of_numbers_are_those_of_scikit_learn(name: str, function: str) -> None:
    # Sums of doubles in another order.
    assert computed(name, *numbers()) == pytest.approx(per_column(function, *numbers()), rel=1e-12)


@pytest.mark.parametrize("name", ["rocauc", "f1", "acc"])
@pytest.mark.parametrize("cut", [1, 7, 64])
def test_no_cut_into_batches_changes_a_count(name: str, cut: int) -> None:
    assert computed(name, *answers(), cut=cut) == computed(name, *answers())


@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
@pytest.mark.parametrize("cut", [1, 7, 64])
def test_no_cut_into_batches_changes_a_sum_beyond_rounding(name: str, cut: int) -> None:
    assert computed(name, *numbers(), cut=cut) == pytest.approx(computed(name, *numbers()), rel=1e-12)


@pytest.mark.parametrize("name", [*MULTILABEL_METRICS, *REGRESSION_METRICS])
def test_what_cannot_be_scored_is_refused_before_and_after(name: str) -> None:
    metric = make_metric(name, MULTILABEL_METRICS if name in MULTILABEL_METRICS else REGRESSION_METRICS)
    unknown = torch.full((4, T), torch.nan)
    with pytest.raises(InputDataError, match=r"GS-IN-50[13]"):
        metric.check(unknown)  # type: ignore[attr-defined]
    with pytest.raises(InputDataError, match="GS-IN-501"):
        metric.compute()
    metric.update(torch.zeros(4, T), unknown)
    with pytest.raises(InputDataError, match=r"GS-IN-50[13]"):
        metric.compute()


def test_targets_that_do_not_differ_have_no_r2() -> None:
    with pytest.raises(InputDataError, match="GS-IN-503: R2"):
        REGRESSION_METRICS["r2"]().check(torch.full((4, 2), 3.0))  # type: ignore[attr-defined]
    REGRESSION_METRICS["r2"]().check(numbers()[1])  # type: ignore[attr-defined]


def test_only_errors_are_better_when_lower() -> None:
    lower = {name for name, kind in (MULTILABEL_METRICS | REGRESSION_METRICS).items() if not kind.higher_is_better}
    assert lower == {"rmse", "mae"}


def test_a_metric_of_another_kind_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="GS-CFG-503: metric 'rmse' is not known; there are rocauc, acc, f1"):
        make_metric("rmse", MULTILABEL_METRICS)
