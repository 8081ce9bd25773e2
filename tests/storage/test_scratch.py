"""Memory of rows is used again only when nothing refers to it any more."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from gnnsys.storage.files import PAGE
from gnnsys.storage.scratch import ArrayMemory, Scratch
from gnnsys.storage.tables import torch_rows

F32 = np.dtype(np.float32)


def test_memory_let_go_of_is_used_again() -> None:
    memory = ArrayMemory(kept=2)
    rows = memory.take((10, 3), F32)
    address = rows.ctypes.data
    del rows
    assert memory.take((11, 3), F32).ctypes.data == address


def test_memory_in_use_is_not_handed_out() -> None:
    memory = ArrayMemory(kept=2)
    held = [memory.take((10, 3), F32) for _ in range(4)]
    assert len({rows.ctypes.data for rows in held}) == 4


@pytest.mark.parametrize("view", [lambda t: t[3:4], lambda t: t.numpy(), lambda t: t.view(torch.int32).T])
def test_any_view_of_a_tensor_keeps_its_memory(view) -> None:
    memory = ArrayMemory(kept=2)
    rows = memory.take((10, 3), F32)
    rows[:] = 1
    kept = view(torch_rows(rows, "F32"))
    before = kept.tolist()
    del rows
    gc.collect()
    memory.take((10, 3), F32)[:] = 2
    assert kept.tolist() == before


def test_a_larger_batch_gets_larger_memory() -> None:
    memory = ArrayMemory(kept=2)
    memory.take((10, 3), F32)
    rows = memory.take((100_000, 3), F32)
    rows[:] = 1
    assert rows.shape == (100_000, 3)
    assert rows.ctypes.data % PAGE == 0


def test_scratch_is_kept_between_batches_and_belongs_to_its_name() -> None:
    scratch = Scratch()
    first = scratch.get("run", 5000)
    assert len(first) == 5000
    assert scratch.get("run", 100).ctypes.data == first.ctypes.data
    assert scratch.get("blob", 100).ctypes.data != first.ctypes.data
