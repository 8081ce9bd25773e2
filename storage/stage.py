"""Make one artefact folder in units that survive a kill: stage file, journal, commit.

    folder/.lock             held by the one writer
    folder/.work/stage.json  what is being made: id, inputs, parameters (written first)
    folder/.work/journal     one line per finished unit: `<xxh3-64 of the JSON, hex> <JSON>\\n`
    folder/.work/void        the attempt was refused for its inputs or options: it can only end so again
    folder/.work/...         scratch of the units
    folder/...               final files, growing
    folder/manifest.json     written last: before it exists no reader accepts the folder

The order that must hold: data durable, then its journal line durable, then the unit may be relied on. A torn last
line is what a kill leaves and is cut off; a bad line before a good one is corruption.

Work begun with other inputs or options is refused, so that none is lost by mistake, unless there is nothing to lose:
no unit was recorded, or the attempt is void. Then it is started over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import xxhash

from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.failpoints import failpoint
from gnnsys.storage.files import (
    atomic_write,
    disk_errors,
    fsync_dir,
    make_data_durable,
    make_folder,
    make_output_folder,
    read_small,
    remove_temps,
    remove_tree,
    write_all,
)
from gnnsys.storage.lock import WriterLock
from gnnsys.storage.manifest import (
    NAME,
    FileEntry,
    Manifest,
    artefact_id,
    canonical_json,
    read_manifest,
    write_manifest,
)


class Stage:
    """Context manager that makes `folder`; repeating it with equal inputs and parameters continues or does nothing.

    Args:
        folder: where the artefact goes; created when absent.
        kind: format name, e.g. `gnnsys-store`.
        version: format version written.
        inputs: identities of what goes in (digests or ids).
        parameters: everything that decides the bytes of the result.
        allow: names that may be in the folder before the work begins (an artefact inside the artefact).
        parts: names of the subfolders that the work makes; when it starts over, their .bin and .xxh files are removed.

    Attributes:
        id: identity of the artefact, known before the work.
        parameters: as given.
        finished: the manifest when there is nothing left to do.
        done: payload of every finished unit, by unit name, in the order they finished.
        work: folder for scratch files, removed by `commit`.

    Raises:
        StoreBusyError: another process is making it.
        ConfigError: the folder holds, or has units of, work with other inputs or parameters.
        InputDataError: the folder holds files that are not ours.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        version: int,
        *,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        allow: Collection[str] = (),
        parts: Collection[str] = (),
    ) -> None:
        self.folder = folder
        self._allow, self._parts = allow, parts
        self.id = artefact_id(kind, version, inputs, parameters)
        self.work = folder / ".work"
        self.finished: Manifest | None = None
        self.done: dict[str, dict[str, Any]] = {}
        self._kind, self._version = kind, version
        self._inputs, self.parameters = dict(inputs), dict(parameters)
        self._journal = -1
        self._journal_bytes = 0
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        make_output_folder(self.folder)
        refuse_foreign(self.folder, self._allow)
        self._stack.enter_context(WriterLock(self.folder))
        try:
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal >= 0:
            if isinstance(error, InputDataError | ConfigError) and self.finished is None:
                atomic_write(self.work / _VOID, b"")
            os.close(self._journal)
            self._journal = -1
        self._stack.close()

    def record(self, unit: str, **payload: Any) -> None:
        """Note `unit` as finished. The caller has made its bytes durable before."""
        body = canonical_json({"unit": unit, **payload})
        line = _line_hash(body) + b" " + body + b"\n"
        with disk_errors(self.work / "journal"):
            failpoint("journal.append")
            write_all(self._journal, line, self._journal_bytes)
            make_data_durable(self._journal)
            failpoint("journal.appended")
        self._journal_bytes += len(line)
        self.done[unit] = payload

    def commit(self, *, counts: Mapping[str, Any], files: tuple[FileEntry, ...]) -> Manifest:
        """Publish the artefact: every file durable, then the manifest, then scratch removed."""
        for folder in {(self.folder / f.path).parent for f in files}:
            fsync_dir(folder)
        manifest = Manifest(
            format=self._kind,
            version=self._version,
            id=self.id,
            inputs=self._inputs,
            parameters=self.parameters,
            counts=dict(counts),
            files=tuple(sorted(files, key=lambda f: f.path)),
        )
        failpoint("stage.commit")
        write_manifest(self.folder, manifest)
        failpoint("stage.committed")
        remove_tree(self.work)
        self.finished = manifest
        return manifest

    def _open(self) -> None:
        for folder in (self.folder, *(p for p in self.folder.iterdir() if p.is_dir() and p.name not in self._allow)):
            remove_temps(folder)
        if (self.folder / NAME).exists():
            manifest = read_manifest(self.folder, self._kind, self._version)
            self._refuse_other(manifest.id, manifest.inputs, manifest.parameters, _FINISHED)
            remove_tree(self.work)
            self.finished = manifest
            return
        begun = self.work / "stage.json"
        if begun.exists():
            other = _read_stage(begun)
            if other[0] != self.id and self._nothing_to_lose():
                self._start_over()
            else:
                self._refuse_other(*other, _UNFINISHED)
        make_folder(self.work)
        remove_temps(self.work)
        (self.work / _VOID).unlink(missing_ok=True)
        if not begun.exists():
            stage = {"id": self.id, "inputs": self._inputs, "parameters": self.parameters}
            atomic_write(begun, canonical_json(stage))
        self._open_journal()

    def _nothing_to_lose(self) -> bool:
        journal = self.work / "journal"
        return (self.work / _VOID).exists() or not journal.exists() or not any(_good_lines(journal))

    def _start_over(self) -> None:
        for part in self._parts:
            for path in (self.folder / part).glob("*"):
                if path.suffix in (".bin", ".xxh"):
                    path.unlink()
        remove_tree(self.work)

    def _refuse_other(self, other_id: str, inputs: Mapping[str, Any], parameters: Mapping[str, Any], hint: str) -> None:
        if other_id == self.id:
            return
        changes = [*difference(inputs, self._inputs), *difference(parameters, self.parameters)]
        raise ConfigError(
            "GS-CFG-010",
            f"{self.folder}: was made with other inputs or options ({'; '.join(changes) or 'another format version'})",
            hint=hint,
        )

    def _open_journal(self) -> None:
        path = self.work / "journal"
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._journal_bytes = 0
        for line, body in _good_lines(path):
            try:
                payload = json.loads(body)
                self.done[payload.pop("unit")] = payload
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise CorruptStoreError("GS-STORE-005", f"{path}: a line names no unit", hint=_START_OVER) from None
            self._journal_bytes += len(line)
        os.ftruncate(self._journal, self._journal_bytes)
        fsync_dir(self.work)


_VOID = "void"
_START_OVER = "Delete the unfinished folder and repeat the command."
_FINISHED = "Use the same options, or another folder."
_UNFINISHED = "Use the same options to continue, delete the unfinished folder to start over, or use another one."


def refuse_foreign(folder: Path, allow: Collection[str] = ()) -> None:
    """Raise InputDataError when `folder` holds files, other than those named in `allow`, that no Stage of ours made."""
    begun = any((folder / name).exists() for name in (NAME, ".lock", ".work"))
    if not begun and any(entry.name not in allow for entry in folder.iterdir()):
        raise InputDataError(
            "GS-IN-022", f"{folder}: the folder is not empty", hint="Choose a folder that is new or empty."
        )


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of options, one phrase per key: `fanouts was [10, 10], now [15, 10]`."""
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _read_stage(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(id, inputs, parameters) that the work in a folder was begun with."""
    try:
        stage = json.loads(read_small(path))
        return str(stage["id"]), dict(stage["inputs"]), dict(stage["parameters"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptStoreError(
            "GS-STORE-005", f"{path}: is damaged ({error})", hint="Delete the unfinished folder and repeat the command."
        ) from None


def _line_hash(body: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(body).encode()


def _good_lines(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The journal's lines up to the first bad one, as (line, JSON part)."""
    lines = read_small(path).splitlines(keepends=True)
    good = [line.endswith(b"\n") and _line_hash(line[17:-1]) + b" " == line[:17] for line in lines]
    first_bad = good.index(False) if False in good else len(good)
    if any(good[first_bad:]):
        raise CorruptStoreError(
            "GS-STORE-005",
            f"{path}: line {first_bad + 1} is damaged",
            hint="Delete the unfinished folder and repeat the command.",
        )
    for line in lines[:first_bad]:
        yield line, line[17:-1]
