"""The Loader: batches of a Pack, a Pool or a Store, in order, made ahead by threads, resumable at any batch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from gnnsys.batch import Batch
from gnnsys.errors import ConfigError
from gnnsys.loading.epoch import OrderedAhead
from gnnsys.loading.maker import BatchMaker
from gnnsys.loading.opening import open_edge_ids, open_folded, open_rows, open_source
from gnnsys.loading.order import epoch_order
from gnnsys.loading.sources import BatchSource, PoolSource, StoreSource
from gnnsys.samplers.seeds import Order, Seeds
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import difference
from gnnsys.storage.store import Store
from gnnsys.storage.tables import Verify
from gnnsys.storage.threads import batches_ahead, loading_workers

_STAGES = ("load_s", "read_s", "assemble_s", "wait_s")


class Loader:
    """Yields one epoch of `Batch` per iteration, from where it stands.

    An iteration ends with its epoch, and the next one begins the next epoch. Leaving the loop early keeps the place:
    the next iteration goes on with the batch after the last one delivered; `set_epoch` goes back to a beginning.
    Threads exist only while an iteration runs.

    Args:
        source: what to read, or its folder. A Store is sampled as it is read and needs `fanouts`.
        store: the Store behind a Pack or Pool when rows are read from it and it has moved.
        rows: where `x` comes from: `packed`, `direct`, `mapped` or `memory`; `auto` is the layout of a Pack, and the
            page cache for the rest. Every choice delivers the same bits; only `packed` rows of a pre-aggregated Pack
            come with its outermost blocks folded.
        hops: deliver the inner hops only; all when None, and always from a pre-aggregated Pack. No more of the pool
            and of tables is read than they need; a packed run comes whole.
        with_x, with_y: deliver rows; deliver labels and pairs. What is not wanted is not read.
        edge_ids: deliver `e_id`, for weights and features of edges. Looks every edge up in the topology of the Store,
            whose pages are read for it; not from a pre-aggregated Pack, nor where parallel edges have weights.
        tables: names of tables; with others than `x`, `Batch.x` is a dict.
        shuffle: another order of batches in every epoch; as the pool's order says when None.
        seed: decides the order of batches and, with a Store, who is in them.
        prefetch: batches made or in the making ahead of the one delivered, at least 1; each takes memory, see
            `memory_bytes`. When None, 2 for two workers and 11 for eight.
        workers: threads that make batches; half of the cores, 2 to 8, when None.
        rank, world_size: deliver every `world_size`-th batch of the epoch, beginning with number `rank`. Ranks may
            differ by one batch.
        device: where the tensors of a batch are put.
        verify: check what is read when it is `first` read, `always`, or `off`. An open Pack keeps its own choice
            for rows.
        seeds, fanouts, batch_size, order, weights, replace, resample: how a Store is sampled, as for `sample`;
            `resample` draws every epoch anew.

    Raises:
        ConfigError: an option does not fit the source.
        InputDataError: the source, its Store or a table is not there.
    """

    def __init__(
        self,
        source: Pack | Pool | Store | str | Path,
        *,
        store: Store | str | Path | None = None,
        rows: str = "auto",
        hops: int | None = None,
        with_x: bool = True,
        with_y: bool = True,
        edge_ids: bool = False,
        tables: Sequence[str] = ("x",),
        shuffle: bool | None = None,
        seed: int = 0,
        prefetch: int | None = None,
        workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        verify: Verify = "first",
        seeds: Any = "train",
        fanouts: Sequence[int] | None = None,
        batch_size: int = 1024,
        order: Order | None = None,
        weights: np.ndarray | None = None,
        replace: bool = False,
        resample: bool = True,
    ) -> None:
        workers = loading_workers() if workers is None else workers
        prefetch = batches_ahead(workers) if prefetch is None else prefetch
        _check(prefetch=prefetch, workers=workers, rank=rank, world_size=world_size)
        self.prefetch, self.workers, self.device = prefetch, workers, _device(device)
        self._opened = open_source(source, verify)
        self._owned = self._opened is not source
        sampling = {"seeds": seeds, "fanouts": fanouts, "batch_size": batch_size, "order": order, "resample": resample}
        sampling |= {"weights": weights, "replace": replace}
        self._weights = weights
        names = tables if with_x else ()
        folded = open_folded(self._opened, names, rows=rows, hops=hops)
        found_edges = open_edge_ids(self._opened, store, folded, weighted=weights is not None) if edge_ids else None
        if folded is not None:
            hops = folded.hops
        batches = _batch_source(self._opened, hops=hops, labels=with_y, verify=verify, seed=seed, sampling=sampling)
        self.shuffle = _shuffle(shuffle, batches)
        found = open_rows(self._opened, names, store=store, rows=rows, verify=verify)
        self._maker = BatchMaker(batches, found, folded, found_edges, pin=self.device.type == "cuda")
        self._order = {"seed": seed, "shuffle": self.shuffle, "rank": rank, "world_size": world_size}
        self._epoch = self._next = 0
        self._ahead: OrderedAhead[Batch] | None = None
        self._planned: dict[tuple[int, int], int] = {}
        self._totals = {"batches": 0.0, "bytes_read": 0.0, **dict.fromkeys(_STAGES, 0.0)}
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        place = f"epoch {self._epoch}, batch {self._next} of {len(self)}"
        return f"Loader({str(self._opened.path)!r}, {place}, workers={self.workers}, device={self.device})"

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        rank, world_size = int(self._order["rank"]), int(self._order["world_size"])
        return len(range(rank, self._maker.source.num_batches, world_size))

    def __iter__(self) -> Iterator[Batch]:
        ahead = self._begin()
        try:
            waited = 0.0
            for batch in ahead:
                if self._ahead is not ahead:
                    break
                self._next += 1
                yield self._delivered(batch, ahead.wait_s - waited)
                waited = ahead.wait_s
                del batch  # or it would be held while the next one is awaited
            if self._ahead is not ahead:
                raise ConfigError(
                    "GS-CFG-408",
                    "the loader was moved, closed or iterated anew while a loop was reading from it",
                    hint="Use one Loader per loop.",
                )
            self._epoch, self._next = self._epoch + 1, 0
        finally:
            ahead.close()

    @property
    def opened(self) -> Pack | Pool | Store:
        """What is read."""
        return self._opened

    @property
    def fanouts(self) -> list[int]:
        """Neighbours per node of every hop delivered, seed side first; a folded one is the last."""
        fanouts = self._maker.source.fanouts
        return fanouts if self._maker.folded is None else [*fanouts, self._maker.folded.fanout]

    @property
    def drawn(self) -> dict[str, Any]:
        """How its batches are sampled, but from which seeds and by which number."""
        return self._maker.source.drawn

    @property
    def aggregate(self) -> str | None:
        """How the outermost blocks were aggregated ahead of time: `sum`, `mean` or `gcn`; None when they were not."""
        return self._maker.folded.how if self._maker.folded else None

    @property
    def weights(self) -> np.ndarray | None:
        """(E,) what the edges of a Store are drawn by; None for uniformly, and for what was sampled already."""
        return self._weights

    @property
    def seeds(self) -> Seeds | None:
        """What a Store is sampled for; None when a Pool or Pack is read."""
        return self._maker.source.seeds

    def largest_batch(self) -> Batch:
        """The batch of epoch 0 with the most nodes (of the first few when a Store is sampled), for measuring a step.

        Made now, in a thread that ends with it; the place of the loader stays.
        """
        self._usable()
        numbers = iter([self._maker.source.most_nodes()])
        return next(OrderedAhead(self._maker.of_epoch(0, 1), numbers, ahead=1, workers=1))

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of `epoch`."""
        self._move(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as JSON values: the next batch to deliver, and what that number is good for."""
        return {"epoch": self._epoch, "next": self._next, **self._meaning()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another loader of the same batches stood.

        Raises:
            ConfigError: it had another source, seed, order or number of ranks.
        """
        meaning = self._meaning()
        changed = difference({key: state.get(key) for key in meaning}, meaning)
        if changed or not 0 <= int(state.get("next", -1)) <= len(self):
            what = "; ".join(changed) or f"batch {state.get('next')} of {len(self)}"
            raise ConfigError(
                "GS-CFG-407",
                f"a position of another loader cannot be continued here ({what})",
                hint="Open the same source with the same options, or start the epoch again with set_epoch.",
            )
        self._move(int(state["epoch"]), int(state["next"]))

    def upcoming(self, count: int) -> list[np.ndarray]:
        """`n_id`, (n,) int64, of the next `count` batches of this epoch that were not delivered yet.

        Fewer at the end of an epoch. Exact: those in the making are waited for, those beyond have only their ids read.
        """
        self._usable()
        made = self._ahead.peek(count) if self._ahead is not None else []
        rest = self._numbers(self._epoch)[self._next + len(made) : self._next + count]
        known = [batch.n_id.cpu().numpy() for batch in made]
        return known + [self._maker.source.ids(self._epoch, int(k)) for k in rest]

    def upcoming_nodes(self, count: int) -> list[tuple[int, ...] | None]:
        """`num_nodes` of the next `count` batches of this epoch, from the index alone; None for each that is not
        sampled yet. Fewer at the end of an epoch."""
        numbers = self._numbers(self._epoch)[self._next : self._next + count]
        return [self._maker.source.num_nodes(int(k)) for k in numbers]

    def planned_bytes(self, epoch: int) -> int:
        """Bytes that the batches of `epoch` ask from disk: the sum of their `io["bytes_read"]`, known before.

        Pages asked for more than once are counted as often, bytes read only to verify are not. Where rows are read
        from a table, the ids of the batches are read to know its pages.
        """
        return sum(self._planned_batch(epoch, int(k)) for k in self._numbers(epoch))

    def max_batch_bytes(self) -> int:
        """Upper bound of the memory of one batch."""
        return self._maker.max_batch_bytes()

    def memory_bytes(self, prefetch: int | None = None, workers: int | None = None) -> int:
        """Upper bound of all that the loader and the consumer's batch hold, with other numbers when given.

        `prefetch` and `workers` are attributes; what they are set to holds from the next iteration on.
        """
        return self._maker.memory_bytes(prefetch or self.prefetch, workers or self.workers)

    def stats(self) -> dict[str, float]:
        """Totals over all batches delivered: `batches`, `bytes_read`, seconds that threads were busy (`load_s` to draw
        or decode, `read_s` to fetch rows, `assemble_s` to put them in place), `wait_s` that the consumer waited, and
        `checksum_bytes` read from tables only to verify."""
        checked = sum(rows.checksum_bytes for rows in self._maker.rows.values())
        return {**self._totals, "checksum_bytes": float(checked)}

    def close(self) -> None:
        """Stop threads and let go of files and cached rows. Repeating it does nothing."""
        if self._closed:
            return
        self._closed = True
        self._stop()
        for rows in self._maker.rows.values():
            rows.close()
        if self._owned and isinstance(self._opened, Pack | Pool):
            self._opened.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> OrderedAhead[Batch]:
        self._usable()
        self._stop()
        if self._next == 0 and not self._maker.source.is_same_every_epoch():
            self._planned.clear()
        numbers = iter(self._numbers(self._epoch)[self._next :].tolist())
        make = self._maker.of_epoch(self._epoch, self.prefetch)
        self._ahead = OrderedAhead(make, numbers, ahead=self.prefetch, workers=self.workers)
        return self._ahead

    def _delivered(self, batch: Batch, wait_s: float) -> Batch:
        io = {**batch.io, "wait_s": wait_s}
        for key in ("bytes_read", *_STAGES):
            self._totals[key] += io[key]
        self._totals["batches"] += 1
        if not self._maker.source.is_same_every_epoch():
            # who is in it is known only now: planning it later would sample it again
            self._planned[batch.pool_index, batch.index] = int(io["bytes_read"])
        batch = dataclasses.replace(batch, io=io)
        return batch if self.device.type == "cpu" else batch.to(self.device, non_blocking=True)

    def _planned_batch(self, epoch: int, k: int) -> int:
        key = (self._maker.source.pool_index(epoch), k)
        if key not in self._planned:
            self._planned[key] = self._maker.planned_bytes(epoch, k)
        return self._planned[key]

    def _numbers(self, epoch: int) -> np.ndarray:
        return epoch_order(self._maker.source.num_batches, epoch, **self._order)  # type: ignore[arg-type]

    def _meaning(self) -> dict[str, Any]:
        """What must be equal for two loaders to deliver the same batches at the same position, rank apart."""
        order = {key: value for key, value in self._order.items() if key != "rank"}
        folded = {} if self.aggregate is None else {"aggregate": self.aggregate}
        return {"source": self._maker.source.id, **folded, **order}

    def _move(self, epoch: int, position: int) -> None:
        self._usable()
        self._stop()
        self._epoch, self._next = epoch, position

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _usable(self) -> None:
        if self._closed:
            raise ConfigError("GS-CFG-405", "the loader is closed", hint="Open a new Loader.")
        if self._pid != os.getpid():
            raise ConfigError(
                "GS-CFG-406",
                "the loader was opened in another process; its threads and buffers stayed there",
                hint="Open the Loader after forking.",
            )


def _batch_source(
    opened: Pack | Pool | Store,
    *,
    hops: int | None,
    labels: bool,
    verify: str,
    seed: int,
    sampling: Mapping[str, Any],
) -> BatchSource:
    if isinstance(opened, Store):
        if sampling["fanouts"] is None:
            raise ConfigError(
                "GS-CFG-409", "a Store is sampled as it is read: fanouts are missing", hint="E.g. fanouts=[10, 5]."
            )
        return StoreSource(opened, seed=seed, hops=hops, labels=labels, **sampling)
    if any(sampling[what] is not None for what in ("fanouts", "order", "weights")) or sampling["replace"]:
        raise ConfigError(
            "GS-CFG-409",
            f"{opened.path}: was sampled already; fanouts, order, weights and replace cannot be chosen any more",
            hint="Leave them out, or make another pack.",
        )
    return PoolSource(opened.pool if isinstance(opened, Pack) else opened, hops=hops, labels=labels, verify=verify)


def _shuffle(asked: bool | None, source: BatchSource) -> bool:
    if asked and source.order == "fixed":
        raise ConfigError(
            "GS-CFG-410",
            "shuffle=True, but the order of these batches is fixed (events in time)",
            hint="Leave shuffle out.",
        )
    return source.order == "shuffle" if asked is None else asked


def _device(device: torch.device | str) -> torch.device:
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("GS-CFG-411", f"device is {found}, but torch sees no CUDA device here")
    return found


def _check(*, prefetch: int, workers: int, rank: int, world_size: int) -> None:
    if prefetch < 1 or workers < 1:
        raise ConfigError("GS-CFG-412", f"prefetch is {prefetch} and workers {workers}; both must be at least 1")
    if not 0 <= rank < world_size:
        raise ConfigError("GS-CFG-412", f"rank is {rank}; it must be in [0, {world_size})")
