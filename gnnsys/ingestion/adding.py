"""`add`: tables and splits for a Store that is finished, without ingesting it again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.budget import Budget
from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion.arrays import identity, ids_of, require_by_name, rows_and_identity
from gnnsys.ingestion.blocks import MakeBlocks
from gnnsys.ingestion.build import check_choice, ingest_budget
from gnnsys.ingestion.job import Job
from gnnsys.ingestion.node_text import parse_node_text
from gnnsys.ingestion.npy import map_npy
from gnnsys.ingestion.rows import write_table
from gnnsys.ingestion.source import Names, Rows, require_file
from gnnsys.ingestion.split_text import read_split
from gnnsys.ingestion.splits import ascending, check_name
from gnnsys.ingestion.values import as_array
from gnnsys.progress import Progress, silent
from gnnsys.storage.additions import FORMAT, VERSION, addition_folder
from gnnsys.storage.checksums import digest_file
from gnnsys.storage.files import require_free
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import NAME_BYTES, NAME_OFFSETS, Store, split_path
from gnnsys.storage.threads import num_workers
from gnnsys.storage.writer import write_array


def add(
    store: Store | str | Path,
    *,
    tables: Mapping[str, Any | MakeBlocks] | None = None,
    splits: Mapping[str, Any] | None = None,
    memory: str | int = "4GiB",
    on_nan: str = "error",
    workers: int | None = None,
    progress: Progress = silent,
) -> Store:
    """Add tables and splits to a Store; repeating the call continues an interrupted one. What is there stays as it is.

    Args:
        tables: by name (N, F) values, or a function that yields blocks of them, as for `ArraySource`; or the path of
            a `.npy` file, or of a text with the id of a node and F numbers per row, in any order. One named `x` gives
            features to a Store that has none.
        splits: by name node ids (n,), or a boolean mask (N,); or the path of a `.npy` file, or of a text with the id
            of a node per row. They may share nodes with other splits.
        memory, on_nan, workers: as for `ingest`.

    Ids in a text are those of the source: names where the nodes have names, else numbers. Arrays have a row per node of
    the Store, and its node numbers: other ones than the source's where only the largest component was kept, or where
    ids are names.

    Returns:
        The Store, opened again.

    Raises:
        ConfigError: a name is taken.
        InputDataError: values that do not fit the Store.
        MemoryBudgetError, DiskSpaceError: it does not fit.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    check_choice("on_nan", on_nan, ("error", "zero"))
    for what, given in (("splits", splits), ("tables", tables)):
        if given is not None:
            require_by_name(what, given)
    adding = _Adding(opened, ingest_budget(memory), num_workers(workers), progress)
    for name, ids in (splits or {}).items():
        adding.split(name, ids)
    for name, values in (tables or {}).items():
        adding.table(name, values, fill=on_nan == "zero")
    return Store.open(opened.path)


class _Adding:
    """One call of `add`."""

    def __init__(self, store: Store, budget: Budget, workers: int, progress: Progress) -> None:
        self._store, self._budget, self._workers, self._progress = store, budget, workers, progress

    def table(self, name: str, given: Any | MakeBlocks, *, fill: bool) -> None:
        self._refuse_taken("table", name)
        read, values = self._reading(name, _file_or_values(given))
        with self._stage("table", name, values, on_nan="zero" if fill else "error") as stage:
            if stage.finished is None:
                job = Job(stage, self._budget, self._workers, self._progress)
                self._write_table(job, name, read(job), fill=fill)

    def _write_table(self, job: Job, name: str, rows: Rows, *, fill: bool) -> None:
        require_free(job.stage.folder, rows.num_rows * rows.columns * rows.dtype.itemsize, f"table {name}")
        entries, zeroed = write_table(job, name, rows, normalize=False, fill=fill)
        job.stage.commit(counts={"zeroed_rows": zeroed}, files=entries)

    def _refuse_other_count(self, name: str, rows: Rows) -> None:
        if rows.num_rows != self._store.num_nodes:
            raise InputDataError(
                "GS-IN-122", f"{name} has {rows.num_rows} rows for {self._store.num_nodes} nodes", hint="One per node."
            )

    def _reading(self, name: str, given: Any | MakeBlocks) -> tuple[Callable[[Job], Rows], list[Any]]:
        """How to come to the rows once there is a job, and what tells them from others."""
        if isinstance(given, Path):
            return partial(self._rows_of_text, given), [digest_file(given)]
        rows, values = rows_and_identity(name, given)
        self._refuse_other_count(name, rows)
        return lambda _: rows, values

    def _rows_of_text(self, path: Path, job: Job) -> Rows:
        names = self._names()
        found = parse_node_text(job, path, "features", names, np.float32)
        rows = found.rows(self._store.num_nodes)
        found.require_all(self._store.num_nodes, names)
        return rows

    def split(self, name: str, given: Any) -> None:
        self._refuse_taken("split", name)
        given = _file_or_values(given)
        if isinstance(given, Path):
            array = read_split(given, self._names(), self._budget)
        else:
            array = as_array(given)
            self._warn_of_numbers(name)
        count = int(np.count_nonzero(array)) if array.dtype == np.bool_ else array.size
        with self._budget.holding(32 * count, f"node ids of split {name}"):
            self._split(name, ascending(name, ids_of(name, array, self._store.num_nodes), self._store.num_nodes))

    def _split(self, name: str, ids: np.ndarray) -> None:
        if not len(ids):
            raise InputDataError("GS-IN-143", f"split {name} is empty")
        with self._stage("split", name, identity(ids)) as stage:
            if stage.finished is None:
                entry = write_array(stage.folder, split_path(name), ids.astype(self._store.id_dtype), "split")
                stage.commit(counts={}, files=(entry,))

    def _warn_of_numbers(self, name: str) -> None:
        if not self._store.manifest.parameters["largest_component"]:
            return
        last = self._store.num_nodes - 1
        was = self._store.names([last])[0]
        if was != str(last):
            warnings.warn(
                f"{self._store.path}: nodes were renumbered when only the largest component was kept. Split {name} is "
                f"of these numbers, of which {last} was {was}; a text has ids of the source",
                stacklevel=4,
            )

    def _names(self) -> Names | None:
        """Those of all nodes, as ingest wrote them; None where ids are numbers."""
        if not self._store.has_names:
            return None
        self._store.names([])  # refuses files that changed
        return Names(self._store.path / NAME_BYTES, self._store.path / NAME_OFFSETS)

    @contextmanager
    def _stage(self, role: str, name: str, values: list[Any], **parameters: str) -> Iterator[Stage]:
        folder = addition_folder(self._store.path, role, name)
        stage = Stage(
            folder,
            FORMAT,
            VERSION,
            inputs={"store": self._store.id, "values": values},
            parameters={"role": role, "name": name, **parameters},
            parts=("tables", "splits"),
        )
        with ExitStack() as stack:
            try:
                stack.enter_context(stage)
            except ConfigError as error:
                raise ConfigError(
                    "GS-CFG-970",
                    f"{self._store.path}: a {role} named {name!r} was added already, with other values",
                    hint=f"Choose another name, or delete {folder}: what was made from it stays as it is.",
                ) from error
            yield stage

    def _refuse_taken(self, role: str, name: str) -> None:
        check_name(role, name)
        if any(entry.path == f"{role}s/{name}.bin" for entry in self._store.manifest.files):
            raise ConfigError(
                "GS-CFG-970",
                f"{self._store.path}: has a {role} named {name!r} from its ingest",
                hint="Parts of a Store never change. Choose another name.",
            )


def _file_or_values(given: Any) -> Any:
    """What a `.npy` file holds, the path of any other file, or values as they are."""
    if not isinstance(given, str | Path):
        return given
    path = Path(given)
    require_file(path)
    return map_npy(path) if path.suffix == ".npy" else path
