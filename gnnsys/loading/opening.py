"""Open what a Loader reads: a Pack, a Pool or a Store by object or path, and the rows behind the name asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.loading.edge_ids import EdgeIds
from gnnsys.loading.rows import FoldedRows, NoRows, PackedRows, RowSource, TableRows
from gnnsys.storage.generation import Generation
from gnnsys.storage.hint import resolve_store
from gnnsys.storage.manifest import kind_of
from gnnsys.storage.pack import FORMAT as PACK_FORMAT
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import FORMAT as POOL_FORMAT
from gnnsys.storage.pool import VERIFY, Pool
from gnnsys.storage.store import Store
from gnnsys.storage.tables import Table, Verify

ROWS = ("auto", "packed", "direct", "mapped", "memory")
_DIRECT_BYTES = 16 << 20  # staging of the direct table's reading threads


def open_source(source: Pack | Pool | Store | str | Path, verify: Verify) -> Pack | Pool | Store:
    """The artefact in folder `source`, told by its manifest; objects pass through.

    Raises:
        InputDataError, InterruptedWorkError: no finished Pack, Pool or Store is there.
        CorruptStoreError: its manifest is damaged.
        ConfigError: `verify` is unknown.
    """
    if verify not in VERIFY:
        raise ConfigError("GS-CFG-402", f"verify is {verify!r}; it must be one of {', '.join(VERIFY)}")
    if not isinstance(source, str | Path):
        return source
    kind = kind_of(Path(source))
    if kind == PACK_FORMAT:
        return Pack.open(source, verify=verify)
    return Pool.open(source) if kind == POOL_FORMAT else Store.open(source)


def open_rows(
    source: Pack | Pool | Store,
    tables: Sequence[str],
    *,
    store: Store | str | Path | None,
    rows: str,
    verify: Verify,
) -> dict[str, RowSource]:
    """A row source for every table name.

    Args:
        store: where the Store is, when the source is no Store and does not know.
        rows: `packed` (`x` of a Pack that holds rows), `direct`, `mapped` or `memory` (tables of the Store); `auto`
            follows the layout of a Pack and maps the tables of everything else.

    Raises:
        ConfigError: `rows` is unknown, or `packed` rows are asked for where there are none.
        InputDataError: the Store is not there, is another one, or has no such table.
    """
    packed = packed_generation(source, rows)
    backend = _backend(source, rows)
    found: dict[str, RowSource] = {}
    for name in tables:
        if name == "x" and packed is not None:
            found[name] = PackedRows(packed) if packed.has_rows else NoRows(packed)
        else:
            graph = _store_of(source, store)
            found[name] = _table(graph, name, backend, verify)
            if name == "x" and isinstance(source, Pack):
                _refuse_other_rows(source, graph)
    return found


def _refuse_other_rows(pack: Pack, store: Store) -> None:
    """Raise InputDataError where the Store's `x` is not the one that was packed: it was added, removed, added anew."""
    if pack.generations[0].manifest.inputs["x"] != store.table_part("x").entry.digest:
        raise InputDataError(
            "GS-IN-407", f"{store.path}: x is not the table that {pack.path} was made from", hint="Pack it again."
        )


def packed_generation(source: Pack | Pool | Store, rows: str) -> Generation | None:
    """The generation whose own rows `rows` asks for; None when they come from the Store.

    Raises:
        ConfigError: `rows` is unknown, or `packed` and there are none.
    """
    if rows not in ROWS:
        raise ConfigError("GS-CFG-403", f"rows is {rows!r}; it must be one of {', '.join(ROWS)}")
    generation = source.generations[0] if isinstance(source, Pack) else None
    if generation is not None and generation.layout != "direct":
        return generation if rows in ("auto", "packed") else None
    if rows == "packed":
        raise ConfigError("GS-CFG-404", f"{source.path}: holds no packed rows", hint="Use rows='auto'.")
    return None


def open_folded(
    source: Pack | Pool | Store, tables: Sequence[str], *, rows: str, hops: int | None
) -> FoldedRows | None:
    """The aggregates of a pre-aggregated Pack, when its own rows are asked for; None for everything else.

    Raises:
        ConfigError: other tables than `x`, or fewer hops, are asked for.
    """
    generation = packed_generation(source, rows)
    if generation is None or generation.aggregates is None or not tables:
        return None
    if list(tables) != ["x"] or hops not in (None, generation.pool.hops):
        raise ConfigError(
            "GS-CFG-414",
            f"{source.path}: is pre-aggregated: it delivers all of its {generation.pool.hops} hops, and the table x",
            hint="Load it with rows='direct' (from the Store), or make a packed one.",
        )
    return FoldedRows(generation.aggregates, generation.pool)


def open_edge_ids(
    source: Pack | Pool | Store, store: Store | str | Path | None, folded: FoldedRows | None, *, weighted: bool
) -> EdgeIds:
    """Positions of edges in the topology of the Store, see `open_rows`.

    Args:
        weighted: edges are drawn by weights.

    Raises:
        ConfigError: the outermost edges were folded into rows, or several edges have equal ends and different weights.
    """
    if folded is not None:
        raise ConfigError(
            "GS-CFG-415",
            f"{source.path}: is pre-aggregated: its outermost edges are no longer known one by one",
            hint="Load it with rows='direct' (from the Store), or make a packed one.",
        )
    graph = _store_of(source, store)
    parallel = int(graph.manifest.counts["parallel_edges"])
    if parallel and (weighted or graph.edge_weights() is not None):
        raise ConfigError(
            "GS-CFG-416",
            f"{graph.path}: {parallel:,} edges have the ends of another one, and weights of their own: a batch does "
            "not tell which of them was drawn",
            hint="Ingest the graph with --dedup, which adds up the weights of such edges.",
        )
    return EdgeIds(graph)


def _backend(source: Pack | Pool | Store, rows: str) -> str:
    if rows in ("direct", "mapped", "memory"):
        return rows
    return "direct" if isinstance(source, Pack) else "mapped"


def _store_of(source: Pack | Pool | Store, store: Store | str | Path | None) -> Store:
    return source if isinstance(source, Store) else resolve_store(source.path, store)


def _table(store: Store, name: str, backend: str, verify: Verify) -> RowSource:
    if name not in store.table_names:
        have = ", ".join(store.table_names) or "none"
        raise InputDataError(
            "GS-IN-406",
            f"{store.path}: has no table {name!r}; there are: {have}",
            hint="Add it (gnnsys add), or load batches without rows (with_x=False).",
        )
    table: Table = store.table(name, backend, verify)
    held = {"memory": table.num_rows * table.row_bytes, "direct": _DIRECT_BYTES, "mapped": 0}[backend]
    return TableRows(table, held)
