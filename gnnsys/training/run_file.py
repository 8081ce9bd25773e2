"""Run files: what `gnnsys train` takes, in TOML; read with the line of what is wrong, written so that a run repeats.

    [train]
    source = "packs/cora"
    out = "runs/cora"
    model = "gcn"
    fanouts = [10, 5]
    memory = "2GiB"

Keys are the options of `TrainConfig`, `source`, `store` and `out`. Paths (`model = "net.py:Net"` is one too) are
relative to the folder of the file, so that a folder may move as a whole. A file that names code to run must be the
user's own.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.models.user_file import is_spec
from gnnsys.storage.files import atomic_write
from gnnsys.training.config import OF_CHUNKS, TrainConfig, sentence

TABLE = "train"
PATHS = ("source", "store", "out")
KEYS = (*PATHS, *TrainConfig.model_fields)
_SET_BY_CHUNKS = ("fanouts", "batch_size", "micro_batches", "schedule")


def read_run_file(path: Path) -> dict[str, Any]:
    """Options by name as the file gives them, paths as seen from the current folder.

    Raises:
        InputDataError: the file cannot be read.
        ConfigError: it is no TOML, or a table, key or value is not valid; with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise InputDataError("GS-IN-540", f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError("GS-CFG-880", f"{path}: not valid TOML: {error}") from error
    where = _Lines(path, text)
    for name, value in document.items():
        if name != TABLE or not isinstance(value, dict):
            hint = f"Options stand under [{TABLE}]."
            raise ConfigError("GS-CFG-881", f"unknown table {name!r} in {where(name)}", hint=hint)
    values = document.get(TABLE, {})
    _check(values, where)
    return {key: _joined(path.parent, key, value) for key, value in values.items()}


class _Lines:
    """Where a name stands in the file, for messages: `run.toml line 14`."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._lines = path, text.splitlines()

    def __call__(self, name: str) -> str:
        starts = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=\].]""")
        for number, line in enumerate(self._lines, 1):
            if starts.match(line):
                return f"{self._path} line {number}"
        return str(self._path)


def _check(values: Mapping[str, Any], where: _Lines) -> None:
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(KEYS)}."
            raise ConfigError("GS-CFG-002", f"unknown training option {key!r} in {where(key)}", hint=hint)
        if key in PATHS and not (isinstance(value, str) and value):
            raise ConfigError("GS-CFG-501", f"{key} is {value!r}: it should be a path, in {where(key)}")
    try:
        TrainConfig(**{key: value for key, value in values.items() if key not in PATHS})
    except ValidationError as error:
        found = [f"{sentence(e)}, in {where(str(e['loc'][0]))}" for e in error.errors()]
        raise ConfigError("GS-CFG-501", "; ".join(found)) from None


def _joined(folder: Path, key: str, value: Any) -> Any:
    """Paths as seen from where the command runs, other values as they are."""
    return os.path.normpath(folder / value) if key in PATHS or (key == "model" and is_spec(value)) else value


def write_run_file(path: Path, config: TrainConfig, paths: Mapping[str, str | Path]) -> None:
    """Write the file that trains the same again: every option of `config` that means something, and `paths`."""
    meaningless = _SET_BY_CHUNKS if config.chunks else OF_CHUNKS
    options = {k: v for k, v in config.model_dump(mode="json").items() if v is not None and k not in meaningless}
    values = {**paths, **options}
    from_here = {key: _relative(path.parent, key, value) for key, value in values.items()}
    lines = [f"[{TABLE}]", *(f"{key} = {toml(value)}" for key, value in from_here.items())]
    atomic_write(path, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def _relative(folder: Path, key: str, value: Any) -> Any:
    """The reverse of `_joined`."""
    if key in PATHS or (key == "model" and is_spec(value)):
        return os.path.relpath(Path(value).resolve(), folder.resolve())
    return value


def toml(value: str | float | Sequence[float]) -> str:
    """A value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def explained(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """A run file with every option: those given with where they come from, defaults as comments, each with its meaning.

    Args:
        values: what was given, by key.
        origins: for each of them where it was given, e.g. `a flag`.
    """
    defaults = TrainConfig()
    lines = ["# Options of `gnnsys train -c FILE`; flags win over the file. What is commented out is the default.", ""]
    lines.append(f"[{TABLE}]")
    for key in KEYS:
        field = TrainConfig.model_fields.get(key)
        if field is not None and field.description:
            lines += ["", *textwrap.wrap(field.description, 110, initial_indent="# ", subsequent_indent="# ")]
        if key in values:
            lines.append(f"{key} = {toml(values[key])}  # {origins[key]}")
        else:
            default = getattr(defaults, key, None)
            lines.append(f"# {key} =" + ("" if default is None else f" {toml(default)}"))
    return "\n".join(lines)
