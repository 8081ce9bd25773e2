"""Start the ranks of a pipeline on this machine: the same command again, once per stage, under torch's launcher.

What `torchrun --standalone` does, with one clear line when a rank fails: ranks leave their errors in the files that the
launcher names, and it reports the one that came first. A rank ends with its launcher, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from gnnsys.cli.common import Stopped
from gnnsys.cli.ranks import LAUNCHED, RankError
from gnnsys.pipeline.ranks import LOST

_STOPPING_S = 10
"""A rank that is killed later than that after the first failure did not stop when it was asked to: no cause."""


def start_ranks(num_ranks: int, arguments: Sequence[str]) -> None:
    """Run `python -m gnnsys arguments...` as that many ranks and wait for all of them.

    Raises:
        RankError: the first that failed; the others were stopped.
        Stopped: a signal came; the ranks got it too and wrote their checkpoint.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ |= {LAUNCHED: "1", "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        run_id="gnnsys",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "gnnsys", *arguments)
    except ChildFailedError as error:
        raise _first_failure(error.failures) from error
    except SignalException as stopped:
        raise Stopped(stopped.sigval.value) from stopped


def _first_failure(failures: Mapping[int, ProcessFailure]) -> RankError:
    """The cause, not its consequences: a rank that was killed, else one that failed by itself, else who was left."""

    began = min(failure.timestamp for failure in failures.values())

    def order(item: tuple[int, ProcessFailure]) -> tuple[int, int]:
        rank, failure = item
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
            return (0 if failure.timestamp - began < _STOPPING_S else 3), rank
        told = _told(failure)
        return (1 if told and LOST not in told[1] else 2), rank

    rank, failure = min(failures.items(), key=order)
    if told := _told(failure):
        return RankError(*told)
    how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with code {failure.exitcode}"
    what = f"{LOST}: rank {rank} {how}; the others were stopped"
    return RankError(11, f"{what}\n  Repeat the same command: it continues from the last checkpoint.")


def _told(failure: ProcessFailure) -> tuple[int, str] | None:
    """Exit code and message that a rank left; None of one that could not."""
    data: Any = failure.error_file_data
    message = data.get("message") if isinstance(data, dict) else None
    if not isinstance(message, dict) or "exit_code" not in message.get("extraInfo", {}):
        return None
    return int(message["extraInfo"]["exit_code"]), str(message["message"])
