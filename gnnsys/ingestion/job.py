"""Job: one ingest under way: its stage, its share of memory and threads, and files that grow in journalled units."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.progress import Progress
from gnnsys.storage.files import disk_errors, make_durable, open_sized, write_all
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.stage import Stage
from gnnsys.storage.writer import SequentialWriter

MAX_UNIT_BYTES = 64 << 20
MAX_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Job:
    """What every step needs. Block and unit sizes follow the memory; the bytes written never do."""

    stage: Stage
    budget: Budget
    workers: int
    progress: Progress

    @property
    def sort_bytes(self) -> int:
        """Keys sorted at a time."""
        return self.budget.total // 2

    @property
    def block_bytes(self) -> int:
        """One block of rows; up to `workers + 2` exist at once, each with temporaries of its size."""
        return min(MAX_BLOCK_BYTES, self.budget.total // (8 * (self.workers + 2)))

    @property
    def unit_bytes(self) -> int:
        """What is written between two journal records, at least."""
        return min(MAX_UNIT_BYTES, self.budget.total // 4)

    def finished_files(self, name: str) -> tuple[FileEntry, ...] | None:
        """Entries that `finish_files` noted under `name`, None when that step is not done."""
        payload = self.stage.done.get(f"files/{name}")
        if payload is None:
            return None
        return tuple(FileEntry(**{**entry, "shape": tuple(entry["shape"])}) for entry in payload["entries"])

    def finish_files(self, name: str, entries: tuple[FileEntry, ...], **facts: Any) -> None:
        """Note that the files of step `name` are complete; `facts` come back in `stage.done`."""
        self.stage.record(f"files/{name}", entries=[asdict(entry) for entry in entries], **facts)

    def facts(self, name: str) -> dict[str, Any]:
        """What was noted with `finish_files`."""
        return self.stage.done[f"files/{name}"]

    def writer(self, path: str, state: dict[str, Any] | None, *, num_bytes: int | None = None) -> SequentialWriter:
        """A file of the artefact, continued from the journalled `state` or begun anew."""
        return SequentialWriter(self.stage.folder, path, self.stage.id, num_bytes=num_bytes, resume=state)


def write_scratch(path: Path, pieces: Iterable[np.ndarray]) -> None:
    """Write arrays one after another into a scratch file and make it durable.

    Only what the system says of `path` is explained as its trouble; what making the pieces raises is passed on.
    """
    fd = open_sized(path, 0)
    offset = 0
    try:
        for piece in pieces:
            with disk_errors(path):
                write_all(fd, piece, offset)
            offset += piece.nbytes
        with disk_errors(path):
            make_durable(fd)
    finally:
        os.close(fd)
