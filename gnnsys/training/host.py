"""The machine that trains: its device, its threads, and what a run tells of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import gnnsys
from gnnsys.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of an option: `auto` is CUDA where there is one.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise ConfigError("GS-CFG-523", f"--device {name}: torch sees no CUDA device", hint="Use --device cpu.")
    return torch.device(name)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """torch with `count` threads, as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def host_facts(device: torch.device) -> dict[str, Any]:
    """Cores, bytes of memory, name of the GPU and torch threads, as the event of a start has them."""
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cores": os.cpu_count(), "ram": ram, "gpu": gpu, "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    """Of what decides the last bits."""
    own = {"gnnsys": gnnsys.__version__, "python": platform.python_version()}
    return {**own, "torch": torch.__version__, "numpy": np.__version__}
