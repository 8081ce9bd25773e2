"""A model in a file of the user's own: the class is found by running the file, known by the file's digest, and what
goes wrong in it is told with its line."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from gnnsys.errors import ConfigError

_MODULE_PREFIX = "gnnsys_user_"


def is_spec(name: str) -> bool:
    """Whether `name` is meant as `path/to/file.py:ClassName`."""
    return ":" in name or name.endswith(".py")


def identity(spec: str) -> dict[str, str]:
    """What the model is, wherever its file lies: `name` of the class and `code`, `sha256:<hex>` of the file.

    What the file imports is not covered.
    """
    file, class_name = _split(spec)
    return {"name": class_name, "code": "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()}


def construct(spec: str, sizes: Mapping[str, Any]) -> nn.Module:
    """An object of the class, made with the keywords `sizes`.

    Raises:
        ConfigError: no such file or class, the file or the constructor fails, or it does not take these keywords.
    """
    kind = _class(spec)
    _check_keywords(spec, kind, sizes)
    try:
        return kind(**sizes)
    except Exception as error:
        raise ConfigError("GS-CFG-613", f"{spec} cannot be constructed: {_told(error)}") from error


def line_in_user_file(error: BaseException) -> str | None:
    """`file:line` of the innermost call in a file that was run here; None when no such call led to `error`."""
    calls = traceback.walk_tb(error.__traceback__)
    lines = [f"{frame.f_code.co_filename}:{line}" for frame, line in calls if _is_users(frame.f_globals)]
    return lines[-1] if lines else None


def _is_users(variables: Mapping[str, Any]) -> bool:
    return str(variables.get("__name__")).startswith(_MODULE_PREFIX)


def _split(spec: str) -> tuple[Path, str]:
    file, colon, class_name = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError("GS-CFG-614", f"{spec!r} names no class in a file", hint="Write it like my_model.py:Net.")
    if not Path(file).is_file():
        raise ConfigError("GS-CFG-615", f"{file}: there is no such file", hint="The path is relative to this folder.")
    return Path(file), class_name


def _class(spec: str) -> type[nn.Module]:
    file, class_name = _split(spec)
    module = _run(file)
    kind = getattr(module, class_name, None)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    offered = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
    raise ConfigError(
        "GS-CFG-616",
        f"{file} has no torch module class named {class_name!r}",
        hint=f"Classes in it: {', '.join(offered) or 'none'}.",
    )


def _run(path: Path) -> ModuleType:
    name = _MODULE_PREFIX + path.stem
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise ConfigError("GS-CFG-608", f"{path} cannot be loaded: {_told(error)}") from error
    return module


def _told(error: Exception) -> str:
    """The error and the line of the user's that it comes from; a SyntaxError says the line itself."""
    where = line_in_user_file(error)
    return f"{type(error).__name__}: {error}" + (f" ({where})" if where else "")


def _check_keywords(spec: str, kind: type[nn.Module], sizes: Mapping[str, Any]) -> None:
    try:
        inspect.signature(kind).bind(**sizes)
    except TypeError as error:
        raise ConfigError(
            "GS-CFG-609",
            f"{spec} cannot be constructed: {error}",
            hint=f"Its __init__ must take the keywords {', '.join(sizes)}.",
        ) from error
