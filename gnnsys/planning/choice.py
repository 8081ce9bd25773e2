"""Choose a layout from priced candidates: the request, the Plan that answers it, the refusal when nothing fits.

What decides bytes (layout, number of cached rows) is a pure function of pool, memory, disk, layout and order, so packs
are the same everywhere. Only `layout="auto"` also weighs predicted seconds; what it chose is then part of the pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gnnsys.errors import ConfigError, DiskSpaceError, InputDataError, MemoryBudgetError
from gnnsys.planning import cost
from gnnsys.planning.calibrate import Speeds
from gnnsys.planning.cost import Candidate
from gnnsys.planning.explain import explain
from gnnsys.planning.workload import Workload
from gnnsys.storage.aggregates import HOWS
from gnnsys.storage.generation import LAYOUTS
from gnnsys.units import format_size, parse_size

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer, with every candidate it was chosen from. `print` it for the explanation.

    Attributes:
        requested: the layout asked for; layout: the one chosen.
        aggregate: what the first layer does with its rows, for `pre-aggregated`; None when it was not said.
        cache_rows: C, rows of the static cache.
        cache_hits: requests of an epoch that it answers.
        batches_ahead: batches in flight that the loader's share allows.
        shares: `memory` by who holds it while training: loader, step, cache, left.
        num_rows, row_bytes, num_batches, requests, requested_rows: N, r, K, T and the distinct rows asked for.
        candidates: every layout considered, the chosen one among them.
        break_even_epochs: after so many, packing has paid for itself; None when never, or without speeds.
        sampled_batches: how many batches the numbers come from; less than `num_batches` means estimated.
    """

    pool_id: str
    store_id: str
    order: str
    memory: int
    device_memory: int
    disk: int | None
    epochs: int
    requested: str
    aggregate: str | None
    layout: str
    cache_rows: int
    cache_hits: int
    batches_ahead: int
    shares: Mapping[str, int]
    num_rows: int
    row_bytes: int
    num_batches: int
    requests: int
    requested_rows: int
    candidates: tuple[Candidate, ...]
    break_even_epochs: int | None
    sampled_batches: int
    speeds: Speeds | None = None

    @property
    def estimated(self) -> bool:
        """The numbers come from a sample of the batches."""
        return self.sampled_batches < self.num_batches

    @property
    def chosen(self) -> Candidate:
        return self.candidate(self.layout)

    @property
    def bytes_planned_per_epoch(self) -> int:
        """What one epoch requests from pool and pack files (from pool and Store when `direct`), whole pages."""
        return self.chosen.bytes

    def candidate(self, layout: str) -> Candidate:
        """The candidate of that name."""
        return next(c for c in self.candidates if c.layout == layout)

    def to_json(self) -> dict[str, Any]:
        """Every number as JSON values, and the explanation."""
        return {
            **asdict(self),
            "candidates": [{**asdict(c), "bytes": c.bytes, "total_s": c.total_s(self.epochs)} for c in self.candidates],
            "estimated": self.estimated,
            "bytes_planned_per_epoch": self.bytes_planned_per_epoch,
            "read_amplification": self.chosen.read_amplification,
            "explanation": str(self),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` described.

        Raises:
            InputDataError: fields are missing.
        """
        try:
            speeds = document["speeds"] and Speeds(**document["speeds"])
            candidates = tuple(_from(Candidate, c) for c in document["candidates"])
            plan: Plan = _from(cls, {**document, "speeds": speeds, "candidates": candidates})
        except (KeyError, TypeError) as error:
            raise InputDataError("GS-IN-304", f"this is not a plan: {error} is missing or of the wrong type") from error
        return plan

    def __str__(self) -> str:
        return explain(self)


def _from(kind: type, document: Mapping[str, Any]) -> Any:
    return kind(**{f.name: document[f.name] for f in fields(kind)})


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, checked."""

    memory: int
    device_memory: int
    disk: int | None
    epochs: int
    requested: str
    aggregate: str | None

    @classmethod
    def of(
        cls,
        memory: int | str,
        device_memory: int | str,
        disk: int | str | None,
        epochs: int,
        layout: str,
        aggregate: str | None,
    ) -> Request:
        """Raises ConfigError when an option is out of range."""
        if layout not in (*LAYOUTS, AUTO):
            raise ConfigError("GS-CFG-301", f"layout is {layout!r}; it must be one of {', '.join((*LAYOUTS, AUTO))}")
        if aggregate not in (None, *HOWS):
            raise ConfigError("GS-CFG-308", f"aggregate is {aggregate!r}; it must be one of {', '.join(HOWS)}")
        if layout == "pre-aggregated" and aggregate is None:
            raise ConfigError(
                "GS-CFG-308",
                "a pre-aggregated pack needs to know what the first layer does with its rows: aggregate is missing",
                hint="Name the model (--model sage), or give aggregate='mean' for sage, 'sum' for gin, 'gcn' for sgc "
                "and for gcn without dropout.",
            )
        if epochs < 1:
            raise ConfigError("GS-CFG-302", f"epochs is {epochs}; it must be at least 1")
        if parse_size(device_memory):
            raise ConfigError(
                "GS-CFG-303",
                f"device memory of {format_size(parse_size(device_memory))} was given; rows cannot be cached there yet",
                hint="Leave it out: the cache in memory serves every device.",
            )
        limit = None if disk is None else parse_size(disk)
        return cls(
            memory=parse_size(memory),
            device_memory=0,
            disk=limit,
            epochs=epochs,
            requested=layout,
            aggregate=aggregate,
        )


def choose(
    candidates: tuple[Candidate, ...],
    work: Workload,
    inner: Workload | None,
    request: Request,
    *,
    identity: Mapping[str, Any],
    requested_rows: int,
    sampled_batches: int,
    speeds: Speeds | None,
) -> Plan:
    """The plan that follows from priced candidates; a new layout is one more of them.

    Args:
        work: what an epoch asks for; inner: what it asks of a `pre-aggregated` pack, when that is a candidate.

    Raises:
        MemoryBudgetError, DiskSpaceError: nothing that was asked for fits.
    """
    candidates = tuple(_judged(c, request) for c in candidates)
    fitting = [c for c in candidates if c.fits and request.requested in (c.layout, AUTO)]
    if not fitting:
        _refuse(candidates, request)
    # without speeds, fewer bytes win
    chosen = min(fitting, key=lambda c: (c.total_s(request.epochs) or 0.0, c.bytes))
    loaded = inner if inner is not None and chosen.layout == "pre-aggregated" else work
    cache, step = chosen.cache_rows * work.row_bytes, cost.step_bytes(work)
    loader, ahead = next(
        (size, d)
        for d in (3, 2, 1)
        if (size := cost.loader_bytes(loaded, chosen.layout, d)) <= request.memory - cache - step or d == 1
    )
    shares = {"loader": loader, "step": step, "cache": cache}
    by_name = {c.layout: c for c in candidates}
    return Plan(
        **identity,
        **asdict(request),
        layout=chosen.layout,
        cache_rows=chosen.cache_rows,
        cache_hits=chosen.requests - chosen.cold_rows if chosen.cache_rows else 0,
        batches_ahead=ahead,
        shares={**shares, "left": request.memory - sum(shares.values())},
        num_rows=work.num_nodes,
        row_bytes=work.row_bytes,
        num_batches=len(work.nodes),
        requests=work.requests,
        requested_rows=requested_rows,
        candidates=candidates,
        break_even_epochs=cost.break_even(
            by_name["packed"] if chosen.layout == "direct" else chosen, by_name["direct"]
        ),
        sampled_batches=sampled_batches,
        speeds=speeds,
    )


def _judged(candidate: Candidate, request: Request) -> Candidate:
    """The candidate with what it lacks, if anything."""
    lacks = []
    if candidate.memory_bytes > request.memory:
        lacks.append(f"--memory {format_size(candidate.memory_bytes)}")
    if request.disk is not None and candidate.peak_disk_bytes > request.disk:
        lacks.append(f"--disk {format_size(candidate.peak_disk_bytes)}")
    return replace(candidate, fits=not lacks, why_not=" and ".join(lacks))


def _refuse(candidates: tuple[Candidate, ...], request: Request) -> None:
    asked = [c for c in candidates if request.requested in (c.layout, AUTO)]
    least = "; ".join(
        f"{c.layout} needs at least --memory {format_size(c.memory_bytes)} and --disk {format_size(c.peak_disk_bytes)}"
        for c in candidates
    )
    if all(c.memory_bytes > request.memory for c in asked):
        raise MemoryBudgetError(
            "GS-MEM-302",
            f"--memory {format_size(request.memory)} is too small: {least}",
            hint="Give more, or sample with smaller batches or fanouts.",
        )
    raise DiskSpaceError(
        "GS-DISK-301",
        f"--disk {format_size(request.disk or 0)} is too small: {least}",
        hint="Give more disk, more memory for a larger cache, or use --layout direct.",
    )
