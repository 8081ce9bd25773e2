"""What `gnnsys doctor` looks at: packages, processor, memory, devices, and the volume of a folder; one finding each."""

from __future__ import annotations

import fcntl
import os
import platform
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from gnnsys.budget import counted_bytes
from gnnsys.planning.calibrate import speeds_of
from gnnsys.storage.direct import aligned_buffer
from gnnsys.storage.files import PAGE, free_bytes
from gnnsys.storage.threads import num_workers
from gnnsys.units import format_size

State = Literal["ok", "degraded", "missing", "broken"]

REQUIRED = ("torch", "numpy", "numba", "safetensors", "xxhash", "pydantic", "typer", "rich")
OPTIONAL = {
    "torch_geometric": ("layers of PyG in models of your own, batch.to_pyg()", 'pip install "gnnsys[pyg]"'),
    "dgl": ("batch.to_dgl()", 'pip install "gnnsys[dgl]"'),
    "ogb": ("ingest ogb:NAME", 'pip install "gnnsys[ogb]"'),
    "pandas": ("ingest ogb:NAME", 'pip install "gnnsys[ogb]"'),
    "tensorboard": ("report --tensorboard", 'pip install "gnnsys[report]"'),
    "matplotlib": ("plots of gnnsys bench", "pip install matplotlib"),
}
"""Package, what it is for, how to get it."""

_FEW_FILES = 1024
_LITTLE_SHARED = 64 << 20
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: `ok`; `degraded`, something slower or less exact takes its place; `missing`, an option is not there;
            `broken`, nothing works without it.
        means: what follows from it, or how to mend it.
    """

    topic: str
    state: State
    found: str
    means: str = ""


def environment() -> Iterator[Finding]:
    """Of this machine and this Python."""
    yield Finding("python", "ok", platform.python_version())
    yield from map(_required, REQUIRED)
    yield from (_optional(name, *told) for name, told in OPTIONAL.items())
    yield Finding(
        "cores", "ok", f"{num_workers(None)} usable of {os.cpu_count()}, torch takes {torch.get_num_threads()}"
    )
    yield _bf16()
    yield _cuda()
    yield _memory()
    yield _accounting()
    yield _open_files()
    yield _shared()


def volume(folder: Path) -> Iterator[Finding]:
    """Of the volume of `folder`, which is there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".gnnsys-doctor-") as file:
            yield Finding("folder", "ok", f"{folder}: {format_size(free_bytes(folder))} free")
            yield _locks(file.fileno())
            yield _allocation(file.fileno())
            yield _direct(Path(file.name))
    except OSError as error:
        yield Finding("folder", "broken", f"{folder}: {error.strerror}", "Choose one that can be written with --path.")
        return
    yield _speed(folder)


def _required(name: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "broken", "not installed", f"pip install {name}")


def _optional(name: str, purpose: str, mend: str) -> Finding:
    try:
        return Finding(name, "ok", version(name), purpose)
    except PackageNotFoundError:
        return Finding(name, "missing", "not installed", f"for {purpose}: {mend}")


def _bf16() -> Finding:
    flags = _first_line_of("/proc/cpuinfo", "flags").split()
    found = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    if found or (torch.cuda.is_available() and torch.cuda.is_bf16_supported()):
        return Finding("bf16", "ok", ", ".join(found) or "on the GPU", "--precision bf16 pays")
    return Finding("bf16", "degraded", "not in this processor", "--precision bf16 works, and is slower than f32")


def _cuda() -> Finding:
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} sees no CUDA device"
        return Finding("cuda", "missing", built, "training runs on the processor")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("cuda", "ok", ", ".join(names))


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return Finding("memory", "degraded", "the system does not tell how much there is", "choose --memory with care")
    limits = [int(text) for path in _CGROUP_LIMITS if (text := _text(path).strip()).isdigit()]
    limit = min(limits, default=total)
    limited = f", this container may use {format_size(limit)}" if limit < total else ""
    return Finding("memory", "ok", format_size(total) + limited)


def _accounting() -> Finding:
    if counted_bytes():
        return Finding("accounting", "ok", "growth is measured in /proc")
    means = "--memory is kept by calculation alone, what a step takes is not measured"
    return Finding("accounting", "degraded", "the system does not tell what a process uses", means)


def _open_files() -> Finding:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _FEW_FILES or soft == resource.RLIM_INFINITY:
        return Finding("open files", "ok", f"at most {soft}")
    return Finding(
        "open files", "degraded", f"at most {soft}", f"many loaders at once may run out: ulimit -n {_FEW_FILES}"
    )


def _shared() -> Finding:
    topic = "/dev/shm"  # noqa: S108 - looked at, not written to
    if not Path(topic).is_dir():
        return Finding(topic, "degraded", "not there", "PyTorch's own DataLoader workers may need it; we do not")
    free = free_bytes(Path(topic))
    if free < _LITTLE_SHARED:
        means = "PyTorch's own DataLoader workers may run out; we do not use it"
        return Finding(topic, "degraded", f"{format_size(free)} free", means)
    return Finding(topic, "ok", f"{format_size(free)} free")


def _locks(fd: int) -> Finding:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        means = "One writer at a time cannot be ensured: choose another volume with --path."
        return Finding("locks", "broken", f"refused: {error.strerror}", means)
    return Finding("locks", "ok", "one writer at a time is ensured")


def _allocation(fd: int) -> Finding:
    means = "files grow as they are written: a full disk shows later"
    if not hasattr(os, "posix_fallocate"):
        return Finding("fallocate", "degraded", "not in this system", means)
    try:
        os.posix_fallocate(fd, 0, PAGE)
    except OSError as error:
        return Finding("fallocate", "degraded", f"refused: {error.strerror}", means)
    return Finding("fallocate", "ok", "space is taken before it is written")


def _direct(path: Path) -> Finding:
    means = "reads go through the page cache: the same bytes, and memory of others may be pushed out"
    if not hasattr(os, "O_DIRECT"):
        return Finding("O_DIRECT", "degraded", "not in this system", means)
    os.truncate(path, PAGE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            os.preadv(fd, [aligned_buffer(PAGE).data], 0)
        finally:
            os.close(fd)
    except OSError as error:
        return Finding("O_DIRECT", "degraded", f"refused: {error.strerror}", means)
    return Finding("O_DIRECT", "ok", "reads bypass the page cache")


def _speed(folder: Path) -> Finding:
    speeds = speeds_of(folder)
    if speeds is None:
        return Finding("disk speed", "degraded", "not measured (1 GiB must be free)", "plans predict no seconds")
    found = (
        f"read {format_size(speeds.read)}/s, write {format_size(speeds.write)}/s, {speeds.random:,.0f} random reads/s"
    )
    return Finding("disk speed", "ok", found)


def _first_line_of(path: str, title: str) -> str:
    return next((line for line in _text(path).splitlines() if line.startswith(title)), "")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
