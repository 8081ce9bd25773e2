"""Every parser as a function of bytes, by name."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.foreign import FOREIGN
from tests.fuzz.ours import OURS
from tests.golden import make_golden

TARGETS = {**FOREIGN, **OURS}


def make_room(folder: Path) -> Path:
    """A folder to fuzz in."""
    make_golden(folder / "golden")
    return folder
