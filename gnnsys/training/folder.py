"""The folder of a run: which configuration it belongs to, whether it may be continued, and the result at its end.

run/config.json     the resolved configuration, written once model, loader and memory were found good; like the
                    result it carries a checksum of itself
run/config.toml     the same options as a run file: `gnnsys train -c run/config.toml --out OTHER` trains the same again
run/events.jsonl    run/checkpoints/    model.safetensors    best.safetensors
run/result.json     written last, with digests of both sets of weights: a run that has one is finished
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.storage.checksums import digest
from gnnsys.storage.files import atomic_write, make_output_folder, read_small, remove_temps
from gnnsys.storage.manifest import canonical_json
from gnnsys.storage.stage import difference
from gnnsys.training.config import config_digest

CONFIG, RUN_FILE, RESULT = "config.json", "config.toml", "result.json"
FINAL, BEST = "model.safetensors", "best.safetensors"
Resume = Literal["auto", "never"]


def refuse_foreign(path: Path) -> None:
    """Create the folder, or check that it holds a run or nothing.

    Raises:
        InputDataError: it holds files that are not a run, or is a file.
    """
    make_output_folder(path)
    found = sorted(p.name for p in path.iterdir() if p.name != ".lock" and ".tmp." not in p.name)
    if found and CONFIG not in found:
        raise InputDataError(
            "GS-IN-510",
            f"{path}: the folder is not empty ({', '.join(found[:3])}) and holds no run",
            hint="Choose a folder that is new or empty.",
        )


def refuse_other(path: Path, decisive: Mapping[str, Any], resume: Resume) -> None:
    """Check that the folder, whose lock the caller holds, holds the same run or none yet.

    Args:
        decisive: what decides the weights; must not change between starts.

    Raises:
        ConfigError: it holds a run of another configuration, or any run under `resume="never"`.
    """
    if not (path / CONFIG).exists():
        return
    if resume == "never":
        raise ConfigError(
            "GS-CFG-520", f"{path}: there is a run already, and --resume is never", hint="Choose another --out."
        )
    changes = difference(_flat(read_json(path / CONFIG).get("decisive", {})), _flat(decisive))
    if changes:
        raise ConfigError(
            "GS-CFG-521",
            f"{path}: this run was started with other options ({'; '.join(changes)})",
            hint="Use the same options to continue, or another --out.",
        )


def start_run(path: Path, decisive: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The run's `config.json`: the one of its first start, written now if this is it.

    Args:
        decisive: as `refuse_other` has checked it.
        rest: other options, hints and versions, kept as they were at the first start.
    """
    remove_temps(path)
    if not (path / CONFIG).exists():
        write_json(path / CONFIG, {**rest, "decisive": dict(decisive), "digest": config_digest(decisive)})
    return read_json(path / CONFIG)


def read_result(path: Path) -> dict[str, Any] | None:
    """The result of a finished run, None of an unfinished one."""
    return read_json(path / RESULT) if (path / RESULT).exists() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that `write_json` wrote.

    Raises:
        CorruptStoreError: it is damaged.
    """
    try:
        document = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError("GS-STORE-009", f"{path}: not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise CorruptStoreError("GS-STORE-009", f"{path}: not a JSON object")
    try:
        good = document.get("checksum") == _checksum(document)
    except (ValueError, RecursionError):  # a number that is none, a text that is no Unicode
        good = False
    if not good:
        raise CorruptStoreError("GS-STORE-009", f"{path}: does not match its own checksum", hint=_MEND)
    return document


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a JSON file that people read too; it gets a field `checksum` of all others."""
    sealed = {**document, "checksum": _checksum(json.loads(json.dumps(document)))}
    atomic_write(path, json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")


def _checksum(document: Mapping[str, Any]) -> str:
    return digest(canonical_json({key: value for key, value in document.items() if key != "checksum"}))


_MEND = "Nothing in a run is meant to be edited: copy the file from a good one, or train again with another --out."


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as `model.hidden: 64`, in the spelling of JSON."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.loads(json.dumps(value))
    return flat
