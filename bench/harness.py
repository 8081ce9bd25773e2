"""What every benchmark shares: repeats, machine and versions, page-cache and memory limits, one JSON per run.

A case is a function `run(quick, folder) -> Report`. A row compares us with a peer measured in the same run:
{case, metric, unit, ours, peer_name, peer, ratio}; raw samples of both sides stand beside the rows.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gnnsys.storage.files import atomic_write, make_output_folder
from gnnsys.storage.manifest import canonical_json
from gnnsys.units import format_size

Report = dict[str, Any]

_DROP = Path("/proc/sys/vm/drop_caches")
_PACKAGES = ("gnnsys", "numpy", "torch", "numba", "xxhash", "torch_geometric", "dgl")
_CGROUP = Path("/sys/fs/cgroup")


def repeated(measure: Callable[[], float], repeats: int, *, before: Callable[[], Any] | None = None) -> list[float]:
    """`measure()` that often, after one warm-up that is not kept; `before` runs ahead of each."""
    samples = []
    for _ in range(repeats + 1):
        if before:
            before()
        samples.append(measure())
    return samples[1:]


def seconds(work: Callable[[], Any]) -> float:
    """How long `work()` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Median, least, greatest and the samples themselves."""
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "samples": list(samples)}


def row(
    case: str,
    metric: str,
    unit: str,
    ours: Sequence[float],
    peer_name: str,
    peer: Sequence[float] | str,
    *,
    less_is_better: bool = False,
) -> dict[str, Any]:
    """One line of the table, of medians. A ratio above 1 says how many times better ours is.

    Args:
        peer: samples, or the reason why there are none: then peer and ratio are null.
    """
    mine = statistics.median(ours)
    made = {"case": case, "metric": metric, "unit": unit, "ours": mine, "peer_name": peer_name}
    if isinstance(peer, str):
        return {**made, "peer": None, "ratio": None, "reason": peer, "ours_samples": list(ours)}
    other = statistics.median(peer)
    over, under = (other, mine) if less_is_better else (mine, other)
    ratio = over / under if under else None
    return {**made, "peer": other, "ratio": ratio, "ours_samples": list(ours), "peer_samples": list(peer)}


def report(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], **extra: Any) -> Report:
    """Rows with all that is needed to believe them."""
    return {
        "rows": [dict(r) for r in rows],
        "config": dict(config),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        **extra,
    }


def write_report(result: Report, path: Path) -> None:
    """One JSON file, replaced atomically."""
    make_output_folder(path.parent)
    atomic_write(path, canonical_json(result) + b"\n")


def machine() -> dict[str, Any]:
    """Processor, GPU, cores, memory, kernel: what figures depend on, nothing that names the host."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": len(os.sched_getaffinity(0)),
        "memory": format_size(pages),
        "system": f"{platform.system()} {platform.release()}",
        "caches_dropped": can_drop_caches(),
        "memory_cgroup": memory_controller() is not None,
    }


def versions() -> dict[str, str]:
    """Python and the packages that matter; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str:
    """The commit measured, with `+` when the tree had changes; empty outside a repository."""
    root = Path(__file__).resolve().parents[1]
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def can_drop_caches() -> bool:
    """May this process empty the page cache? Where not, cold figures need data larger than memory."""
    return os.access(_DROP, os.W_OK)


def drop_caches() -> bool:
    """Empty the page cache when allowed; says whether it happened."""
    os.sync()
    if not can_drop_caches():
        return False
    fd = os.open(_DROP, os.O_WRONLY)
    try:
        os.write(fd, b"3")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def memory_controller() -> Path | None:
    """The cgroup folder below which this process may limit the memory of children; None when there is none.

    cgroup v1: the `memory` hierarchy. v2: a group whose `memory` controller is delegated to its children.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, relative = line.split(":", 2)
        if "memory" in controllers.split(","):
            base = _CGROUP / "memory" / relative.lstrip("/")
            limit = "memory.limit_in_bytes"
        elif not controllers:
            base = _CGROUP / relative.lstrip("/")
            limit = "memory.max"
        else:
            continue
        with suppress(OSError), _child_group(base) as group:
            if (group / limit).exists():
                return base
    return None


@contextmanager
def memory_limit(num_bytes: int) -> Iterator[list[str]]:
    """A prefix for child commands that then run in a cgroup of `num_bytes`, page cache included.

    The empty list where cgroups cannot be made: ask `memory_controller()` and say so in the report.
    """
    base = memory_controller()
    if base is None:
        yield []
        return
    with _child_group(base) as group:
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (group / name).exists():
                _put(group / name, str(num_bytes))
        # the shell enters the group and becomes the command, so nothing of it is charged elsewhere
        yield ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "gnnsys-limit"]


def run_child(arguments: Sequence[str], *, prefix: Sequence[str] = (), timeout_s: float = 600) -> str:
    """stdout of `python -m <arguments>` as a child, under the prefix of `memory_limit` when given."""
    command = [*prefix, sys.executable, "-m", *arguments]
    child = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {child.returncode}:\n{child.stderr[-2000:]}")
    return child.stdout


def contestants(
    module: str, names: Sequence[str], folder: Path, repeats: int, prefix: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """What `python -m module NAME FOLDER REPEATS` prints as JSON, each contestant in a process of its own.

    One that fails, because a package is not there, say, has `failed`: the line of its error.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            found[name] = json.loads(
                run_child([module, name, str(folder), str(repeats)], prefix=prefix).splitlines()[-1]
            )
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if re.match(r"[\w.]+Error: ", line)]
            found[name] = {"failed": lines[-1] if lines else str(error).splitlines()[0]}
    return found


def samples(found: Mapping[str, Any], key: str) -> Any:
    """Samples of a contestant, or why there are none: what `row` takes for a peer."""
    return found.get("failed") or found[key]


@contextmanager
def _child_group(base: Path) -> Iterator[Path]:
    group = base / f"gnnsys-bench-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    try:
        yield group
    finally:
        for _ in range(50):  # the kernel keeps a group for a moment after its last process
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.02)


def _put(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    child = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return child.stdout.strip()
