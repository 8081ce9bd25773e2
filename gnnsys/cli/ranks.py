"""What the command line must know of ranks before torch is loaded: which one this is, and how it tells of errors."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path

LAUNCHED = "GNNSYS_LAUNCHED"
"""Set for ranks that `start_ranks` started: it tells the user what went wrong."""
_PR_SET_PDEATHSIG = 1


class RankError(Exception):
    """A rank ended with an error: its exit code, and what it said."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(exit_code, message)
        self.exit_code, self.message = exit_code, message


def rank() -> int:
    """Number of this process among those that were started together, 0 when it was started alone."""
    return int(os.environ.get("RANK", "0"))


def is_rank() -> bool:
    """This process is one of several, started by `start_ranks` or by `torchrun`."""
    return "RANK" in os.environ


def was_launched() -> bool:
    """This process is a rank that `start_ranks` started."""
    return is_rank() and LAUNCHED in os.environ


def end_with_launcher() -> None:
    """Have the kernel stop this rank (SIGTERM) when the process that started it is gone; Linux only."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def leave_error(message: str, code: int) -> None:
    """Write down why this rank fails, where its launcher looks; nothing in a process that is no rank."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"timestamp": str(int(time.time())), "exit_code": code}
        report = {"message": {"message": message, "extraInfo": extra}}
        Path(path).write_text(json.dumps(report))
