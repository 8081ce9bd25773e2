"""Ids without repeats, in the memory that they take."""

import numpy as np
import pytest

from gnnsys.training.outputs import distinct


@pytest.mark.parametrize("ids", [[], [3], [1, 2, 9], [2, 1], [1, 1], [5, 0, 5, 2, 0]])
def test_distinct_ids_are_those_of_unique(ids: list[int]) -> None:
    assert distinct(np.array(ids, dtype=np.int64)).tolist() == np.unique(ids).tolist()


def test_ids_that_ascend_are_not_copied() -> None:
    ids = np.array([1, 4, 6])
    assert distinct(ids) is ids
