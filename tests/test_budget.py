"""Shares of the memory budget, and growth as the promise words it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gnnsys.budget import Budget, GrowthMeter, peak_growth
from gnnsys.errors import MemoryBudgetError


def test_what_does_not_fit_is_refused_with_every_share_named() -> None:
    budget = Budget(100 << 20)
    budget.reserve(70 << 20, "cache")
    with pytest.raises(MemoryBudgetError, match=r"step needs 40.0 MiB, 30.0 MiB are left .* cache 70.0 MiB") as error:
        budget.reserve(40 << 20, "step")
    assert "--memory 110MiB " in error.value.hint


def test_what_is_reserved_in_a_fork_is_not_reserved_in_its_origin() -> None:
    budget = Budget(100)
    budget.reserve(60, "model")
    fork = budget.fork()
    fork.reserve(30, "ids")
    assert (fork.left, budget.left) == (10, 40)


def test_reserving_one_name_again_replaces_its_share() -> None:
    budget = Budget(100)
    budget.reserve(80, "cache")
    budget.reserve(90, "cache")
    assert budget.left == 10


def test_a_share_held_in_a_with_block_is_given_back_after_an_error() -> None:
    budget = Budget(100)
    with pytest.raises(ValueError, match="x"), budget.holding(60, "sort"):
        raise ValueError("x")
    assert budget.left == 100


def test_the_meter_keeps_the_peak_after_memory_is_given_back() -> None:
    with GrowthMeter(interval_s=0.001) as meter:
        held = np.ones(64 << 20, dtype=np.uint8)
        assert meter.peak_growth >= held.nbytes * 0.9
        del held
    assert meter.peak_growth >= (64 << 20) * 0.9


def test_the_meter_tells_what_was_used_since_it_was_asked() -> None:
    with GrowthMeter(interval_s=0.001) as meter:
        held = np.ones(64 << 20, dtype=np.uint8)
        assert meter.recent_growth() >= held.nbytes * 0.9
        del held
        meter.recent_growth()
        assert meter.recent_growth() < (16 << 20)


def test_what_is_left_out_is_no_growth_but_what_comes_later_is() -> None:
    held = []
    with GrowthMeter(interval_s=0.001) as meter:
        meter.leave_out(lambda: held.append(np.ones(64 << 20, dtype=np.uint8)))
        assert meter.peak_growth < (16 << 20)
        held.append(np.ones(32 << 20, dtype=np.uint8))
        assert meter.peak_growth >= (32 << 20) * 0.9


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel keeps no peak to reset")
def test_a_peak_between_two_samples_is_not_missed() -> None:
    peak_growth(lambda: np.ones(96 << 20, dtype=np.uint8))  # an earlier, higher peak does not count
    grown = peak_growth(lambda: np.ones(64 << 20, dtype=np.uint8), interval_s=60)
    assert 60 << 20 <= grown <= 70 << 20


def test_a_freed_block_goes_back_even_after_larger_ones_were_freed() -> None:
    code = """
import numpy as np
from gnnsys.budget import counted_bytes, give_back_freed_blocks
give_back_freed_blocks()
np.ones(30 << 20, dtype=np.uint8)  # glibc would now keep blocks of up to 30 MiB
blocks = [np.ones(8 << 20, dtype=np.uint8) for _ in range(8)]
above = np.ones(200_000, dtype=np.uint8)  # in a heap this would hold what lies below it
before = counted_bytes()
del blocks
print(before - counted_bytes())
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) >= 60 << 20
