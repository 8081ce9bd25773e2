"""What a loader holds while it runs."""

from __future__ import annotations

import torch

from gnnsys.loading.loader import Loader
from tests.loading.conftest import World


def test_an_epoch_takes_no_more_memory_than_batches_that_live_at_once(world: World) -> None:
    with Loader(world.packed, prefetch=2, workers=2) as loader:
        addresses = set()
        for batch in loader:
            assert isinstance(batch.x, torch.Tensor)
            addresses.add(batch.x.data_ptr())
        assert len(addresses) <= 2 + 2 < len(loader)
