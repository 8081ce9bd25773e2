"""How a Store is sampled, as the options of `sample`, `plan` and `pack` say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.cli.common import parse_fanouts
from gnnsys.errors import ConfigError
from gnnsys.ingestion.npy import map_npy


def sampling_options(
    fanouts: str | None, batch_size: int | None, seeds: str | None, seed: int | None
) -> dict[str, Any]:
    """What a Store is sampled with, defaults filled in."""
    return {
        "fanouts": parse_fanouts("10,5" if fanouts is None else fanouts),
        "batch_size": 1024 if batch_size is None else batch_size,
        "seeds": _seeds("train" if seeds is None else seeds),
        "seed": 0 if seed is None else seed,
    }


def _seeds(given: str) -> str | np.ndarray:
    """Name of a split, which never ends in .npy, or the ids in a file."""
    return map_npy(Path(given)) if given.endswith(".npy") else given


def refuse_sampling_options(source: Path, **given: object) -> None:
    """A Pool was sampled already: options that would change nothing are refused.

    Raises:
        ConfigError: one of them was given.
    """
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                "GS-CFG-704",
                f"--{name.replace('_', '-')} was given with the Pool {source}, which is sampled already",
                hint="Leave it out, or give the Store.",
            )
