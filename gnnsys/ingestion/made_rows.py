"""Features for graphs that have none: the in-degree of every node, or noise, as the user asks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gnnsys.errors import ConfigError
from gnnsys.ingestion.kernels import noise_rows
from gnnsys.ingestion.source import Rows
from gnnsys.keys import derive
from gnnsys.storage.files import map_array
from gnnsys.storage.store import INDPTR

_RANDOM = re.compile(r"random:(\d{1,6})(?::(\d{1,18}))?")
_TAG = 0xFEA7


@dataclass(frozen=True)
class MadeFeatures:
    """Table `x` as `degree` (one column) or `random:COLUMNS:SEED` (mean 0, variance 1) describe it, float32."""

    columns: int
    seed: int | None = None
    """Of the noise; None takes degrees."""

    @property
    def parameter(self) -> str:
        """Canonical spelling for the manifest."""
        return "degree" if self.seed is None else f"random:{self.columns}:{self.seed}"

    def rows(self, folder: Path, num_nodes: int) -> Rows:
        """Of the graph in `folder`, whose topology is written. A row depends on the number of its node alone."""

        def degrees(start: int, stop: int) -> np.ndarray:
            indptr = map_array(folder / INDPTR, "<i8", (num_nodes + 1,))
            return np.diff(indptr[start : stop + 1]).astype(np.float32)[:, None]

        def noise(start: int, stop: int) -> np.ndarray:
            out = np.empty((stop - start, self.columns), dtype=np.float32)
            noise_rows(np.uint64(derive(self.seed or 0, _TAG)), np.arange(start, stop), out)
            return out

        read = degrees if self.seed is None else noise
        return Rows(num_nodes, self.columns, np.dtype(np.float32), read)


def made_features(text: str | Path | None) -> MadeFeatures | None:
    """What `degree`, `random:COLUMNS` or `random:COLUMNS:SEED` ask for; None for everything else: the name of a file.

    Raises:
        ConfigError: noise without columns.
    """
    if text == "degree":
        return MadeFeatures(1)
    match = _RANDOM.fullmatch(str(text))
    if match is None and not str(text).startswith("random:"):
        return None
    if match is None or not int(match[1]):
        raise ConfigError("GS-CFG-972", f"--features {text}: expected random:COLUMNS or random:COLUMNS:SEED")
    return MadeFeatures(int(match[1]), int(match[2] or 0))
