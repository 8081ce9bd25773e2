"""Which devices get what: every way to use them, predicted from a profile of the layers, explained, and one chosen.

Devices in a row are stages with some of the layers each; devices side by side are replicas that share the micro-batches
of a step. A prediction performs the schedule on paper with what the layers cost, adds what is sent, and never goes
faster than the rows come from disk. Processes on one host share its cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any

from gnnsys.pipeline.balance import balance
from gnnsys.pipeline.schedule import make_schedule
from gnnsys.pipeline.simulate import simulate
from gnnsys.units import format_size

MARGIN = 1.05
"""How much better than data parallelism a prediction must be to be believed."""
LINK_BYTES_PER_S, LINK_S = 1.4e9, 0.001
"""Bandwidth and delay of a message between two processes of a host: gloo over loopback, measured on 2 cores."""


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer on one micro-batch."""

    forward_s: float
    backward_s: float
    sent_bytes: int
    """Of its output."""
    held_bytes: int
    """Between forward and backward."""
    parameter_bytes: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is placed: a step of so many micro-batches, or of all chunks of a graph."""

    layers: tuple[LayerCost, ...]
    num_micro: int
    schedule: str
    load_s: float
    """To read a micro-batch from disk."""
    batch_bytes: int
    """Of a micro-batch in memory, beside the one that `shared_bytes` hold: the first stage keeps those it is ahead."""
    fixed_bytes: tuple[int, ...]
    """Per layer, held all the time beside model and optimizer: rows kept between chunks."""
    shared_bytes: int = 0
    """Held by every process: what reads, a graph, small things."""
    least_step_bytes: int = 0
    """What every process sets aside for a step, at least."""
    thread_gain: float = 1.0
    """How much faster one process is with all cores than with one thread; several have one thread each."""
    replicas: bool = True
    """Micro-batches may be shared by replicas; chunks, which read each other's rows, may not."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the work is placed on."""

    num_devices: int
    cores: int
    """That all processes share; 0 when every device computes by itself and has memory of its own."""
    memory: int
    """Bytes that all processes may take together, or each device has."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One way to use the devices, as predicted."""

    stages: int
    replicas: int
    bounds: tuple[int, ...]
    step_s: float
    bubble: float
    """Share of the time of a step in which a device waits."""
    step_bytes: int
    """Sent between processes in a step, gradients included."""
    memory_bytes: int
    """Of all processes together, or of the fullest device."""
    fits: bool

    @property
    def devices(self) -> int:
        return self.stages * self.replicas

    @property
    def name(self) -> str:
        if self.devices == 1:
            return "one device"
        if self.stages == 1:
            return f"data parallel x {self.replicas}"
        return f"{self.stages} stages" + (f" x {self.replicas} replicas" if self.replicas > 1 else "")


@dataclass(frozen=True, kw_only=True)
class Placements:
    """All of them, and the one chosen."""

    work: Work
    machine: Machine
    candidates: tuple[Placement, ...]
    chosen: Placement | None
    """None when none fits."""
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "candidates": [{"name": c.name, **asdict(c)} for c in self.candidates],
            "chosen": self.chosen and {"name": self.chosen.name, **asdict(self.chosen)},
        }

    def __str__(self) -> str:
        return "\n".join(_explained(self))


def place(work: Work, machine: Machine) -> Placements:
    """Predict every way to use up to `machine.num_devices` devices and choose the fastest that fits.

    Data parallelism is chosen unless something else is predicted to beat it by more than `MARGIN`.
    """
    found = [
        _predicted(work, machine, stages, replicas)
        for stages in range(1, min(machine.num_devices, len(work.layers)) + 1)
        for replicas in range(1, machine.num_devices // stages + 1)
        if (replicas == 1 or work.replicas) and work.num_micro % replicas == 0
    ]
    fitting = [each for each in found if each.fits]
    chosen = min(fitting, key=lambda each: each.step_s, default=None)
    plain = min((each for each in fitting if each.stages == 1), key=lambda each: each.step_s, default=None)
    if chosen is None:
        least = min(found, key=lambda each: each.memory_bytes)
        why = f"none fits: {least.name} takes the least, {format_size(least.memory_bytes)}"
    elif plain is None:
        why = "one device cannot hold the model with its activations: stages share them"
    elif chosen.stages > 1 and plain.step_s > MARGIN * chosen.step_s:
        why = f"predicted {plain.step_s / chosen.step_s:.2f} x as fast as {plain.name}, the best without stages"
    else:
        why = _why_no_stages(plain, fitting)
        chosen = plain
    return Placements(work=work, machine=machine, candidates=tuple(found), chosen=chosen, why=why)


def _why_no_stages(plain: Placement, fitting: Sequence[Placement]) -> str:
    staged = min((each for each in fitting if each.stages > 1), key=lambda each: each.step_s, default=None)
    if staged is None:
        return "no way with stages fits, or there are no layers to cut"
    bubble = f"waiting takes {staged.bubble:.0%} of it"
    return f"{staged.name}, the best with stages, needs {staged.step_s / plain.step_s:.2f} x its time: {bubble}"


def _predicted(work: Work, machine: Machine, stages: int, replicas: int) -> Placement:
    own = work.num_micro // replicas
    slow = _slowness(work, machine, stages * replicas)
    bounds = balance([layer.forward_s + layer.backward_s for layer in work.layers], stages)
    parts = [work.layers[begin:end] for begin, end in pairwise(bounds)]
    sent = [part[-1].sent_bytes for part in parts[:-1]]
    schedule = make_schedule(work.schedule, stages, own)
    timeline = simulate(
        schedule,
        [slow * sum(layer.forward_s for layer in part) for part in parts],
        [slow * sum(layer.backward_s for layer in part) for part in parts],
        LINK_S + max(sent, default=0) / LINK_BYTES_PER_S,
    )
    parameters = [sum(layer.parameter_bytes for layer in part) for part in parts]
    reduced = LINK_S + 2 * (replicas - 1) / replicas * max(parameters) / LINK_BYTES_PER_S if replicas > 1 else 0.0
    held = [
        4 * parameters[stage]
        + max(
            schedule.num_live(stage) * sum(layer.held_bytes for layer in part)
            + (schedule.num_live(0) - 1) * work.batch_bytes * (stage == 0),
            work.least_step_bytes,
        )
        + sum(work.fixed_bytes[bounds[stage] : bounds[stage + 1]])
        + work.shared_bytes
        for stage, part in enumerate(parts)
    ]
    memory = replicas * sum(held) if machine.cores else max(held)
    return Placement(
        stages=stages,
        replicas=replicas,
        bounds=tuple(bounds),
        step_s=max(timeline.length + reduced, work.num_micro * work.load_s),
        bubble=timeline.bubble,
        step_bytes=2 * work.num_micro * sum(sent) + 2 * (replicas - 1) * sum(parameters),
        memory_bytes=memory,
        fits=memory <= machine.memory,
    )


def _slowness(work: Work, machine: Machine, processes: int) -> float:
    """How much longer a layer takes than with one thread on a core of its own."""
    if not machine.cores:
        return 1.0
    return 1 / work.thread_gain if processes == 1 else max(1.0, processes / machine.cores)


def _explained(found: Placements) -> Iterator[str]:
    work, machine = found.work, found.machine
    micro = "micro-batches" if work.replicas else "chunks"
    yield f"A step of {work.num_micro} {micro} through {len(work.layers)} layers on up to {machine.num_devices} devices"
    if machine.cores:
        yield (
            f"Processes share {machine.cores} cores; one alone uses all of them and is {work.thread_gain:.2f} x as "
            "fast as with one thread."
        )
    yield ""
    yield f"  {'layer':<7}{'forward':>10}{'backward':>10}{'gives':>11}{'holds':>11}{'weights':>11}  each"
    number = 0
    for sizes, alike in groupby(
        work.layers, key=lambda layer: (layer.sent_bytes, layer.held_bytes, layer.parameter_bytes)
    ):
        group = list(alike)
        name = f"{number}" if len(group) == 1 else f"{number}-{number + len(group) - 1}"
        times = "".join(
            f"{_ms(fmean(each)):>10}"
            for each in zip(*((layer.forward_s, layer.backward_s) for layer in group), strict=True)
        )
        yield f"  {name:<7}{times}" + "".join(f"{format_size(size):>11}" for size in sizes)
        number += len(group)
    yield f"  reading a batch takes {_ms(work.load_s)}"
    yield ""
    yield f"    {'':<24}{'step':>10}{'waiting':>9}{'sent/step':>12}{'memory':>11}  layers of stages"
    for each in found.candidates:
        mark = ">" if each == found.chosen else " "
        cut = " ".join(f"{begin}-{end - 1}" for begin, end in pairwise(each.bounds))
        cells = f"{_ms(each.step_s):>10}{each.bubble:>9.0%}{format_size(each.step_bytes):>12}"
        fits = "" if each.fits else "  does not fit"
        yield f"  {mark} {each.name:<24}{cells}{format_size(each.memory_bytes):>11}  {cut}{fits}"
    yield ""
    yield f"{found.chosen.name if found.chosen else 'Refused'}: {found.why}."


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"
