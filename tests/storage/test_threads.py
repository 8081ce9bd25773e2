"""Threads: how many, and results in order whatever happens."""

import os
import threading

import pytest

from gnnsys.errors import ConfigError
from gnnsys.storage.threads import in_order, num_workers


def test_without_a_number_every_core_works() -> None:
    assert num_workers(None) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("given", [0, -1])
def test_fewer_than_one_worker_is_refused(given: int) -> None:
    with pytest.raises(ConfigError, match=f"GS-CFG-003: workers is {given}; it must be at least 1"):
        num_workers(given)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    with in_order(lambda n: n * n, range(50), workers) as squares:
        assert list(squares) == [n * n for n in range(50)]


def test_no_thread_is_left_behind_when_the_reader_stops_early() -> None:
    with in_order(lambda n: n, range(50), 3) as numbers:
        assert next(numbers) == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("gnnsys-work")]
