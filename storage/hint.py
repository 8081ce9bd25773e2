"""Where the Store of a Pack, Pool or Run was: a relative path in `hint.json` that no digest covers.

Identity is the Store's id; the path is only the first place to look, and `--store PATH` overrides it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from gnnsys.errors import CorruptStoreError, InputDataError
from gnnsys.storage.files import atomic_write, read_small
from gnnsys.storage.manifest import NAME as MANIFEST
from gnnsys.storage.manifest import canonical_json
from gnnsys.storage.store import Store

NAME = "hint.json"
_OVERRIDE = "Say where the Store is now: --store PATH (store=PATH in Python)."


def write_hint(folder: Path, store_path: Path, store_id: str) -> None:
    """Note in `folder` where the Store `store_id` is, relative to `folder` so that both may move together."""
    relative = os.path.relpath(store_path.resolve(), folder.resolve())
    atomic_write(folder / NAME, canonical_json({"store": relative, "id": store_id}) + b"\n")


def read_hint(folder: Path) -> str | None:
    """The relative path noted in `folder`; None when there is no readable hint."""
    try:
        path = str(json.loads(read_small(folder / NAME))["store"])
        return None if b"\0" in os.fsencode(path) else path
    except (CorruptStoreError, ValueError, KeyError, TypeError, RecursionError):
        return None


def resolve_store(folder: str | Path, override: str | Path | Store | None = None) -> Store:
    """The Store that the Pack, Pool or Run in `folder` was made from.

    Args:
        folder: holds `hint.json`; when it also holds a manifest, the Store's id is taken from that.
        override: where the Store is now, or the open Store itself; the hint when None.

    Raises:
        InputDataError: no Store is there, or it is another one: the graph changed, or the path is wrong.
    """
    folder = Path(folder)
    if isinstance(override, Store):
        return _same(override, folder)
    hint = read_hint(folder)
    if override is None and hint is None:
        raise InputDataError("GS-IN-302", f"{folder}: does not say where its Store is", hint=_OVERRIDE)
    path = Path(override) if override is not None else Path(os.path.normpath(folder / str(hint)))
    try:
        found = Store.open(path)
    except InputDataError as error:
        raise InputDataError("GS-IN-302", f"{path}: the Store of {folder} is not there", hint=_OVERRIDE) from error
    return _same(found, folder)


def _same(store: Store, folder: Path) -> Store:
    wanted = wanted_id(folder)
    if store.id != wanted:
        raise InputDataError(
            "GS-IN-301",
            f"{store.path} holds the Store {store.id}, {folder} was made from {wanted}: the graph changed",
            hint=f"{_OVERRIDE} Or make {folder.name} again from this Store, in a new folder.",
        )
    return store


def wanted_id(folder: Path) -> str:
    """Id of the Store that `folder` was made from: its manifest's word, else the hint's."""
    for name, key in ((MANIFEST, "inputs"), (NAME, None)):
        try:
            document = json.loads(read_small(folder / name))
            return str(document[key]["store"] if key else document["id"])
        except (CorruptStoreError, ValueError, KeyError, TypeError, RecursionError):
            continue
    raise CorruptStoreError("GS-STORE-002", f"{folder}: neither {MANIFEST} nor {NAME} names a Store", hint=_OVERRIDE)
