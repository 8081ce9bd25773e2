"""`gnnsys info` and `verify`: what a folder is, and whether its bytes are still what they were."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import gnnsys as gs
from gnnsys.cli.common import Json, emit
from gnnsys.errors import CorruptStoreError, GnnsysError, InputDataError
from gnnsys.storage import files, manifest, pack, pool, store
from gnnsys.storage.checksums import digest_file
from gnnsys.training import checkpoint, folder
from gnnsys.units import format_size

_OPEN = {store.FORMAT: gs.Store.open, pool.FORMAT: gs.Pool.open, pack.FORMAT: gs.Pack.open}

_WIDTH = 200
"""Of a value that is shown."""

Target = Annotated[Path, typer.Argument(help="A Store, Pool, Pack or Run.")]


def info(path: Target, as_json: Json = False) -> None:
    """Say what PATH is: identity, counts, options and files.

    Example: gnnsys info packs/cora
    """
    if (path / "config.json").exists():
        return _info_run(path, as_json)
    kind = manifest.kind_of(path)
    opened = _opener(path, kind)(path)
    content = opened.manifest
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    result = {
        "kind": kind,
        "id": content.id,
        "digest": content.digest,
        "bytes": size,
        "counts": dict(content.counts),
        "parameters": dict(content.parameters),
        "inputs": dict(content.inputs),
    }
    lines = [f"{path}: {kind} version {content.version}, {format_size(size)}", *_described(content)]
    if isinstance(opened, gs.Pack):
        lines += ["", "  its pool:", *_described(opened.pool.manifest), "", str(opened.plan)]
    if isinstance(opened, gs.Store):
        added = [
            part for part in opened.parts.values() if part.folder != opened.path and part.entry.role != "block_sums"
        ]
        result["added"] = [part.entry.path for part in added]
        lines += ["  added" if added else "", *(_file_line(part.entry) for part in added)]
    emit(result, "\n".join(line for line in lines if line), as_json)
    return None


def _described(content: manifest.Manifest) -> list[str]:
    """Identity, what went in, counts and files of a manifest, a line each."""
    lines = [f"  id       {content.id}", f"  digest   {content.digest}"]
    for title in ("inputs", "parameters", "counts"):
        values = {key: value for key, value in getattr(content, title).items() if key != "generations"}
        lines += [f"  {title}" if values else "", *(f"    {key:<18} {_short(value)}" for key, value in values.items())]
    files = [_file_line(entry) for entry in content.files]
    return [line for line in (*lines, "  files" if files else "", *files) if line]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 2]}.."


def _file_line(entry: manifest.FileEntry) -> str:
    return f"    {entry.path:<28} {entry.dtype:<5} {entry.shape!s:<20} {format_size(entry.size)}"


def verify(
    path: Target,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and compare every hash.")] = False,
    as_json: Json = False,
) -> None:
    """Check PATH against its manifest. Exit code 6 when something is wrong.

    Example: gnnsys verify stores/cora --deep
    """
    problems = problems_of(path, deep)
    emit({"path": str(path), "deep": deep, "problems": problems}, "\n".join(problems) or f"{path}: good", as_json)
    if problems:
        raise CorruptStoreError(
            "GS-STORE-010",
            f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}, the first: {problems[0]}",
            hint="Make it again, or copy it from a good one.",
        )


def problems_of(path: Path, deep: bool) -> list[str]:
    """What is wrong with a Store, Pool, Pack or Run, one sentence each."""
    if (path / folder.CONFIG).exists():
        return _run_problems(path)
    found: list[str] = _opener(path, manifest.kind_of(path))(path).verify(deep=deep)
    return found


def _run_problems(path: Path) -> list[str]:
    """What is wrong with the JSON files, the weights and the checkpoints of a Run; every byte is always read."""
    checks: list[Callable[[], Any]] = [partial(folder.read_json, path / folder.CONFIG), partial(_check_weights, path)]
    checks += [partial(_check_checkpoint, saved) for saved in sorted(path.glob("checkpoints/ckpt-*"))]
    found = []
    for check in checks:
        try:
            check()
        except GnnsysError as error:
            found.append(error.message)
    return found


def _check_weights(path: Path) -> None:
    """Those of a finished run, against the digests in its result."""
    result = folder.read_result(path)
    if result is None:
        return
    for name in (folder.BEST, folder.FINAL):
        os.close(files.open_read(path / name))
        if digest_file(path / name) != result["files"][name]:
            raise CorruptStoreError("GS-STORE-004", f"{path / name}: fails its checksum")


def _check_checkpoint(saved: Path) -> None:
    for entry in manifest.read_manifest(saved, checkpoint.FORMAT, checkpoint.VERSION).files:
        store.check_digest(saved / entry.path, entry)


def _opener(path: Path, kind: str):  # type: ignore[no-untyped-def]
    if kind not in _OPEN:
        raise InputDataError("GS-IN-700", f"{path}: a {kind!r} is none of {', '.join(_OPEN)}")
    return _OPEN[kind]


def _info_run(path: Path, as_json: bool) -> None:
    """A finished run with its result, an unfinished one with how far it came."""
    result: dict[str, Any] = {"kind": "gnnsys-run", "config": folder.read_json(path / folder.CONFIG)}
    finished = folder.read_result(path)
    if finished is not None:
        emit({**result, "result": finished}, _titled(f"{path}: gnnsys-run", {**result, "result": finished}), as_json)
        return
    state = checkpoint.newest_state(path / "checkpoints")
    epochs = result["config"]["options"]["epochs"]
    where = f"step {state['step']}, {state['epoch']} of {epochs} epochs done" if state else "no checkpoint yet"
    title = f"{path}: gnnsys-run, not finished ({where}); repeating its train command continues it"
    emit({**result, "result": None, "progress": state}, _titled(title, result), as_json)


def _titled(title: str, values: dict[str, Any]) -> str:
    return f"{title}\n{json.dumps(values, indent=2)}"
