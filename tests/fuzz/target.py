"""What a parser is that damaged bytes are given to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnsys.errors import GnnsysError

Parse = Callable[[bytes, Path], None]
"""Of bytes, in a folder whose `golden` holds artefacts, which are as they were afterwards."""


@dataclass(frozen=True)
class Target:
    """A parser. `samples` gives valid inputs from the folder of golden artefacts; one run costs `weight` of others'."""

    samples: Callable[[Path], list[bytes]]
    parse: Parse
    weight: int = 1


def put(room: Path, name: str, data: bytes) -> Path:
    """The file `name` in `room`, with these bytes."""
    path = room / name
    path.write_bytes(data)
    return path


def refused(do: Callable[..., None], *given: Any, **options: Any) -> None:
    """Go on where the next thing to do with the same bytes is another matter."""
    with suppress(GnnsysError):
        do(*given, **options)
