"""Fixtures that several folders share: where real data sets are, torch on one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OUTDATED_IGNORE", "1")  # ogb asks the network for newer versions, in a thread
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_file() -> Callable[[str], Path]:
    """Path of a real data file such as `static/planetoid-cora/cora.npz`.

    Looked up in $GNNSYS_DATA or ../shared/data. Where it is absent the test skips; on CI it fails.
    """

    def find(name: str) -> Path:
        path = Path(os.environ.get("GNNSYS_DATA", _BESIDE)) / name
        if not path.exists():
            if os.environ.get("CI") == "true":
                pytest.fail(f"{path} is missing, and on CI it must be there")
            pytest.skip(f"{path} is not on this machine")
        return path

    return find


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread: batches this small only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
