"""hits@K and MRR are those of ogb's evaluator, ties included, however the pairs are cut into batches."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.training.link_metrics import Hits, Mrr

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ogb.linkproppred import Evaluator

SCORES = st.integers(0, 6).map(float)


def evaluator(dataset: str) -> Evaluator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Evaluator(name=dataset)


@pytest.mark.parametrize("name", ["ogbl-ppa", "ogbl-collab", "ogbl-ddi"])
@settings(max_examples=30, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=30), st.lists(SCORES, max_size=250), st.integers(1, 40))
def test_hits_are_those_of_ogb(name: str, positives: list[float], negatives: list[float], cut: int) -> None:
    theirs = evaluator(name)
    pos, neg = torch.tensor(positives), torch.tensor(negatives)
    ((key, expected),) = theirs.eval({"y_pred_pos": pos, "y_pred_neg": neg}).items()
    ours = Hits(theirs.K)
    for start in range(0, max(len(pos), len(neg)), cut):
        ours.update(pos[start : start + cut], neg[start : start + cut])
    assert ours.name == key
    assert ours.compute() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**31), st.integers(1, 5))
def test_mrr_is_that_of_ogb(num: int, negatives: int, seed: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(0, 5, (num,), generator=generator).float()
    neg = torch.randint(0, 5, (num, negatives), generator=generator).float()
    expected = evaluator("ogbl-citation2").eval({"y_pred_pos": pos, "y_pred_neg": neg})["mrr_list"].mean()
    ours = Mrr()
    for start in range(0, num, cut):
        ours.update(pos[start : start + cut], neg[start : start + cut])
    assert ours.compute() == pytest.approx(float(expected), rel=1e-6)


def test_what_is_not_defined_is_refused() -> None:
    with pytest.raises(ConfigError, match="GS-CFG-960"):
        Hits(0)
    for metric in (Hits(3), Mrr()):
        with pytest.raises(InputDataError):
            metric.compute()
        with pytest.raises(InputDataError, match="GS-IN-961"):
            metric.update(torch.tensor([float("nan")]), torch.zeros(1, 1) if metric.name == "mrr" else torch.zeros(1))
        with pytest.raises(InputDataError, match="GS-IN-960"):
            metric.update(torch.zeros(1), torch.zeros(3, 5))
