"""`pack`: sample, plan and pack into one folder; every step continues where an earlier run stopped."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gnnsys.budget import DEFAULT_MEMORY, Budget
from gnnsys.errors import ConfigError, CorruptStoreError
from gnnsys.planning.access import access_counts, hottest_nodes, hottest_rows
from gnnsys.planning.calibrate import Speeds
from gnnsys.planning.choice import Plan, Request
from gnnsys.planning.plan import estimate, planned
from gnnsys.planning.workload import Sizes
from gnnsys.progress import Progress, silent
from gnnsys.samplers.sample import sample
from gnnsys.samplers.seeds import Seeds
from gnnsys.storage.files import (
    atomic_write,
    disk_errors,
    fsync_dir,
    make_durable,
    make_output_folder,
    open_read,
    open_sized,
    read_into,
    remove_temps,
    remove_tree,
    require_free,
    write_all,
)
from gnnsys.storage.folding import cached_row_bytes, folding_memory
from gnnsys.storage.generation import Generation
from gnnsys.storage.hint import resolve_store, write_hint
from gnnsys.storage.lock import WriterLock
from gnnsys.storage.manifest import NAME as MANIFEST
from gnnsys.storage.manifest import Manifest, artefact_id, kind_of, read_manifest, write_manifest
from gnnsys.storage.pack import FORMAT, VERSION, Pack, generation_name
from gnnsys.storage.packing import CACHED_NODE_BYTES, SHARD_BYTES, Folding, write_generation
from gnnsys.storage.plan_file import NAME as PLAN
from gnnsys.storage.plan_file import plan_document, read_plan
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import refuse_foreign
from gnnsys.storage.store import FORMAT as STORE_FORMAT
from gnnsys.storage.store import Store
from gnnsys.storage.threads import num_workers

_NOT_COPIED = {".lock", ".work", "provenance.json", "hint.json", MANIFEST}
_COPY_BYTES = 4 << 20


def pack(
    source: Store | Pool | str | Path,
    out: str | Path,
    *,
    seeds: str | Seeds | Sequence[int] | np.ndarray = "train",
    fanouts: Sequence[int] | None = None,
    batch_size: int = 1024,
    seed: int = 0,
    order: Literal["shuffle", "fixed"] | None = None,
    weights: np.ndarray | None = None,
    memory: int | str = DEFAULT_MEMORY,
    device_memory: int | str = 0,
    disk: int | str | None = None,
    epochs: int = 10,
    layout: str = "packed",
    aggregate: str | None = None,
    plan: Plan | None = None,
    workers: int | None = None,
    store: Store | str | Path | None = None,
    speeds: Speeds | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> Pack:
    """A Pack in folder `out`; repeating the call continues, and does nothing when it is finished.

    Args:
        source: a Store, sampled first with `seeds`, `fanouts`, `batch_size`, `seed`, `order` and `weights` (see
            `sample`), or a Pool, whose files are linked into the pack (copied where they cannot be); or where either
            is.
        memory: of packing, and of the training that the plan is for.
        disk, epochs, layout, aggregate, device_memory: see `plan`.
        plan: follow this one, made for the same pool; `memory` is then only that of packing.
        workers: threads; changes no byte.
        store: where the Store of a Pool is; the pool's hint when None.
        speeds, shard_bytes: for tests: of the disk; a new file of rows begins beyond that size.
        progress: called with ("sample" | "count" | "plan" | "cache" | "place" | "write" | "fold", done,
            total).

    Raises:
        ConfigError: the folder was begun with other options (says which), or an option is out of range.
        InputDataError: the folder holds something else; the Store is not there or is another one.
        StoreBusyError: another process is writing here.
        MemoryBudgetError, DiskSpaceError: it does not fit.
        CorruptStoreError: an input, or unfinished work, fails its checksum.
    """
    out = Path(out)
    source = _opened(source)
    request = Request.of(memory, device_memory, disk, epochs, layout, aggregate)
    threads = num_workers(workers)
    _check(source, fanouts, weights, plan)
    make_output_folder(out)
    refuse_foreign(out)
    if (out / MANIFEST).exists():
        read_manifest(out, FORMAT, VERSION)  # refuses to pack into a Store, say, before anything is written
    with WriterLock(out):
        remove_temps(out)
        folder = out / generation_name(0)
        if isinstance(source, Store):
            sampling: dict[str, Any] = {"seeds": seeds, "fanouts": list(fanouts or ()), "batch_size": batch_size}
            sampling |= {"seed": seed, "memory": request.memory, "weights": weights}
            if not (folder / "pool").exists():
                estimate(
                    source, layout=layout, aggregate=aggregate, speeds=speeds, **sampling
                )  # refuses what memory cannot do
            pool = sample(source, folder / "pool", order=order, workers=threads, progress=progress, **sampling)
            found = source
        else:
            found, pool = resolve_store(source.path, store), _adopt(source, folder / "pool")
        job = _Job(folder, pool, found, request, threads, speeds, progress)
        generation = job.write(plan, shard_bytes)
        _publish(out, found, generation)
    return Pack.open(out)


class _Job:
    """Plan and pack one generation; the plan is kept beside it, so that a repeated command need not count again."""

    def __init__(
        self,
        folder: Path,
        pool: Pool,
        store: Store,
        request: Request,
        workers: int,
        speeds: Speeds | None,
        progress: Progress,
    ) -> None:
        self._folder, self._pool, self._store, self._request = folder, pool, store, request
        self._workers, self._speeds, self._progress = workers, speeds, progress
        self._hot: np.ndarray | None = None

    def write(self, given: Plan | None, shard_bytes: int) -> Generation:
        """The finished generation."""
        plan = self._checked(given) if given else self._remembered() or self._planned()
        if not (self._folder / MANIFEST).exists() and not (self._folder / PLAN).exists():
            there = plan.candidate("direct").pool_bytes
            require_free(self._folder, plan.chosen.peak_disk_bytes - there, "the pack")
        folded = plan.layout == "pre-aggregated"
        return write_generation(
            self._folder,
            self._pool,
            self._store,
            layout=plan.layout,
            cache_rows=plan.cache_rows,
            hottest=lambda: self._hottest(plan.cache_rows, self._pool.hops - folded),
            memory=self._request.memory,
            folding=self._folding(plan) if folded else None,
            workers=self._workers,
            shard_bytes=shard_bytes,
            begun=lambda: atomic_write(self._folder / PLAN, plan_document(plan.to_json())),
            progress=self._progress,
        )

    def _folding(self, plan: Plan) -> Folding:
        """As many cached rows of the plain generation as folding can hold; they decide no byte of the result."""
        assert plan.aggregate is not None
        columns = self._store.table_columns()
        work = Sizes.of_pool(self._pool).workload(self._store)
        sizes = work.pool_bytes, work.nodes, work.edges, work.inner_nodes
        batch = folding_memory(*sizes, work.row_bytes, columns)
        room = max(self._request.memory - 2 * batch, 0) // cached_row_bytes(work.row_bytes, columns)
        rows = min(plan.candidate("packed").cache_rows, room)
        return Folding(how=plan.aggregate, cache_rows=rows, hottest=lambda rows: self._hottest(rows, self._pool.hops))

    def _planned(self) -> Plan:
        plan, access, cached = planned(
            self._pool,
            self._store,
            self._request,
            workers=self._workers,
            speeds=self._speeds,
            progress=self._progress,
        )
        if plan.layout == "packed":
            self._hot = hottest_nodes(access, cached)
        return plan

    def _remembered(self) -> Plan | None:
        """The plan of an earlier run of the same command."""
        if not (self._folder / PLAN).exists():
            return None
        plan = Plan.from_json(read_plan(self._folder).to_json())
        request = Request(
            memory=plan.memory,
            device_memory=plan.device_memory,
            disk=plan.disk,
            epochs=plan.epochs,
            requested=plan.requested,
            aggregate=plan.aggregate,
        )
        same = request == self._request and (plan.pool_id, plan.store_id) == (self._pool.id, self._store.id)
        return plan if same else None

    def _checked(self, plan: Plan) -> Plan:
        if plan.pool_id != self._pool.id:
            raise ConfigError(
                "GS-CFG-304",
                f"the plan is for pool {plan.pool_id or 'none (estimated)'}, this is {self._pool.id}",
                hint="Plan this pool: gs.plan(pool, ...).",
            )
        return plan

    def _hottest(self, rows: int, hops: int) -> np.ndarray:
        """The hottest nodes within so many hops. Asked for once: what `_planned` found is let go of, packing keeps its
        own copy."""
        hot, self._hot = self._hot, None
        return self._counted(rows, hops) if hot is None else hot

    def _counted(self, rows: int, hops: int) -> np.ndarray:
        budget = Budget(self._request.memory)
        budget.reserve(CACHED_NODE_BYTES * rows, "cached nodes")
        store = self._store
        access = access_counts(
            self._pool, store.num_nodes, store.row_bytes(), budget, self._workers, self._progress, hops
        )
        return hottest_nodes(access, hottest_rows(access, rows))


def _opened(source: Store | Pool | str | Path) -> Store | Pool:
    if not isinstance(source, str | Path):
        return source
    return Store.open(source) if kind_of(Path(source)) == STORE_FORMAT else Pool.open(source)


def _check(source: Store | Pool, fanouts: Sequence[int] | None, weights: np.ndarray | None, plan: Plan | None) -> None:
    """What was given must belong together."""
    if isinstance(source, Store) and fanouts is None:
        raise ConfigError("GS-CFG-305", "packing a Store needs fanouts", hint="For example fanouts=[10, 5].")
    for name, given in (("fanouts", fanouts), ("weights", weights)):
        if isinstance(source, Pool) and given is not None:
            raise ConfigError(
                "GS-CFG-305",
                f"{name} were given with a Pool, which is sampled already",
                hint="Leave them out, or pack the Store.",
            )
    if isinstance(source, Store) and plan is not None:
        raise ConfigError(
            "GS-CFG-306", "a plan was given with a Store; it belongs to a pool", hint="gs.pack(pool, out, plan=plan)"
        )


def _publish(out: Path, store: Store, generation: Generation) -> None:
    """Name the generation in the pack's manifest: from now on readers accept the pack."""
    inputs, parameters = {"store": store.id}, {"generations": [generation.id]}
    listed = {
        "name": generation_name(0),
        "id": generation.id,
        "digest": generation.digest,
        "pool_id": generation.pool.id,
        "pool_digest": generation.pool.digest,
    }
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        id=artefact_id(FORMAT, VERSION, inputs, parameters),
        inputs=inputs,
        parameters=parameters,
        counts={"generations": [listed]},
    )
    if (out / MANIFEST).exists():
        if read_manifest(out, FORMAT, VERSION).digest != manifest.digest:
            raise CorruptStoreError(
                "GS-STORE-008",
                f"{out}: its manifest names another generation than the one that is there",
                hint="Delete the folder and repeat `gnnsys pack`.",
            )
        return
    write_hint(out, store.path, store.id)
    write_manifest(out, manifest)


def _adopt(pool: Pool, folder: Path) -> Pool:
    """`pool` in `folder`: its files linked, or copied across volumes; its manifest last."""
    if (folder / MANIFEST).exists():
        there = Pool.open(folder)
        if there.digest != pool.digest:
            raise ConfigError(
                "GS-CFG-307",
                f"{folder}: holds the pool {there.id}, not {pool.id}",
                hint="Use the same pool to continue, or another folder.",
            )
        return there
    if (folder / ".work").exists():
        raise ConfigError(
            "GS-CFG-307", f"{folder}: a pool is being sampled there", hint="Repeat that command, or use another folder."
        )
    remove_tree(folder)
    for path in sorted(pool.path.rglob("*")):
        relative = path.relative_to(pool.path)
        if path.is_file() and not _NOT_COPIED.intersection(relative.parts):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, folder / relative)
    for path in {folder, *(p for p in folder.rglob("*") if p.is_dir())}:
        fsync_dir(path)
    write_manifest(folder, pool.manifest)
    return Pool.open(folder)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
    size = source.stat().st_size
    reading, writing = open_read(source), open_sized(target, size)
    try:
        buffer = np.empty(min(size, _COPY_BYTES), dtype=np.uint8)
        for at in range(0, size, _COPY_BYTES):
            part = buffer[: min(_COPY_BYTES, size - at)]
            read_into(reading, part, at, source)
            with disk_errors(target):
                write_all(writing, part, at)
        make_durable(writing)
    finally:
        os.close(reading)
        os.close(writing)
