"""Who takes part: the processes of a training run as a mesh of stages and replicas, and what they agree on.

Rank r is replica `r % W` of stage `r // W`: replicas of a stage are neighbours, on the same machine where possible.
`Alone` is the same for one process. What ranks tell each other beside tensors is JSON, never a pickle.

A rank that is gone, or silent for longer than the timeout, is an InterruptedWorkError on all others (GS-PIPE-001).
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

import gnnsys.errors
from gnnsys.errors import ConfigError, GnnsysError, InterruptedWorkError
from gnnsys.pipeline.channel import Channel, Wire

LOST = "GS-PIPE-001"
BETWEEN_STEPS = timedelta(days=7)
"""Patience while the first rank does something for all (evaluation): a dead one is noticed at once all the same."""


class Ranks(Protocol):
    """The processes of a run, seen by one of them."""

    stage: int
    num_stages: int
    replica: int
    num_replicas: int

    @property
    def is_first(self) -> bool:
        """This one speaks for all: it writes files, evaluates and reports."""
        ...

    def sum(self, values: Sequence[float]) -> list[float]:
        """Every number added up over all ranks."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The JSON value of every rank, in their order."""
        ...

    def first(self, work: Callable[[], Any]) -> Any:
        """What `work`, done on the first rank alone, returns (JSON) or raises; the same on every rank."""
        ...

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up gradients over the replicas of this stage; a missing one counts as zero."""
        ...

    def collect(self, tensors: Mapping[str, Tensor], owner: int) -> None:
        """Fill `tensors` on the first rank with those of stage `owner`, which gives them."""
        ...

    def wires(self) -> tuple[Wire, Wire]:
        """To the stage before and to the stage behind."""
        ...

    def close(self) -> None: ...


class Alone:
    """One process: nothing to agree on."""

    stage = replica = 0
    num_stages = num_replicas = 1
    is_first = True

    def sum(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def first(self, work: Callable[[], Any]) -> Any:
        return work()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        pass

    def collect(self, tensors: Mapping[str, Tensor], owner: int) -> None:
        pass

    def wires(self) -> tuple[Wire, Wire]:
        return Wire(None, None), Wire(None, None)

    def close(self) -> None:
        pass


class Mesh:
    """The ranks of `torch.distributed`, as `torchrun` or our launcher started them.

    Args:
        num_stages: consecutive parts of the model; the world is that many times the replicas.
        device: of this rank; NCCL for CUDA, gloo else.
        timeout_s: how long a rank may keep others waiting within a step.

    Raises:
        InterruptedWorkError: the others cannot be reached.
    """

    def __init__(self, num_stages: int, device: torch.device, timeout_s: float) -> None:
        world_size = world()
        self.num_stages, self.num_replicas = num_stages, world_size // num_stages
        timeout = timedelta(seconds=timeout_s)
        self._device = device
        with heard("the other ranks"), _killable():
            backend = "nccl" if device.type == "cuda" else "gloo"
            store, rank, size = _meeting_place(timeout)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
            shape = (num_stages, self.num_replicas)
            mesh = init_device_mesh(device.type, shape, mesh_dim_names=("pp", "dp"))
            self.stage, self.replica = (int(place) for place in mesh.get_coordinate() or (0, 0))
            self._replicas = mesh["dp"].get_group()
            self._quick = dist.new_group(backend="gloo", timeout=timeout)
            self._slow = dist.new_group(backend="gloo", timeout=BETWEEN_STEPS)
            self._wires = self._connect(timeout)

    @property
    def is_first(self) -> bool:
        return dist.get_rank() == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        with heard("the other ranks, at the end of a step"):
            dist.all_reduce(total, group=self._quick)
        return [float(value) for value in total]

    def gather(self, value: Any) -> list[Any]:
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with heard("the other ranks"):
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
            dist.all_gather(sizes, torch.tensor([len(data)]), group=self._slow)
            longest = max(int(size) for size in sizes)
            parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
            padded = torch.nn.functional.pad(data, (0, longest - len(data)))
            dist.all_gather(parts, padded, group=self._slow)
        return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def first(self, work: Callable[[], Any]) -> Any:
        told: dict[str, Any] = {}
        if self.is_first:
            try:
                told = {"value": work()}
            except GnnsysError as error:
                told = _told(error)
            except Exception as error:
                self.gather(_told(GnnsysError("GS-PIPE-002", f"the first rank failed: {error!r}")))
                raise
        answer = self.gather(told)[0]
        if "code" in answer:
            raise _raised(answer)
        return answer["value"]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        if self.num_replicas == 1:
            return
        own = list(parameters)
        for dtype in sorted({p.dtype for p in own}, key=str):
            same = [p for p in own if p.dtype == dtype]
            flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in same])
            with heard(f"the other replicas of stage {self.stage}"):
                dist.all_reduce(flat, group=self._replicas)
            for parameter, grad in zip(same, flat.split([p.numel() for p in same]), strict=True):
                parameter.grad = grad.view_as(parameter)

    def collect(self, tensors: Mapping[str, Tensor], owner: int) -> None:
        source = owner * self.num_replicas
        if source == 0 or dist.get_rank() not in (0, source):
            return
        with heard(f"stage {owner}, which gives its weights" if self.is_first else "the first rank"):
            for _, tensor in sorted(tensors.items()):
                passed = tensor.detach().cpu().contiguous()
                if self.is_first:
                    dist.recv(passed, source, group=self._slow)
                    tensor.copy_(passed)
                else:
                    dist.send(passed, 0, group=self._slow)

    def wires(self) -> tuple[Wire, Wire]:
        return self._wires

    def close(self) -> None:
        dist.destroy_process_group()

    def _connect(self, timeout: timedelta) -> tuple[Wire, Wire]:
        """Two channels per boundary, each one-way: both ends use it in the order of the micro-batches, so no order
        between sending and receiving can block (NCCL has no tags)."""
        me = dist.get_rank()
        channels: dict[tuple[int, int], Channel] = {}
        for stage, replica in product(range(self.num_stages - 1), range(self.num_replicas)):
            before = stage * self.num_replicas + replica
            behind = before + self.num_replicas
            for sender, receiver in ((before, behind), (behind, before)):
                group = dist.new_group([sender, receiver], timeout=timeout)
                if me in (sender, receiver):
                    channels[sender, receiver] = Channel(group, sender, receiver, self._device)
        before, behind = me - self.num_replicas, me + self.num_replicas
        wires = [Wire(channels.get((me, other)), channels.get((other, me))) for other in (before, behind)]
        return wires[0], wires[1]


def world() -> int:
    """Processes that were started together; 1 when this one was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_world(num_stages: int, num_micro: int) -> None:
    """Raise ConfigError unless the processes started can hold the stages, and share the micro-batches evenly."""
    size = world()
    if size == 1 and num_stages > 1 and "RANK" not in os.environ:
        raise ConfigError(
            "GS-CFG-812",
            f"{num_stages} stages need {num_stages} processes, this is one",
            hint=f"Start it with torchrun --nproc-per-node {num_stages}, or use gnnsys train --pipeline {num_stages}.",
        )
    if size % num_stages:
        raise ConfigError(
            "GS-CFG-812",
            f"{size} processes were started for {num_stages} stages",
            hint="Start a multiple of the stages: each further one is a data-parallel replica of all stages.",
        )
    replicas = size // num_stages
    if num_micro % replicas:
        raise ConfigError(
            "GS-CFG-813",
            f"{num_micro} micro-batches cannot be shared by {replicas} replicas",
            hint=f"Use --micro-batches {-(-num_micro // replicas) * replicas}.",
        )


def local_device(name: str) -> str:
    """The device of this rank for option `--device`: `auto` is a GPU of its own where every local rank has one."""
    if name != "auto" or world() == 1:
        return name
    local, on_this_host = (int(os.environ.get(key, "0")) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= max(on_this_host, 1)
    return f"cuda:{local}" if enough else "cpu"


@contextmanager
def heard(who: str) -> Iterator[None]:
    """Turn a broken or silent connection into one clear error."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InterruptedWorkError(
            LOST,
            f"rank {os.environ.get('RANK', '0')} lost {who} ({reason})",
            hint="Repeat the same command: it continues from the last checkpoint.",
        ) from error


def _meeting_place(timeout: timedelta) -> tuple[Store, int, int]:
    """Where ranks find each other, their number here and how many they are. After a restart torchrun (2.13) offers the
    same store, with the addresses of the dead in it: every attempt gets a corner of its own."""
    store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"attempt-{attempt}", store), rank, size


@contextmanager
def _killable() -> Iterator[None]:
    """SIGTERM ends the process at once: while ranks look for each other no handler of ours would get to run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(error: GnnsysError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "code": error.code, "message": error.message, "hint": error.hint}


def _raised(told: Mapping[str, Any]) -> GnnsysError:
    kind: type[GnnsysError] = getattr(gnnsys.errors, told["kind"], GnnsysError)
    error = kind(told["code"], told["message"], hint=told["hint"])
    error.everywhere = True
    return error
