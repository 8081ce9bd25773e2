"""A disk that forgets: what a protocol does to a folder is recorded, and from that states are made that a loss of power
could have left.

What was synced stays. Of the rest anything may be there or not: each write, creation, rename and removal by itself, a
write in part or as zeros. Syncing a file keeps its bytes and the name it was created under, as the usual file systems
do; other names are kept by syncing their folder.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

TORN = (0, 1, 512, 4096)
"""Bytes that are left of a write that was under way; of 0 and 512 in another state zeros follow."""


@dataclass(frozen=True)
class Op:
    """One thing done. `path` and `to` are relative to the root.

    create, mkdir, remove (path); rename (path, to); write (data at `at`), truncate (to `at` bytes), sync of a file
    (its number is `file`); sync_folder (path); ack (`value` was promised).
    """

    kind: str
    path: str = ""
    to: str = ""
    file: int = -1
    at: int = 0
    data: bytes = b""
    value: Any = None


class Recorder:
    """What happens below `root` during `recording()`."""

    def __init__(self, root: Path) -> None:
        self.ops: list[Op] = []
        self._root = str(root)
        self._files: dict[str, int] = {}
        """Number of the file that has a name now."""
        self._fds: dict[int, str | int] = {}
        """Open folders by name, files by number."""

    def ack(self, value: Any) -> None:
        """The protocol has promised `value` by now."""
        self.ops.append(Op("ack", value=value))

    @contextmanager
    def recording(self) -> Iterator[None]:
        real = {name: getattr(os, name) for name in ("open", "pwrite", "ftruncate", "mkdir", "rename", "unlink")}
        rmtree = shutil.rmtree

        def opened(path: Any, flags: int, *mode: Any, **options: Any) -> int:
            fresh = not os.path.lexists(path) if "dir_fd" not in options else False
            fd: int = real["open"](path, flags, *mode, **options)
            if name := self._name(path):
                if fresh:
                    self._files[name] = len(self.ops)
                    self.ops.append(Op("create", name, file=self._files[name]))
                self._fds[fd] = self._files.get(name, name)
            else:
                self._fds.pop(fd, None)
            return fd

        def pwrite(fd: int, data: Any, at: int) -> int:
            count: int = real["pwrite"](fd, data, at)
            self._note(fd, Op("write", at=at, data=bytes(memoryview(data).cast("B")[:count])))
            return count

        def ftruncate(fd: int, size: int) -> None:
            real["ftruncate"](fd, size)
            self._note(fd, Op("truncate", at=size))

        def sync(fd: int) -> None:
            place = self._fds.get(fd)
            if place is not None:
                self.ops.append(Op("sync", file=place) if isinstance(place, int) else Op("sync_folder", place))

        def mkdir(path: Any, *mode: Any, **options: Any) -> None:
            real["mkdir"](path, *mode, **options)
            if name := self._name(path):
                self.ops.append(Op("mkdir", name))

        def rename(path: Any, to: Any) -> None:
            real["rename"](path, to)
            if (old := self._name(path)) and (new := self._name(to)):
                for name in [n for n in self._files if n == old or n.startswith(f"{old}/")]:
                    self._files[new + name[len(old) :]] = self._files.pop(name)
                self.ops.append(Op("rename", old, new))

        def unlink(path: Any, **options: Any) -> None:
            real["unlink"](path, **options)
            if "dir_fd" not in options and (name := self._name(path)):
                self._gone(name)

        def remove_all(path: Any, **options: Any) -> None:
            there = os.path.lexists(path)
            rmtree(path, **options)
            if there and (name := self._name(path)):
                self._gone(name)

        with pytest.MonkeyPatch.context() as patch:
            for name, fake in {"open": opened, "pwrite": pwrite, "ftruncate": ftruncate, "mkdir": mkdir}.items():
                patch.setattr(os, name, fake)
            for name, fake in {"rename": rename, "replace": rename, "unlink": unlink, "fsync": sync}.items():
                patch.setattr(os, name, fake)
            patch.setattr(os, "fdatasync", sync)
            patch.setattr(os, "posix_fallocate", lambda fd, at, size: None)
            patch.setattr(shutil, "rmtree", remove_all)
            yield

    def _name(self, path: Any) -> str | None:
        """Relative to the root; None outside of it."""
        text = str(path)
        return os.path.relpath(text, self._root) if f"{text}/".startswith(f"{self._root}/") else None

    def _note(self, fd: int, op: Op) -> None:
        if isinstance(file := self._fds.get(fd), int):
            self.ops.append(replace(op, file=file))

    def _gone(self, name: str) -> None:
        for held in [n for n in self._files if n == name or n.startswith(f"{name}/")]:
            del self._files[held]
        self.ops.append(Op("remove", name))


def crash_states(ops: list[Op], rng: random.Random, count: int) -> Iterator[tuple[list[Op], list[Any]]]:
    """So many states: what is left on the disk, in order, and what was promised by then."""
    for number in range(count):
        end = len(ops) if number == 0 else rng.randrange(len(ops) + 1)
        done = ops[:end]
        unsure = _not_synced(done)
        how = rng.randrange(5)
        lost = {
            0: set(unsure),
            1: set(),
            2: {rng.choice(unsure)} if unsure else set(),
            3: set(unsure) - ({rng.choice(unsure)} if unsure else set()),
            4: {i for i in unsure if rng.random() < 0.5},
        }[how]
        left = [op if i not in unsure else _torn(op, rng) for i, op in enumerate(done) if i not in lost]
        yield left, [op.value for op in done if op.kind == "ack"]


def _not_synced(done: list[Op]) -> list[int]:
    """Numbers of operations that nothing has made durable yet."""
    unsure = []
    for i, op in enumerate(done):
        later = done[i + 1 :]
        if op.kind in ("write", "truncate", "create"):
            safe = any(o.kind == "sync" and o.file == op.file for o in later)
        else:
            safe = op.kind not in ("mkdir", "rename", "remove")
        if op.path and not safe:
            folders = {str(Path(name).parent) for name in (op.path, op.to or op.path)}
            safe = folders <= {o.path for o in later if o.kind == "sync_folder"}
        if not safe:
            unsure.append(i)
    return unsure


def _torn(op: Op, rng: random.Random) -> Op:
    """A write that was not synced may have come in part, or as zeros."""
    if op.kind != "write" or rng.random() < 0.5:
        return op
    size = rng.choice(TORN)
    return replace(op, data=op.data[:size] + bytes(len(op.data[size:]) if rng.random() < 0.5 else 0))


def materialize(left: list[Op], root: Path) -> None:
    """Make the folder that these operations leave; what has no folder to be in is lost with it."""
    names: dict[str, int | None] = {}  # None: a folder
    data: dict[int, bytearray] = {}
    for op in left:
        if op.kind in ("create", "mkdir"):
            names[op.path] = op.file if op.kind == "create" else None
        elif op.kind == "remove":
            names = {n: f for n, f in names.items() if n != op.path and not n.startswith(f"{op.path}/")}
        elif op.kind == "rename":
            moved = {n: f for n, f in names.items() if n == op.path or n.startswith(f"{op.path}/")}
            names = {n: f for n, f in names.items() if n not in moved}
            names |= {op.to + n[len(op.path) :]: f for n, f in moved.items()}
        elif op.kind in ("write", "truncate"):
            held, end = data.setdefault(op.file, bytearray()), op.at + len(op.data)
            held.extend(bytes(max(0, end - len(held))))
            held[op.at : end] = op.data
            if op.kind == "truncate":
                del held[op.at :]
    root.mkdir()
    for name, file in sorted(names.items()):
        path = root / name
        if path.parent.is_dir():
            path.mkdir() if file is None else path.write_bytes(data.get(file, b""))
