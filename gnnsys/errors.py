"""Every error that gnnsys raises on purpose, and the exit code that each one ends a command with.

    GnnsysError                 1   root: anything not named below
    ├── ConfigError             3   an option or a combination of options is not valid
    ├── MissingDependencyError  4   an optional package is needed and absent
    ├── InputDataError          5   what the user gave (files, arrays, ids) is not valid
    ├── CorruptStoreError       6   bytes that we wrote are not what the manifest says
    ├── StoreBusyError          7   another process is writing here
    ├── MemoryBudgetError       8   it does not fit in --memory
    ├── DiskSpaceError          9   it does not fit on the disk or in --disk
    ├── VersionError            10  written by another version of the format
    └── InterruptedWorkError    11  work stopped half-way and can be continued

Codes (`GS-IN-003`) are stable: the same problem always has the same code.
"""

from __future__ import annotations


class GnnsysError(Exception):
    """Root of the tree. `code` is stable, `message` says what happened and where, `hint` what to do."""

    exit_code = 1
    everywhere = False
    """Every rank of a distributed run raises the same: only the first one need say it."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f"\n  {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.code, self.message, self.hint))


def _rebuild(kind: type[GnnsysError], code: str, message: str, hint: str) -> GnnsysError:
    return kind(code, message, hint=hint)


class ConfigError(GnnsysError):
    """An option or a combination of options is not valid."""

    exit_code = 3


class MissingDependencyError(GnnsysError):
    """An optional package is needed and absent."""

    exit_code = 4


class InputDataError(GnnsysError):
    """What the user gave (files, arrays, ids) is not valid."""

    exit_code = 5


class CorruptStoreError(GnnsysError):
    """Bytes that we wrote are not what their manifest says."""

    exit_code = 6


class StoreBusyError(GnnsysError):
    """Another process is writing here."""

    exit_code = 7


class MemoryBudgetError(GnnsysError):
    """The work does not fit in the memory budget."""

    exit_code = 8


class DiskSpaceError(GnnsysError):
    """The work does not fit on the disk or in the disk budget."""

    exit_code = 9


class VersionError(GnnsysError):
    """Written by another version of the format."""

    exit_code = 10


class InterruptedWorkError(GnnsysError):
    """Work stopped half-way and can be continued."""

    exit_code = 11
