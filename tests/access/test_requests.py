"""The model of requests gives the published figures, and launches cover every value once."""

from __future__ import annotations

import numpy as np
import pytest

from gnnsys.access.kernel import launch_of
from gnnsys.access.requests import LINE, aligned_lines, block_shape, element_bytes, flat_lines, least_lines

GOLDEN = {
    100: (4.00, 6.58, 5.07, 4.00),
    129: (5.00, 8.79, 6.37, 5.00),
    172: (6.24, 10.76, 7.34, 6.25),
    300: (10.24, 18.20, 11.34, 10.24),
    602: (19.75, 36.72, 21.00, 19.75),
}
"""Lines per row of float32 columns: least, flat, with the circular shift, the aligned loop."""


@pytest.mark.parametrize("columns", GOLDEN)
def test_lines_per_row_are_those_published(columns: int) -> None:
    ids = np.random.default_rng(0).integers(0, 1_000_000, 2000)
    found = (
        least_lines(ids, columns),
        flat_lines(ids, columns),
        flat_lines(ids, columns, shift=True),
        aligned_lines(ids[:400], columns),
    )
    assert found == pytest.approx(GOLDEN[columns], rel=0.02)


@pytest.mark.parametrize(("columns", "lines"), [(32, 1), (64, 2), (128, 4), (256, 8), (768, 24), (1024, 32)])
def test_rows_that_fill_their_lines_ask_for_no_more(columns: int, lines: int) -> None:
    ids = np.random.default_rng(0).integers(0, 1_000_000, 200)
    assert least_lines(ids, columns) == flat_lines(ids, columns) == aligned_lines(ids, columns) == lines
    assert flat_lines(ids, columns, shift=True) == lines


@pytest.mark.parametrize(
    ("address", "row_bytes", "size"),
    [(0, 512, 16), (8, 512, 8), (4096, 400, 16), (4096, 516, 4), (4096, 602, 2), (1, 512, 1)],
)
def test_a_thread_copies_the_widest_value_that_fits(address: int, row_bytes: int, size: int) -> None:
    assert element_bytes(address, row_bytes) == size


@pytest.mark.parametrize(
    ("elements", "shape"), [(1, (1, 1024)), (3, (4, 256)), (32, (32, 32)), (43, (64, 16)), (5000, (1024, 1))]
)
def test_rows_share_a_block(elements: int, shape: tuple[int, int]) -> None:
    assert block_shape(elements) == shape


@pytest.mark.parametrize("row_bytes", [2, 4, 60, 128, 132, 400, 516, 688, 4096])
@pytest.mark.parametrize("address", [4096, 4096 + 16, 4096 + 4])
def test_a_launch_copies_every_value_once(row_bytes: int, address: int) -> None:
    """The kernel's loops in Python."""
    rng = np.random.default_rng(row_bytes)
    ids = rng.integers(0, 50, 37)
    launch = launch_of(address, 4096, row_bytes, len(ids), max_threads=4096)
    table = rng.integers(0, 1 << 30, (50 * launch.width,))
    out = np.full(len(ids) * launch.width, -1)
    for block in range(launch.grid):
        for y in range(launch.block[1]):
            for row in range(block * launch.block[1] + y, len(ids), launch.grid * launch.block[1]):
                begin = ids[row] * launch.width
                off = (launch.base + begin) % (LINE // launch.element) if launch.aligned else 0
                for x in range(launch.block[0]):
                    for column in range(x - off, launch.width, launch.block[0]):
                        if column >= 0:
                            assert out[row * launch.width + column] == -1
                            out[row * launch.width + column] = table[begin + column]
    assert (out.reshape(len(ids), -1) == table.reshape(50, -1)[ids]).all()


def test_a_launch_beside_training_stays_small() -> None:
    launch = launch_of(0, 0, 512, 1_000_000, max_threads=10_240)
    assert launch.grid * launch.block[0] * launch.block[1] <= 10_240
