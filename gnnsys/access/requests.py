"""How a GPU reads rows of host memory: the shape of a launch, and how many lines of 128 bytes it asks for.

A warp is 32 threads; what they read at once is fetched line by line, each line once. The model counts lines per row for
the ways to map threads to values. Source: Min et al. 2021 (PyTorch-Direct) for the flat kernel and its circular shift;
the aligned loop starts every row at a line of its own.
"""

from __future__ import annotations

import math

import numpy as np

LINE = 128
"""Bytes."""
WARP = 32
MAX_ELEMENT = 16
"""Bytes that a thread reads at once, at most."""
BLOCK = 1024


def element_bytes(address: int, row_bytes: int) -> int:
    """The widest value, 1 to 16 bytes, that every row starts at a multiple of and consists of."""
    return math.gcd(math.gcd(MAX_ELEMENT, address), row_bytes)


def block_shape(elements: int) -> tuple[int, int]:
    """(x, y) threads of a block for rows of so many elements: x threads share a row, y rows are in work at once."""
    x, y = BLOCK, 1
    while x >= 2 * elements and x > 1:
        x, y = x // 2, 2 * y
    return x, y


def is_aligned_loop(row_bytes: int) -> bool:
    """Whether a row is long enough for threads to wait for the start of its line."""
    return row_bytes > LINE


def least_lines(ids: np.ndarray, columns: int) -> float:
    """Lines per row of (n,) rows of float32 in a table that starts at a line, when each is fetched once."""
    begin = ids * columns * 4
    return float(np.mean((begin + columns * 4 - 1) // LINE - begin // LINE + 1))


def flat_lines(ids: np.ndarray, columns: int, *, shift: bool = False) -> float:
    """Lines per row when thread i reads value i of the output, row after row.

    Args:
        shift: rotate every row so that its warps begin at a line of the source.
    """
    row, column = np.divmod(np.arange(len(ids) * columns), columns)
    if shift and columns * 4 > LINE and columns * 4 % LINE:
        turned = column + (row * columns - ids[row] * columns) % WARP
        column = np.where(turned >= columns, turned - columns, turned)
    line = (ids[row] * columns + column) * 4 // LINE
    warp = np.arange(len(row)) // WARP
    return len(np.unique(np.stack([warp, line]), axis=1).T) / len(ids)


def aligned_lines(ids: np.ndarray, columns: int) -> float:
    """Lines per row of the loop that begins every row at a line: thread by thread, as the kernel runs."""
    row_bytes = columns * 4
    size = element_bytes(0, row_bytes)
    width, line_elements = row_bytes // size, LINE // size
    threads, _ = block_shape(width)
    asked = set()
    for number, source in enumerate(ids.tolist()):
        begin = source * width
        off = begin % line_elements if is_aligned_loop(row_bytes) else 0
        place = np.arange(-off, width)
        place = place[place >= 0]
        turn, lane = np.divmod(place + off, threads)
        line = (begin + place) // line_elements
        asked |= {(number, *each) for each in zip(turn.tolist(), (lane // WARP).tolist(), line.tolist(), strict=True)}
    return len(asked) / len(ids)
