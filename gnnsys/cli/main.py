"""The `gnnsys` command: verbs, exit codes, and what is printed when something goes wrong."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import traceback
import warnings
from importlib.metadata import PackageNotFoundError, requires
from typing import Any, TextIO

from gnnsys.budget import give_back_freed_blocks
from gnnsys.cli.app import app
from gnnsys.cli.common import Stopped
from gnnsys.cli.ranks import RankError, end_with_launcher, leave_error, rank, was_launched
from gnnsys.errors import GnnsysError, MissingDependencyError


def main() -> None:
    """Run the command line and exit with the code of its error class (see `gnnsys.errors`)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    warnings.showwarning = _show_warning
    if was_launched():
        end_with_launcher()
    give_back_freed_blocks()
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    verbose = "-v" in arguments or "--verbose" in arguments
    arguments = [a for a in arguments if a not in ("-v", "--verbose")]
    try:
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except Stopped as stopped:
        command = shlex.join(["gnnsys", *sys.argv[1:]])
        if not was_launched():
            print(f"\ninterrupted; what was finished is kept. Continue with:\n  {command}", file=sys.stderr)
        return stopped.exit_code
    except RankError as failed:
        return _fail(failed.message, failed.exit_code, verbose)
    except GnnsysError as error:
        return _fail(str(error), error.exit_code, verbose, said_by_first=error.everywhere)
    except ModuleNotFoundError as error:
        absent = _absent_requirement(error)
        return _fail(str(absent), absent.exit_code, verbose) if absent else _fail(*_unplanned(error), verbose)
    except Exception as error:
        return _fail(*_unplanned(error), verbose)
    return 0


def _absent_requirement(error: ModuleNotFoundError) -> MissingDependencyError | None:
    """A package that gnnsys does not start without, when that is what could not be imported."""
    name = (error.name or "").split(".")[0]
    try:
        required = {re.split("[^A-Za-z0-9_-]", text)[0] for text in requires("gnnsys") or () if "extra" not in text}
    except PackageNotFoundError:
        return None
    if name not in required:
        return None
    return MissingDependencyError("GS-DEP-006", f"gnnsys needs the package {name}", hint=f"pip install {name}")


def _unplanned(error: Exception) -> tuple[str, int]:
    """What to say of an error that nobody raised on purpose, whose it is, and the exit code."""
    from gnnsys.storage.files import explained

    what = f"{type(error).__name__}: {error}"
    user_file = sys.modules.get("gnnsys.models.user_file")  # loads torch: without it no model was built
    if user_file and (where := user_file.line_in_user_file(error)):
        return f"your model failed at {where}: {what}\n  -v shows how it came there.", 1
    if isinstance(error, OSError):
        known = explained(error)
        return str(known), known.exit_code
    if isinstance(error, MemoryError):
        return what, 1
    return f"{what}\n  This is a bug; -v shows where it happened.", 1


def _fail(text: str, code: int, verbose: bool, *, said_by_first: bool = False) -> int:
    """Say it once: a rank that we launched tells its launcher, and what all ranks raise is said by the first."""
    leave_error(text, code)
    if verbose:
        traceback.print_exc()
    if not was_launched() and not (said_by_first and rank() > 0):
        print(f"error {text}", file=sys.stderr)
    return code


def _stop(number: int, _frame: Any) -> None:
    raise Stopped(number)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if rank() == 0:
        print(f"warning: {message}", file=sys.stderr)
