"""Graphs of other libraries, in memory, as a Source: PyG's Data, DGL graphs and square scipy sparse matrices."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from gnnsys.errors import InputDataError
from gnnsys.ingestion.arrays import ArraySource
from gnnsys.ingestion.values import as_array

_MASKS = {"train": "train_mask", "valid": "val_mask", "test": "test_mask"}


def source_of_object(given: Any) -> ArraySource:
    """The graph in `given`; nothing is imported for it, it is told by the name of its class.

    Args:
        given: a Data with `edge_index` and where it has them `x`, `y` and masks, (N,) or (N, K) for K versions of
            the splits; a DGLGraph with the same as `feat`, `label` and masks; or a scipy sparse matrix, row i and
            column j of which are an edge i -> j, its weight where not all are 1.

    Raises:
        InputDataError: it is something else, or a part of it has another form.
    """
    names = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(given).__mro__}
    if "torch_geometric.HeteroData" in names:
        raise InputDataError(
            "GS-IN-151",
            "a HeteroData has several types of nodes, a Store one",
            hint="Take one type of nodes and edges, or data.to_homogeneous().",
        )
    if "torch_geometric.Data" in names:
        return _of_data(given)
    if "dgl.DGLGraph" in names:
        return _of_dgl(given)
    if any(name.startswith("scipy.") for name in names) and hasattr(given, "tocoo"):
        return _of_matrix(given)
    raise InputDataError(
        "GS-IN-152",
        f"a {type(given).__module__}.{type(given).__qualname__} is no graph that can be read",
        hint="Give a torch_geometric Data, a DGLGraph, a scipy sparse matrix, a gs.ArraySource, or a name: npz:FILE.",
    )


def _of_data(data: Any) -> ArraySource:
    edges = getattr(data, "edge_index", None)
    if edges is None or edges.ndim != 2 or edges.shape[0] != 2:
        raise InputDataError("GS-IN-153", "the Data has no edge_index (2, E)")
    given = data.to_dict()
    if given.get("edge_attr") is not None:
        _warn_of_edges("edge_attr")
    parts = {name: given.get(name) for name in ("x", "y", "edge_weight")}
    return ArraySource(edges, data.num_nodes, splits=_versions(given, data.num_nodes), **parts)


def _of_dgl(graph: Any) -> ArraySource:
    if not graph.is_homogeneous:
        raise InputDataError(
            "GS-IN-151",
            f"the DGLGraph has {len(graph.ntypes)} types of nodes and {len(graph.etypes)} of edges, a Store one",
            hint="Take one type of nodes and edges, or dgl.to_homogeneous(graph).",
        )
    if left_out := [name for name in graph.edata if not name.startswith("_")]:  # _ID and such are DGL's own
        _warn_of_edges(f"edata ({', '.join(left_out)})")
    data = graph.ndata
    splits = _versions(data, graph.num_nodes())
    return ArraySource(graph.edges(), graph.num_nodes(), x=data.get("feat"), y=data.get("label"), splits=splits)


def _warn_of_edges(what: str) -> None:
    warnings.warn(
        f"GS-IN-156: {what} is not kept: of edges a Store has only weights, gs.ArraySource(edge_weight=...)",
        RuntimeWarning,
        stacklevel=6,  # the caller of `ingest`
    )


def _versions(given: Mapping[str, Any], num_nodes: int) -> list[dict[str, np.ndarray]]:
    """Node ids by split for every version, from masks (N,) or (N, K) by their usual names."""
    masks = {
        split: np.atleast_2d(as_array(given[name]).T) for split, name in _MASKS.items() if given.get(name) is not None
    }
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) > 1 or any(mask.dtype != np.bool_ or mask.shape[1] != num_nodes for mask in masks.values()):
        raise InputDataError("GS-IN-154", f"masks {sorted(shapes)}, expected booleans (N,) or (N, K), all of one shape")
    count = next(iter(shapes))[0] if shapes else 0
    return [{split: np.flatnonzero(mask[k]) for split, mask in masks.items()} for k in range(count)]


def _of_matrix(matrix: Any) -> ArraySource:
    if matrix.shape[0] != matrix.shape[1]:
        raise InputDataError("GS-IN-155", f"the matrix has shape {matrix.shape}, expected a square")
    entries = matrix.tocoo()
    weights = None if (entries.data == 1).all() else entries.data
    return ArraySource((entries.row, entries.col), int(matrix.shape[0]), edge_weight=weights)
