"""The plan that a pack followed, as a file that no manifest covers and that carries its own digest.

A plan holds predictions in seconds, which differ between machines, so it is no part of the pack's identity; what
decides bytes is in the generation's parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnsys.errors import CorruptStoreError
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import read_small
from gnnsys.storage.manifest import canonical_json

NAME = "plan.json"
_MEND = "Delete the pack's folder and repeat `gnnsys pack`, or copy the file from a good pack."


class StoredPlan:
    """The plan that a pack followed, as it was written: `to_json()` is its content, `str()` the explanation."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = dict(content)

    def to_json(self) -> dict[str, Any]:
        return dict(self._content)

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __str__(self) -> str:
        return str(self._content.get("explanation", ""))


def plan_document(plan: Mapping[str, Any]) -> bytes:
    """Bytes of `plan.json`: no manifest covers predictions, so the file carries its own digest."""
    return canonical_json({"plan": dict(plan), "digest": digest(canonical_json(dict(plan)))}) + b"\n"


def read_plan(folder: Path) -> StoredPlan:
    """The plan in `folder`.

    Raises:
        CorruptStoreError: missing or changed since it was written.
    """
    path = folder / NAME
    try:
        document = json.loads(read_small(path))
        if document["digest"] == digest(canonical_json(document["plan"])):
            return StoredPlan(document["plan"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise CorruptStoreError("GS-STORE-004", f"{path}: fails its checksum", hint=_MEND)
