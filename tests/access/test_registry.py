"""Ranges are registered once, released after the last user, and kept alive until then."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from gnnsys.access.registry import PORTABLE_MAPPED, HostRegistry


class Cudart:
    """What CUDA would answer; a range cannot be registered twice."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.ranges: dict[int, int] = {}
        self.calls: list[tuple[int, int, int]] = []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.calls.append((address, size, flags))
        if self.code or address in self.ranges:
            return self.code or 712
        self.ranges[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        del self.ranges[address]
        return 0


def test_a_table_with_two_users_is_registered_once() -> None:
    cudart, table = Cudart(), torch.zeros(8, 4)
    registry = HostRegistry(cudart)
    assert registry.register(table)
    assert registry.register(table)
    assert cudart.calls == [(table.data_ptr(), 128, PORTABLE_MAPPED)]
    assert registry.num_bytes == 128
    registry.unregister(table)
    assert cudart.ranges == {table.data_ptr(): 128}
    registry.unregister(table)
    assert cudart.ranges == {}
    assert registry.register(table)  # and again from the start


def test_a_registered_table_is_kept_alive() -> None:
    registry, table = HostRegistry(Cudart()), torch.zeros(8, 4)
    alive = weakref.ref(table)
    registry.register(table)
    del table
    gc.collect()
    kept = alive()
    assert kept is not None
    registry.unregister(kept)
    del kept
    gc.collect()
    assert alive() is None


def test_views_of_a_table_share_its_range() -> None:
    cudart, table = Cudart(), torch.zeros(8, 4)
    registry = HostRegistry(cudart)
    assert registry.register(table[2:5])
    assert registry.register(table)
    assert cudart.calls == [(table.data_ptr(), 128, PORTABLE_MAPPED)]


def test_nothing_is_locked_for_an_empty_table() -> None:
    cudart, table = Cudart(), torch.zeros(0, 4)
    registry = HostRegistry(cudart)
    assert registry.register(table)
    registry.unregister(table)
    assert cudart.calls == []


def test_what_cannot_be_locked_is_said_once_and_not_fatal() -> None:
    registry = HostRegistry(Cudart(code=2))
    with pytest.warns(RuntimeWarning, match="GS-CFG-822.*error 2; the limit of locked memory"):
        assert not registry.register(torch.zeros(4))
    assert not registry.register(torch.zeros(4))
    assert registry.num_bytes == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch without CUDA")
def test_a_torch_without_cuda_cannot_register() -> None:
    with pytest.warns(RuntimeWarning, match="GS-CFG-822"):
        assert not HostRegistry().register(torch.zeros(4))
