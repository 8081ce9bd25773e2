"""Caches stacked, dropped and read in any order deliver the rows of the array behind them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gnnsys.storage.table_base import Table
from gnnsys.storage.table_memory import CachedTable, MemoryTable
from tests.programme import record

EXAMPLES = int(os.environ.get("EXAMPLES", "30"))
DTYPES = st.sampled_from(["f4", "f8", "f2", "u1", "i1"])


class CacheMachine(RuleBasedStateMachine):
    """The model is the array."""

    @initialize(rows=st.integers(1, 50), columns=st.integers(0, 9), dtype=DTYPES)
    def make(self, rows: int, columns: int, dtype: str) -> None:
        self.array = np.random.default_rng(rows).integers(0, 100, (rows, columns)).astype(dtype)
        self.tables: list[Table] = [MemoryTable(self.array)]

    @rule(data=st.data(), given=st.booleans())
    def cache_some_rows(self, data: Any, given: bool) -> None:
        ids = data.draw(st.lists(st.integers(0, len(self.array) - 1), unique=True))
        chosen = np.array(ids, dtype=np.int64)
        self.tables.append(CachedTable(self.tables[-1], chosen, self.array[chosen] if given else None))

    @precondition(lambda self: len(self.tables) > 1)
    @rule()
    def drop_a_cache(self) -> None:
        self.tables.pop()

    @rule(data=st.data(), into=st.booleans())
    def read(self, data: Any, into: bool) -> None:
        ids = np.array(data.draw(st.lists(st.integers(0, len(self.array) - 1), max_size=80)), dtype=np.int64)
        out = np.full((len(ids), self.array.shape[1]), 7, dtype=self.array.dtype) if into else None
        found = self.tables[-1].read(ids, out)
        assert out is None or found is out
        assert np.array_equal(found, self.array[ids])


@pytest.mark.timeout(36_000)
def test_any_stack_of_caches_is_the_array() -> None:
    options = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None, derandomize=EXAMPLES < 100)
    run_state_machine_as_test(CacheMachine, settings=options)
    record("state machines", {"examples": EXAMPLES, "violations": 0})
