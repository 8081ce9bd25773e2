"""Manifests: the one source of truth about a Store, a Pool, a Pack or a Run, written last and atomically.

A manifest holds nothing that differs between two equal runs; times, hosts and versions go to `provenance.json`,
which no digest covers.

    {"format": "gnnsys-store", "version": 1, "id": "xxh3-128:..", "inputs": {..}, "parameters": {..}, "counts": {..},
     "files": [{"path": "tables/x.bin", "size": .., "digest": "xxh3-128:..", "dtype": "F32", "shape": [N, F], ..}],
     "digest": "sha256 of the canonical JSON of everything else"}
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.errors import CorruptStoreError, InputDataError, InterruptedWorkError, VersionError
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import NO_SUCH_FILE, atomic_write, read_small

NAME = "manifest.json"
_BEGUN = (".work", "g000000")
"""What a folder has, beside its manifest when it is finished, in which an artefact is being made."""
MAX_BYTES = 64 << 20
_VERBS = {"gnnsys-store": "ingest", "gnnsys-pool": "sample", "gnnsys-pack": "pack"}
_MAX_DIMENSIONS = 8

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "BOOL": "|b1",
}
_PATH_PART = re.compile(r"[A-Za-z0-9._+=-]{1,128}")


def numpy_dtype(name: str) -> np.dtype:
    """The numpy type that holds values of a safetensors dtype name (BF16 as its 16 bits)."""
    return np.dtype(_DTYPES[name])


def dtype_name(dtype: np.dtype) -> str:
    """The safetensors name of a numpy type.

    Raises:
        InputDataError: a type we do not store.
    """
    little = np.dtype(dtype).newbyteorder("<")
    for name, code in _DTYPES.items():
        if np.dtype(code) == little and name != "BF16":
            return name
    raise InputDataError("GS-IN-002", f"arrays of dtype {dtype} cannot be stored", hint="Convert to float32 or int64.")


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One committed file. `digest` covers the whole file, or, for files written out of order, `covered_by` names
    the file that holds the hashes of its parts."""

    path: str
    size: int
    dtype: str
    shape: tuple[int, ...]
    role: str
    digest: str | None = None
    covered_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artefact is made of. `id` is known before the work, `digest` after it; equal ids end in equal digests."""

    format: str
    version: int
    id: str
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any]
    counts: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()

    def entry(self, path: str) -> FileEntry:
        """The entry of `path`; KeyError when the artefact has no such file."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise KeyError(path)

    def has(self, path: str) -> bool:
        return any(entry.path == path for entry in self.files)

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(canonical_json(asdict(self))).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def artefact_id(kind: str, version: int, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Identity of an artefact before it is made: hash of what goes in, how, and the format version."""
    return digest(canonical_json([kind, version, dict(inputs), dict(parameters)]))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit `folder`: from now on readers accept it."""
    document = {**asdict(manifest), "digest": manifest.digest}
    atomic_write(folder / "provenance.json", canonical_json(_provenance()) + b"\n")
    atomic_write(folder / NAME, canonical_json(document) + b"\n")


def read_manifest(folder: Path, kind: str, version: int) -> Manifest:
    """The manifest of a finished artefact.

    Args:
        kind: the format name expected, e.g. `gnnsys-store`.
        version: the highest version this reader knows.

    Raises:
        InputDataError: `folder` is absent, or holds something else.
        InterruptedWorkError: making it was interrupted, or goes on.
        VersionError: a newer version wrote it.
        CorruptStoreError: the manifest is damaged.
    """
    path = folder / NAME
    document = _parse(path, kind)
    if document.get("format") != kind:
        problem = f"{folder}: holds a {document.get('format')!r}, expected {kind!r}"
        raise InputDataError("GS-IN-021", problem, hint=_made_by(kind))
    found = document.get("version")
    if not isinstance(found, int) or found > version:
        raise VersionError(
            "GS-VER-001",
            f"{folder}: {kind} version {found} is newer than this gnnsys reads ({version})",
            hint="Update gnnsys.",
        )
    try:
        files = tuple(FileEntry(**{**f, "shape": tuple(f["shape"])}) for f in document["files"])
        claimed = document.pop("digest")
        manifest = Manifest(**{**document, "files": files})
        expected = manifest.digest
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptStoreError("GS-STORE-001", f"{path}: field {error} is missing or of the wrong type") from error
    if expected != claimed:
        raise CorruptStoreError("GS-STORE-001", f"{path}: the content does not match its own digest")
    for entry in files:
        _check_entry(path, entry)
    if len({entry.path.casefold() for entry in files}) != len(files):
        raise CorruptStoreError("GS-STORE-001", f"{path}: lists a file twice")
    return manifest


def kind_of(folder: Path) -> str:
    """The format name of a finished artefact, whatever it is.

    Raises:
        InputDataError, InterruptedWorkError: there is none.
        CorruptStoreError: its manifest is damaged.
    """
    return str(_parse(folder / NAME, "artefact").get("format"))


def _made_by(kind: str) -> str:
    verb = _VERBS.get(kind)
    return f"`gnnsys {verb}` makes one." if verb else "`gnnsys ingest`, `sample` and `pack` make the folders of gnnsys."


def _parse(path: Path, kind: str) -> dict[str, Any]:
    try:
        if path.lstat().st_size > MAX_BYTES:
            raise CorruptStoreError("GS-STORE-001", f"{path}: larger than {MAX_BYTES} bytes")
        document = json.loads(read_small(path))
    except OSError as error:
        if error.errno not in NO_SUCH_FILE:
            raise
        what = kind.removeprefix("gnnsys-")
        if error.errno == errno.ENOENT and any(path.with_name(name).exists() for name in _BEGUN):
            raise InterruptedWorkError(
                "GS-IN-023",
                f"{path.parent}: the {what} there is not finished ({NAME} is missing)",
                hint="Repeat the command that makes it: it continues.",
            ) from None
        problem = f"{path.parent}: no {what} there ({NAME} is missing)"
        raise InputDataError("GS-IN-021", problem, hint=_made_by(kind)) from None
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError("GS-STORE-001", f"{path}: not a valid manifest ({error})") from error
    if not isinstance(document, dict):
        raise CorruptStoreError("GS-STORE-001", f"{path}: not a JSON object")
    return document


def _check_entry(path: Path, entry: FileEntry) -> None:
    if not all(isinstance(text, str) for text in (entry.path, entry.dtype, entry.role)):
        raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path!r} is not described by text")
    parts = entry.path.split("/")
    if not all(_PATH_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path!r} is not a path inside the folder")
    numbers = all(isinstance(n, int) and 0 <= n < 1 << 63 for n in (entry.size, *entry.shape))
    # the limit is numpy's, which counts the bytes of an empty array as if its zeros were ones
    if not numbers or len(entry.shape) > _MAX_DIMENSIONS or math.prod(max(n, 1) for n in entry.shape) >= 1 << 60:
        raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path} has an impossible size or shape")
    if entry.dtype not in _DTYPES:
        raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path} has an impossible dtype")
    if numpy_dtype(entry.dtype).itemsize * math.prod(entry.shape) > entry.size:
        raise CorruptStoreError("GS-STORE-001", f"{path}: {entry.path} is smaller than its shape")


def _provenance() -> dict[str, Any]:
    import torch

    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "command": sys.argv,
    }
