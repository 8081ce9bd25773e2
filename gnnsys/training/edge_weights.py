"""By which weights the edges of a run are drawn: what was trained on weighted neighbours is scored on such ones too."""

from __future__ import annotations

import warnings

import numpy as np

from gnnsys.loading.loader import Loader
from gnnsys.samplers.draws import digest_of_weights, drawn_by
from gnnsys.storage.pack import Pack
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store


def weights_of_training(
    opened: Pack | Pool | Store, graph: Store, loader: Loader | None, by_weight: bool
) -> tuple[np.ndarray | None, str | None]:
    """(E,) what the edges are drawn by and its digest, None for uniformly.

    A warning says so where `graph` has weights that nothing uses.

    Args:
        loader: the caller's own, which decides.
        by_weight: the option `weighted`, of a Store.
    """
    if isinstance(opened, Store):
        found = loader.weights if loader else drawn_by(opened, by_weight)
    else:
        pool = opened.pool if isinstance(opened, Pack) else opened
        digest = pool.manifest.parameters["weights"]
        found = None if digest is None else stored_weights(graph, str(digest))
        if digest is not None:
            return found, None if found is None else str(digest)
    if found is not None:
        return found, digest_of_weights(np.ascontiguousarray(found, dtype=np.float32))
    if graph.edge_weights() is not None:
        warnings.warn(
            f"GS-CFG-975: the edges of {graph.path} have weights, which change nothing here: neighbours are drawn "
            "uniformly (--weighted draws by weight), and layers count every edge once",
            RuntimeWarning,
            stacklevel=2,
        )
    return None, None


def stored_weights(graph: Store, digest: str) -> np.ndarray | None:
    """The weights of `graph` when they are those of this digest; None, with a warning, when they are others."""
    found = graph.edge_weights()
    if found is not None and digest_of_weights(found) == digest:
        return found
    warnings.warn(
        f"GS-CFG-976: neighbours were drawn by weights that are not those in {graph.path}: scores count all edges, "
        "every one once",
        RuntimeWarning,
        stacklevel=2,
    )
    return None
