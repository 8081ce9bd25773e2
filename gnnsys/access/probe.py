"""Open the reader that is fastest here: each that works is tried for a moment on the table itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from gnnsys.access.readers import CachedReader, CpuReader, FeatureReader, StagedReader, ZeroCopyReader
from gnnsys.errors import ConfigError, GnnsysError

Backend = Literal["auto", "cpu", "staged", "uva"]
_PROBE_S, _PROBE_BYTES = 0.8, 64 << 20


def open_reader(
    table: Tensor, device: torch.device | str = "cpu", backend: Backend = "auto", *, hot: Tensor | None = None
) -> FeatureReader:
    """A reader of `table` for `device`.

    Args:
        table: (N, F) on the CPU.
        backend: `cpu` for a CPU, `staged` or `uva` for a GPU; `auto` takes the fastest that works, found in two
            seconds beside the time to page-lock the table.
        hot: (H,) ids of rows to keep on the device.

    Raises:
        ConfigError: the backend that was asked for cannot work here, and why.
    """
    device = torch.device(device)
    reader = _opened(table, device, backend)
    if hot is None:
        return reader
    try:
        return CachedReader(table, hot, device, reader)
    except GnnsysError:
        reader.close()
        raise


def _opened(table: Tensor, device: torch.device, backend: Backend) -> FeatureReader:
    makers: dict[str, Callable[[], FeatureReader]] = {"cpu": lambda: CpuReader(table)}
    if device.type == "cuda":
        makers = {"staged": lambda: StagedReader(table, device), "uva": lambda: ZeroCopyReader(table, device)}
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("GS-CFG-820", f"rows for {device}: torch sees no CUDA device", hint="Use device='cpu'.")
    if backend != "auto" and backend not in makers:
        raise ConfigError(
            "GS-CFG-820", f"backend {backend!r} is not for {device}", hint=f"Use auto or {' or '.join(makers)}."
        )
    if backend != "auto":
        return makers[backend]()
    if device.type == "cpu" or table.numel() == 0:  # nothing to measure
        return next(iter(makers.values()))()
    return _fastest(table, device, list(makers.values()))


def _fastest(table: Tensor, device: torch.device, makers: list[Callable[[], FeatureReader]]) -> FeatureReader:
    rates: list[tuple[float, FeatureReader]] = []
    problem: Exception | None = None
    for make in makers:
        try:
            reader = make()
        except GnnsysError:  # the registry has warned
            continue
        try:
            rates.append((_rate(reader, table, device), reader))
        except (GnnsysError, RuntimeError, OSError, ValueError) as error:  # what CUDA and its compiler raise
            reader.close()
            problem = error
    if not rates:
        raise ConfigError("GS-CFG-820", f"no way to bring rows to the GPU works ({problem})") from problem
    rates.sort(key=lambda found: found[0])
    for _, slower in rates[:-1]:
        slower.close()
    return rates[-1][1]


def _rate(reader: FeatureReader, table: Tensor, device: torch.device) -> float:
    """Rows per second for random ids."""
    count = max(1, min(len(table), _PROBE_BYTES // max(table[:1].nbytes, 1)))
    ids = torch.randint(len(table), (count,), generator=torch.Generator().manual_seed(0))
    reader.gather(ids)
    torch.cuda.synchronize(device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < _PROBE_S:
        reader.gather(ids)
        torch.cuda.synchronize(device)
        done += count
    return done / (time.perf_counter() - began)
