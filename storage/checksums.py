"""Checksums: per-block sums that know where they belong, whole-file digests, and order-free sums of rows.

A block sum is seeded with (artefact id, path, block number), so a misplaced, swapped or stale block fails like a
flipped bit does. A chunk of packed rows arrives out of order, so its sum must not depend on the order of writes:

    row_sum(slot, words w_0 .. w_n) = mix(sum_j w_j * a_j + slot * GOLDEN)      a_j fixed and odd
    chunk_sum = sum of row_sum over its rows, modulo 2**64

An odd factor keeps every changed bit in the product and `mix` is bijective: one changed row always changes the sum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.kernels import row_sums

BLOCK_BYTES = 64 << 10
"""Unit of block sums: small enough that verifying a randomly read row stays cheap."""


def digest(data: bytes | memoryview) -> str:
    """`xxh3-128:<hex>` of some bytes."""
    return "xxh3-128:" + xxhash.xxh3_128_hexdigest(data)


def digest_file(path: Path, chunk_bytes: int = 4 << 20) -> str:
    """`xxh3-128:<hex>` of a file, read front to back."""
    state = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(chunk_bytes):
            state.update(chunk)
    return "xxh3-128:" + state.hexdigest()


def context_seed(artefact_id: str, path: str) -> int:
    """64-bit seed for the block sums of one file of one artefact."""
    return xxhash.xxh3_64_intdigest(f"{artefact_id}/{path}".encode())


def block_sum(data: bytes | memoryview, seed: int, number: int) -> int:
    """64-bit sum of block `number` under `seed`."""
    return xxhash.xxh3_64_intdigest(data, seed=(seed + number) & 0xFFFFFFFFFFFFFFFF)


def chunk_sum(rows: np.ndarray, *, first_slot: int = 0, slots: np.ndarray | None = None) -> int:
    """Order-free sum of packed rows.

    Args:
        rows: (R, B) uint8; row r lies in slot `slots[r]`, or in `first_slot + r`.
        slots: (R,) int64.

    Returns:
        A 64-bit sum; sums over parts of a chunk add up modulo 2**64 to the sum of the whole.
    """
    where = np.empty(0, dtype=np.int64) if slots is None else slots
    pad = -rows.shape[1] % 8
    if not pad and rows.flags.c_contiguous:
        return int(row_sums(rows.view(np.uint64), where, first_slot))
    total, step = 0, max(_PADDED_BYTES // (rows.shape[1] + pad), 1)
    for start in range(0, len(rows), step):
        part = np.pad(rows[start : start + step], ((0, 0), (0, pad))).view(np.uint64)
        total += int(row_sums(part, where[start : start + step], first_slot + start))
    return total % (1 << 64)


_PADDED_BYTES = 1 << 20
"""Rows that are no whole words are padded in copies of this size, so that a run needs no second one of its own."""


class BlockChecks:
    """The block sums of one file, checked on first touch and remembered.

    Args:
        sums: (ceil(size / BLOCK_BYTES),) uint64, as the manifest's side file holds them.
        seed: `context_seed` of the file.
        path: named in errors.
    """

    def __init__(self, sums: np.ndarray, seed: int, path: Path) -> None:
        self._sums = sums
        self._seed = seed
        self._path = path
        self._checked = np.zeros(len(sums), dtype=bool)

    def unchecked(self, blocks: np.ndarray) -> np.ndarray:
        """Those of the block numbers `blocks` that were not verified yet."""
        return blocks[~self._checked[blocks]]

    def check(self, number: int, data: memoryview) -> None:
        """Verify block `number`.

        Raises:
            CorruptStoreError: the bytes are not those that were written here.
        """
        if block_sum(data, self._seed, number) != int(self._sums[number]):
            raise CorruptStoreError(
                "GS-STORE-004",
                f"{self._path}: block {number} fails its checksum (file offset {number * BLOCK_BYTES})",
                hint="The file changed since it was written. Make it again, or copy it from a good one.",
            )
        self._checked[number] = True
