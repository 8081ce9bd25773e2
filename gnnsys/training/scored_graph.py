"""The graph that a run is asked about: the one it was trained on, wherever that is now, or another that fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.samplers.draws import drawn_by
from gnnsys.storage.hint import resolve_store
from gnnsys.storage.store import Store
from gnnsys.training.edge_weights import stored_weights
from gnnsys.training.jobs import x_digest, x_made

Config = Mapping[str, Any]
"""`config.json` of a run."""


def graph_of(run: Path, config: Config, moved: Store | str | Path | None, other: Store | str | Path | None) -> Store:
    """The Store of the run in folder `run`, which may have `moved`, or an `other` one with rows that its model reads.

    Raises:
        ConfigError: both are given, or rows of the other have more, fewer or differently named columns, or were
            made in another way.
        InputDataError: what has moved is another Store, or has another x.
    """
    if other is None:
        store = resolve_store(run, moved)
        _refuse_other_rows(run, config, store)
        return store
    if moved is not None:
        raise ConfigError(
            "GS-CFG-903",
            "--store says where the Store of the run is now, --on names another one: give one of them",
        )
    store = other if isinstance(other, Store) else Store.open(other)
    _refuse_other_columns(run, config, store)
    return store


def weights_of(config: Config, graph: Store, *, same: bool) -> np.ndarray | None:
    """What edges of `graph` are drawn by: those of the run, or where it is not the `same` graph its own."""
    digest = config["edge_weights"]
    if digest is None:
        return None
    return stored_weights(graph, digest) if same else drawn_by(graph, by_weight=True)


def class_numbers(run: Path, config: Config, store: Store, *, own_task: bool) -> np.ndarray | None:
    """(C,) int64 numbers by which the run knows the classes of `store`, told by their names; None: the same.

    Raises:
        ConfigError: some class is none that was trained on; or they are numbered in another way, which a task of the
            caller's own would not know.
    """
    found = None if store.class_names is None else list(store.class_names)
    trained = config.get("class_names", found)
    if store.label_kind != "class" or trained == found:
        return None
    if trained is None or found is None or own_task or not set(found) <= set(trained):
        raise ConfigError(
            "GS-CFG-890",
            f"{store.path}: its classes are {_listed(found)}, {run} was trained on {_listed(trained)}",
            hint="Call the classes of both graphs by the same names, or number them alike.",
        )
    return np.array([trained.index(name) for name in found], dtype=np.int64)


def _refuse_other_columns(run: Path, config: Config, store: Store) -> None:
    hint = "Ingest the other graph with the same features, in the same order."
    before, made = config.get("x_made"), x_made(store)
    if before is not None and made is not None and made != before:
        what = next(what for what in made if made[what] != before.get(what))
        raise ConfigError(
            "GS-CFG-892",
            f"{store.path}: x was ingested with {what} {made[what] or 'of its own'}, {run} was trained on "
            f"{before.get(what) or 'features of its own'}",
            hint=f"Ingest the other graph with the same --{what.replace('_', '-')}, or none as the first one.",
        )
    wanted = config["decisive"]["model"].get("in_channels", config.get("x_columns"))
    if wanted is not None and wanted != store.table_columns("x"):
        raise ConfigError(
            "GS-CFG-886",
            f"{store.path}: rows have {store.table_columns('x')} columns, {run} was trained on {wanted}",
            hint=hint,
        )
    trained, found = config.get("feature_names"), store.feature_names
    if trained is not None and found is not None and trained != list(found):
        raise ConfigError(
            "GS-CFG-891",
            f"{store.path}: the columns of x are {_listed(found)}, {run} was trained on {_listed(trained)}",
            hint=hint,
        )


def _refuse_other_rows(run: Path, config: Config, store: Store) -> None:
    """Features that were added, removed and added anew are not told by the id of the Store."""
    trained_on = config["decisive"]["source"].get("x")
    if trained_on not in (None, x_digest(store)):
        raise InputDataError(
            "GS-IN-408",
            f"{store.path}: x is not the table that {run} was trained on",
            hint="--on scores another graph, or other features of this one.",
        )


def _listed(names: Sequence[str] | None) -> str:
    return "numbers" if names is None else f"{len(names)} ({', '.join(names[:5])}{', ..' * (len(names) > 5)})"
