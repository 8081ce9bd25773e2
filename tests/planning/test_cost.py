"""The equations give the published figures, and bytes are counted page by page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gnnsys.planning import cost
from gnnsys.planning.calibrate import Speeds
from gnnsys.planning.cost import break_even, cache_share, loader_bytes, step_bytes
from gnnsys.planning.workload import Workload
from gnnsys.storage.packing import CACHED_NODE_BYTES

GIB = 1 << 30
FRIENDSTER, IGB = (65_608_366, 956_089_708), (269_346_174, 11_821_550_483)


def workload(num_nodes: int, nodes: list[int], row_bytes: int = 512) -> Workload:
    count = np.array(nodes, dtype=np.int64)
    return Workload(
        num_nodes=num_nodes,
        row_bytes=row_bytes,
        columns=row_bytes // 4,
        id_bytes=4,
        nodes=count,
        edges=2 * count,
        inner_nodes=count // 3,
        seeds=count // 30,
        pool_bytes=(12 * count + 4095) // 4096 * 4096,
    )


@pytest.mark.parametrize(
    ("graph", "cold", "blow_up", "gib"),
    [
        (FRIENDSTER, 354_083_726, 5.397, 168.8),
        (FRIENDSTER, 105_899_015, 1.614, 50.5),
        (FRIENDSTER, 36_821_295, 0.561, 17.6),
        (IGB, 2_824_637_334, 10.487, 1346.9),
        (IGB, 40_128_897, 0.149, 19.1),
        (IGB, 0, 0.0, 0.0),
    ],
)
def test_published_blow_up_and_reads_come_out(graph: tuple[int, int], cold: int, blow_up: float, gib: float) -> None:
    """DiskGNN's tables (out-of-core.md 5.2): 512-byte rows, a cache of 10, 30 or 50 percent."""
    num_nodes, requests = graph
    priced = cost.packed(workload(num_nodes, [requests]), np.array([cold]), num_nodes // 10, 0, None)
    assert priced.blow_up == pytest.approx(blow_up, abs=0.001)
    assert priced.rows_bytes / GIB == pytest.approx(gib, abs=0.05)
    assert priced.read_amplification == pytest.approx(1.0, abs=1e-5)


def test_runs_and_slots_are_counted_in_whole_pages() -> None:
    priced = cost.packed(workload(100, [10, 1, 0], row_bytes=500), np.array([9, 1, 0]), 5, 0, None)
    assert priced.rows_bytes == 8192 + 4096
    assert priced.slots_bytes == 2 * 4096
    assert priced.bytes == priced.rows_bytes + priced.slots_bytes + priced.pool_bytes
    assert priced.disk_bytes == priced.bytes + 5 * 500
    assert priced.peak_disk_bytes == priced.disk_bytes + 5 * 500 + 4 * (10 + 5)


def test_direct_reads_a_page_for_every_page_touched() -> None:
    priced = cost.direct(workload(1000, [100, 50]), np.array([100, 50]), 0, None)
    assert priced.rows_bytes == 150 * 4096
    assert priced.read_amplification == pytest.approx(8.0)
    assert priced.written_bytes == priced.slots_bytes == 0


def test_an_epoch_is_bound_by_the_slower_of_reading_and_copying() -> None:
    work, cold = workload(10_000, [1000]), np.array([800])
    fast = Speeds(read=1e12, write=1e12, random=1e12, copy=1e6)
    assert cost.packed(work, cold, 0, 0, fast).epoch_s == pytest.approx(512_000 / 1e6)
    slow = replace(fast, read=1e6, copy=1e12)
    priced = cost.packed(work, cold, 0, 0, slow)
    assert priced.epoch_s == pytest.approx(priced.bytes / 1e6)
    assert priced.prepare_s == pytest.approx(10_000 * 512 / 1e6, rel=1e-3)
    assert cost.direct(work, work.nodes, 0, replace(slow, random=100)).epoch_s == pytest.approx(10 + 12_288 / 1e6)


def test_packing_has_paid_after_prepare_over_what_an_epoch_saves() -> None:
    work = workload(10, [1])
    packed = replace(cost.packed(work, np.array([1]), 0, 0, None), prepare_s=10.0, epoch_s=1.0)
    direct = replace(cost.direct(work, work.nodes, 0, None), prepare_s=0.0, epoch_s=4.0)
    assert break_even(packed, direct) == 4
    assert break_even(replace(packed, epoch_s=4.0), direct) is None
    assert break_even(replace(packed, epoch_s=None), direct) is None
    assert packed.total_s(3) == 13.0


def test_the_cache_gets_what_loader_and_step_leave_and_at_most_half() -> None:
    work = workload(10_000, [1000, 400])
    need = loader_bytes(work, "packed", 3) + step_bytes(work)
    assert cache_share(work, need + 1000) == (1000, 3)
    assert cache_share(work, 10 * need) == (5 * need, 3)


def test_a_cache_of_narrow_rows_ends_where_packing_could_not_hold_its_ids() -> None:
    wide, narrow = workload(10**7, [1000], row_bytes=512), workload(10**7, [1000], row_bytes=4)
    share, _ = cache_share(wide, 64 << 20)
    assert cost.cache_rows(wide, 64 << 20, 48 << 20) == share // 512
    assert cost.cache_rows(narrow, 64 << 20, 48 << 20) == (16 << 20) // CACHED_NODE_BYTES
    assert cost.cache_rows(narrow, 64 << 20, 65 << 20) == 0


def test_in_little_memory_fewer_batches_are_in_flight_before_the_cache_is_given_up() -> None:
    work = workload(10_000, [1000])
    for batches in (3, 2, 1):
        need = loader_bytes(work, "packed", batches) + step_bytes(work)
        assert cache_share(work, need) == (0, batches)
    assert cache_share(work, need - 1) == (0, 1)


def test_the_largest_batch_decides_the_loader() -> None:
    small, large = workload(10_000, [1000]), workload(10_000, [1000, 900, 1])
    assert loader_bytes(small, "packed", 3) == loader_bytes(large, "packed", 3)
    assert loader_bytes(small, "packed", 3) > 3 * 1000 * 512
