"""From an edge list in text and a feature file to something that can be sampled: ours in bounded memory, DGL and PyG.

Everyone reads the same files. Ours writes a durable, checksummed Store under a small memory limit; the others build
their compressed columns in memory, without a limit, and write nothing.

    python -m gnnsys.bench.ingest CONTESTANT FOLDER REPEATS     one contestant, as JSON
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.bench.harness import Report, contestants, memory_limit, repeated, report, row, samples, seconds
from gnnsys.budget import GrowthMeter
from gnnsys.ingestion import ingest
from gnnsys.interop.dgl import import_dgl
from gnnsys.units import format_size

MEMORY = 256 << 20
RUNTIME = 320 << 20
"""What Python and its packages take before there is any graph."""
COLUMNS = 128
EDGES, FEATURES, STORE = "edges.csv", "x.npy", "store"


def run(quick: bool, folder: Path) -> Report:
    """Write the two files in `folder` and let everyone read them in a process of its own."""
    nodes, edges, repeats = (200_000, 4_000_000, 2) if quick else (2_000_000, 40_000_000, 5)
    _write_edges(folder / EDGES, nodes, edges)
    _write_features(folder / FEATURES, nodes)
    with memory_limit(MEMORY + RUNTIME) as prefix:
        found = contestants("gnnsys.bench.ingest", ["ours"], folder, repeats, prefix)
    found |= contestants("gnnsys.bench.ingest", ["dgl", "pyg"], folder, repeats)
    rows = []
    for peer in ("dgl", "pyg"):
        for metric, unit, less in (("edges_per_s", "edges/s", False), ("peak_growth", "bytes", True)):
            mine, theirs = found["ours"][metric], samples(found[peer], metric)
            rows.append(row("ingest, text and features", metric, unit, mine, peer, theirs, less_is_better=less))
    config = {
        "nodes": nodes,
        "edges": edges,
        "text_bytes": (folder / EDGES).stat().st_size,
        "feature_bytes": (folder / FEATURES).stat().st_size,
        "memory_bytes": MEMORY,
        "limit_bytes": MEMORY + RUNTIME if prefix else None,
        "repeats": repeats,
        "quick": quick,
    }
    note = f"Ours is held to {format_size(MEMORY)} and {format_size(RUNTIME)} for the runtime, page cache included."
    return report(rows, config, notes=[note if prefix else "No limit could be set.", _PEERS])


_PEERS = "Peers: pandas reads the text; DGL builds its CSC format, PyG a CSC tensor; both keep the features in memory."


def main(contestant: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Edges per second of every repeat, and how far anonymous memory grew at its peak in all of them."""
    work = {"ours": _ours, "dgl": _dgl, "pyg": _pyg}[contestant](folder)
    edges = [0]

    def measure() -> float:
        spent = seconds(lambda: edges.append(work()))
        return edges[-1] / spent

    with GrowthMeter() as meter:
        found = repeated(measure, repeats)
    return {"edges_per_s": found, "peak_growth": [meter.peak_growth]}


def _ours(folder: Path) -> Callable[[], int]:
    def work() -> int:
        shutil.rmtree(folder / STORE, ignore_errors=True)
        made = ingest(f"edges:{folder / EDGES}", folder / STORE, features=folder / FEATURES, memory=MEMORY)
        return made.num_edges

    return work


def _dgl(folder: Path) -> Callable[[], int]:
    dgl = import_dgl()
    import torch

    def work() -> int:
        src, dst, x = (torch.from_numpy(a) for a in _read(folder))
        graph = dgl.graph((src, dst), num_nodes=len(x)).formats(["csc"])
        graph.create_formats_()
        graph.ndata["x"] = x
        return int(graph.num_edges())

    return work


def _pyg(folder: Path) -> Callable[[], int]:
    import torch
    from torch_geometric.data import Data
    from torch_geometric.utils import to_torch_csc_tensor

    def work() -> int:
        src, dst, x = (torch.from_numpy(a) for a in _read(folder))
        matrix = to_torch_csc_tensor(torch.stack([src, dst]), size=(len(x), len(x)))
        return int(Data(x=x, adj=matrix).adj.values().numel())

    return work


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import pandas as pd

    table = pd.read_csv(folder / EDGES, header=None, dtype=np.int64)
    return table[0].to_numpy(), table[1].to_numpy(), np.load(folder / FEATURES)


def _write_edges(path: Path, nodes: int, edges: int) -> None:
    """Random pairs, skewed on the side of the sources, as two columns of text."""
    import pandas as pd

    rng = np.random.default_rng(0)
    src = (nodes * rng.random(edges) ** 2.5).astype(np.int64)
    dst = rng.integers(0, nodes, edges)
    src[-1] = dst[-1] = nodes - 1
    pd.DataFrame({"src": src, "dst": dst}).to_csv(path, header=False, index=False)


def _write_features(path: Path, nodes: int) -> None:
    rng = np.random.default_rng(1)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(nodes, COLUMNS))
    for first in range(0, nodes, 1 << 16):
        x[first : first + (1 << 16)] = rng.random((min(1 << 16, nodes - first), COLUMNS), dtype=np.float32)
    x.flush()


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result) + "\n")
