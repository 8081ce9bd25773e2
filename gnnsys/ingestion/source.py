"""Source: what a graph to ingest must offer, whatever it comes from.

A source is opened cheaply, fingerprinted, prepared (unpacked or parsed into scratch files, in units that survive a
kill) and then read at random: edges by number, rows by node. Sources check the form of what they read; whether ids,
labels and splits make sense together is checked once, by those who write them.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.storage.files import map_array

if TYPE_CHECKING:
    from gnnsys.ingestion.job import Job


def require_file(path: Path, hint: str = "") -> None:
    """Raise InputDataError unless `path` is a regular file: a pipe may never end, and cannot be read twice."""
    if not path.exists():
        raise InputDataError("GS-IN-100", f"{path}: no such file", hint=hint)
    if not path.is_file():
        raise InputDataError("GS-IN-100", f"{path}: not a regular file")


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """What a damaged `.gz`, or a file that is none, raises while it is read, as InputDataError."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputDataError(
            "GS-IN-108",
            f"{path}: cannot be unpacked ({error})",
            hint="It is damaged, or not a .gz file at all (a page of a web site?). Download it again.",
        ) from None


NOTHING_SKIPPED: Mapping[str, int] = MappingProxyType({})
"""Of sources that are no texts."""


@dataclass(frozen=True)
class Rows:
    """A table that is read block by block: `read(start, stop)` gives (stop - start, columns) of `dtype`."""

    num_rows: int
    columns: int
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    sequential: bool = False
    """Blocks are to be asked for one at a time and in order: going back is possible, and slow."""
    class_names: tuple[str, ...] = ()
    """Of labels: what their numbers are called."""
    column_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Names:
    """The user's own ids as raw files: UTF-8 bytes, and (N + 1,) int64 offsets into them."""

    text_path: Path
    offsets_path: Path

    def __len__(self) -> int:
        return self.offsets_path.stat().st_size // 8 - 1

    def __getitem__(self, node: int) -> str:
        text, offsets = self.mapped()
        return text[offsets[node] : offsets[node + 1]].tobytes().decode()

    def numbers(self) -> dict[bytes, int]:
        """The number of every name, in memory."""
        text, offsets = self.mapped()
        return {text[offsets[i] : offsets[i + 1]].tobytes(): i for i in range(len(self))}

    def mapped(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes, and where each name begins; mapped."""
        offsets = map_array(self.offsets_path, "<i8", (len(self) + 1,))
        return map_array(self.text_path, "|u1", (int(offsets[-1]),)), offsets


class Source(Protocol):
    """A graph with rows, labels and splits. Everything but `fingerprint` and `input_bytes` is valid after `prepare`."""

    num_nodes: int | None
    """None when only the edges tell: largest id + 1."""
    num_edges: int
    sequential: bool
    """As of `Rows`, of the edges."""
    num_classes: int | None
    """None when only the labels tell: largest label + 1."""
    label_kind: str | None
    """`class`, `multilabel` or `regression`; None when only the labels tell, see `write_labels`."""
    tables: Mapping[str, Rows]
    labels: Rows | None
    """One column of classes, -1 = unlabelled, or a column per answer or number, NaN = unlabelled."""
    weights: Rows | None
    """One number per edge, read like `edges`; None where all count the same."""
    names: Names | None
    skipped: Mapping[str, int]
    """How much of texts is not in the graph: `header_lines` (of column names), `comment_lines` (that begin with # or
    %), `ignored_columns` (of edges, that are neither ends nor weights)."""

    @property
    def splits(self) -> list[dict[str, np.ndarray]]:
        """Versions of the given splits: node ids by name, in any order. Empty when there are none."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Identity of the input: content digests of files, parameters of generators."""
        ...

    def input_bytes(self) -> int:
        """Scratch that `prepare` writes, as far as it can be told before."""
        ...

    def prepare(self, job: Job) -> None:
        """Make edges and rows randomly readable."""
        ...

    def edges(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Sources and destinations of edges start .. stop, each (stop - start,) int64."""
        ...

    def edge_place(self, number: int) -> str:
        """Where the user finds edge `number`: `edges.csv row 17`."""
        ...
