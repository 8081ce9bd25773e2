"""In which order an epoch delivers the batches of a pool, and which of them belong to one rank."""

from __future__ import annotations

import numpy as np

from gnnsys.keys import derive, permutation


def epoch_order(
    num_batches: int, epoch: int, *, seed: int, shuffle: bool, rank: int = 0, world_size: int = 1
) -> np.ndarray:
    """Numbers of the batches that `rank` gets in `epoch`, in order: (m,) int64.

    The order of all ranks together is a permutation drawn from (seed, epoch), or 0, 1, ... without `shuffle`; a rank
    takes every `world_size`-th, beginning with its own number. Nothing is dropped or repeated: ranks may differ by
    one batch.
    """
    order = permutation(num_batches, derive(seed, epoch)) if shuffle else np.arange(num_batches)
    return order[rank::world_size]
