"""Named places where tests make a process die, fail or wait: nothing happens unless GNNSYS_FAILPOINTS says so.

    GNNSYS_FAILPOINTS="manifest.write=kill, folder.sync=raise:EIO@3, *=sleep:50"

Actions: `kill` (SIGKILL), `exit` (at once, code 1), `raise:ERRNO` (an OSError, as from a system call), `sleep:MS`,
`torn:BYTES` (write so much of what is being written, then SIGKILL). `@n` means the n-th time only, else
every time. The name `*` is every failpoint, counted together.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_RULE = re.compile(r"([\w.]+|\*)=(kill|exit|(?:raise:E[A-Z0-9]+)|(?:(?:sleep|torn):\d+))(?:@(\d+))?")


@dataclass
class _Rule:
    name: str
    action: str
    nth: int
    """0: every time."""
    seen: int = 0


_rules: list[_Rule] = []
_lock = threading.Lock()


def failpoint(name: str, torn: Callable[[int], object] | None = None) -> None:
    """Do what the environment asks for here; `torn(n)` writes the first n bytes of what this is before."""
    if _rules:
        for rule in _due(name):
            _act(rule.action, name, torn)


def arm(rules: str) -> None:
    """Replace what failpoints do in this process, counting from now; `""` makes them do nothing.

    Raises:
        ValueError: not of the form above.
    """
    found = []
    for text in filter(None, (part.strip() for part in rules.split(","))):
        if not (match := _RULE.fullmatch(text)):
            raise ValueError(f"GNNSYS_FAILPOINTS: {text!r} is not name=action[@n]")
        found.append(_Rule(match[1], match[2], int(match[3] or 0)))
    _rules[:] = found


def _due(name: str) -> list[_Rule]:
    with _lock:
        met = [rule for rule in _rules if rule.name in (name, "*")]
        for rule in met:
            rule.seen += 1
        return [rule for rule in met if rule.nth in (0, rule.seen)]


def _act(action: str, name: str, torn: Callable[[int], object] | None) -> None:
    kind, _, value = action.partition(":")
    if kind == "raise":
        number = getattr(errno, value)
        raise OSError(number, os.strerror(number), f"failpoint {name}")
    if kind == "sleep":
        time.sleep(int(value) / 1000)
    elif kind == "exit":
        os._exit(1)
    else:
        if kind == "torn" and torn is not None:
            torn(int(value))
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("GNNSYS_FAILPOINTS", ""))
