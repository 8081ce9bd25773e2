"""What a function of the user's own is, for the digest of a run: name, code, and the values that it was given."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch


def identity_of_code(function: Callable[..., Any]) -> str:
    """`NAME sha256:<hex>`, another one where code, defaults, variables from around it or a `partial` differ.

    Functions that it calls are known by their names alone, and another version of Python compiles other code.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} sha256:{hashlib.sha256(_told(function, ()).encode()).hexdigest()}"


def _told(value: Any, around: tuple[int, ...]) -> str:
    """Text that differs where values do; `around` are the objects that it is part of."""
    if id(value) in around:
        return "itself"
    around = (*around, id(value))
    if isinstance(value, functools.partial):
        return f"partial {_several((value.func, value.args, value.keywords), around)}"
    if isinstance(value, MethodType):
        return f"method {_several((value.__func__, value.__self__), around)}"
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return f"function {_several((value.__code__, value.__defaults__, value.__kwdefaults__, cells), around)}"
    if isinstance(value, CodeType):
        return f"code {value.co_code.hex()} {value.co_names} {_several(value.co_consts, around)}"
    if isinstance(value, Mapping):
        return f"mapping {_several(sorted(value.items(), key=lambda item: str(item[0])), around)}"
    if isinstance(value, tuple | list):
        return _several(value, around)
    if isinstance(value, set | frozenset):  # their order is another one in every process
        return "set " + ", ".join(sorted(_told(each, around) for each in value))
    return _told_object(value, around)


def _told_object(value: Any, around: tuple[int, ...]) -> str:
    """Callables by what they hold, values by themselves, anything else (a module, a Store) by its kind or name."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = value.detach().cpu().float().numpy() if isinstance(value, torch.Tensor) else value
        return f"{value.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | str | bytes | complex | torch.dtype | torch.device):
        return repr(value)
    named = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if named or not callable(value):
        return f"{type(value).__qualname__} {named or ''}"
    return f"{type(value).__qualname__} {_told(getattr(value, '__dict__', {}), around)}"


def _several(values: Any, around: tuple[int, ...]) -> str:
    return "(" + ", ".join(_told(value, around) for value in values) + ")"
