"""Additions: tables and splits that joined a finished Store later, each an artefact of its own inside it.

    STORE/added/table-emb/manifest.json  tables/emb.bin
    STORE/added/split-mine/manifest.json  splits/mine.bin

The Store's own parts, id and digest stay as they are; an addition names the Store it belongs to. One that is not
finished is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.manifest import NAME, FileEntry, Manifest, read_manifest

FORMAT = "gnnsys-addition"
VERSION = 1
FOLDER = "added"


@dataclass(frozen=True)
class Part:
    """One file of a Store, and the artefact that it belongs to."""

    folder: Path
    artefact_id: str
    entry: FileEntry

    @property
    def path(self) -> Path:
        return self.folder / self.entry.path


def parts_of(folder: Path, manifest: Manifest) -> Iterator[Part]:
    """The files of an artefact."""
    return (Part(folder, manifest.id, entry) for entry in manifest.files)


def addition_folder(store: Path, role: str, name: str) -> Path:
    """Where table or split `name`, as `role` says, is added to a Store."""
    return store / FOLDER / f"{role}-{name}"


def read_additions(store: Path, store_id: str, num_nodes: int, ids: str) -> Iterator[Part]:
    """The files of all finished additions of a Store, in the order of their names.

    Args:
        ids: dtype name of node ids.

    Raises:
        CorruptStoreError: one belongs to another Store, or its files are not a table or a split of this one.
    """
    for folder in sorted((store / FOLDER).glob("*/")):
        if not (folder / NAME).exists():
            continue
        manifest = read_manifest(folder, FORMAT, VERSION)
        if manifest.inputs.get("store") != store_id:
            raise CorruptStoreError(
                "GS-STORE-012", f"{folder}: was added to another Store", hint=f"Delete {folder}, then add it again."
            )
        for part in parts_of(folder, manifest):
            _check(part, num_nodes, ids)
            yield part


def _check(part: Part, num_nodes: int, ids: str) -> None:
    entry = part.entry
    table = entry.role == "table" and len(entry.shape) == 2 and entry.shape[0] == num_nodes
    split = entry.role == "split" and len(entry.shape) == 1 and entry.dtype == ids
    if not (table or split or entry.role == "block_sums"):
        raise CorruptStoreError(
            "GS-STORE-001", f"{part.folder}: {entry.path} is no {entry.role} {entry.shape} of the Store"
        )
