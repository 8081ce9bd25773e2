"""Sampling: edges per second into memory beside DGL and PyG, and with the pool written beside disk and sampler.

Everyone samples the same seeds of the same graph with the same fanouts, on all cores. Ours draws neighbours once per
node (a tree), DGL again for every node at every hop: both count the edges that they deliver.

    python -m gnnsys.bench.sample CONTESTANT FOLDER REPEATS     one contestant, as JSON
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys import keys
from gnnsys.bench.harness import Report, contestants, repeated, report, row, samples, seconds
from gnnsys.bench.peers import dgl_graph, pyg_edge_index
from gnnsys.ingestion import ingest
from gnnsys.interop.dgl import import_dgl
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.sample import sample
from gnnsys.samplers.seeds import as_seeds
from gnnsys.samplers.tree import TreeSampler
from gnnsys.storage.files import open_sized, write_all
from gnnsys.storage.store import Store
from gnnsys.storage.threads import in_order, num_workers

FANOUTS, BATCH_SIZE = [15, 10, 5], 1024
_BATCHES = 120
_WRITE_BYTES = 4 << 20


def run(quick: bool, folder: Path) -> Report:
    """Make a graph in `folder` and sample it; 100 million edges, 5 million when quick."""
    nodes, edges, repeats = (200_000, 5_000_000, 2) if quick else (2_000_000, 100_000_000, 5)
    source = f"synthetic:powerlaw:nodes={nodes},edges={edges},feat=1,classes=2,train={_BATCHES * BATCH_SIZE / nodes}"
    store = ingest(source, folder / "store", memory="4GiB")
    found = contestants("gnnsys.bench.sample", ["memory", "pool", "dgl", "pyg"], folder, repeats)
    ours, pool = found["memory"]["edges_per_s"], found["pool"]
    bound = [min(statistics.median(ours), w / pool["bytes_per_edge"]) for w in pool["write_bytes_per_s"]]
    rows = [
        row("sample, into memory", "edges_per_s", "edges/s", ours, "dgl", samples(found["dgl"], "edges_per_s")),
        row("sample, into memory", "edges_per_s", "edges/s", ours, "pyg", samples(found["pyg"], "edges_per_s")),
        row(
            "sample, pool written",
            "edges_per_s",
            "edges/s",
            pool["edges_per_s"],
            "sampler or disk",
            bound,
        ),
    ]
    config = {
        "nodes": nodes,
        "edges": store.num_edges,
        "fanouts": FANOUTS,
        "batch_size": BATCH_SIZE,
        "batches": _BATCHES,
        "threads": num_workers(None),
        "repeats": repeats,
    }
    written = f"The pool takes {pool['bytes_per_edge']:.2f} bytes per edge, ids, degrees and page gaps included."
    return report(rows, config, bytes_per_edge=pool["bytes_per_edge"], notes=[written])


def main(contestant: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Samples of one contestant."""
    store = Store.open(folder / "store")
    if contestant == "pool":
        return _pool(store, folder, repeats)
    work = {"memory": _memory, "dgl": _dgl, "pyg": _pyg}[contestant](store)
    edges = [0]

    def measure() -> float:
        spent = seconds(lambda: edges.append(work()))
        return edges[-1] / spent

    return {"edges_per_s": repeated(measure, repeats)}


def _memory(store: Store) -> Callable[[], int]:
    batches = seed_batches(as_seeds(store, "train"), BATCH_SIZE, 0)
    sampler = TreeSampler(store.graph, FANOUTS, seed=0, stamped=True)

    def work() -> int:
        with in_order(lambda k: sampler.sample(batches[k]), range(len(batches)), num_workers(None)) as drawn:
            return sum(len(batch.indices) for batch in drawn)

    return work


def _pool(store: Store, folder: Path, repeats: int) -> dict[str, Any]:
    """Edges per second of `sample`, fsync included, and the write bandwidth around every repeat."""
    found: dict[str, Any] = {"write_bytes_per_s": []}

    def measure() -> float:
        out = folder / "pool"
        shutil.rmtree(out, ignore_errors=True)
        before = _write_bandwidth(folder)
        start = time.perf_counter()
        made = sample(store, out, fanouts=FANOUTS, batch_size=BATCH_SIZE)
        spent = time.perf_counter() - start
        found["write_bytes_per_s"].append((before + _write_bandwidth(folder)) / 2)
        counts = made.manifest.counts
        found["bytes_per_edge"] = counts["bytes"] / counts["edges"]
        return float(counts["edges"] / spent)

    found["edges_per_s"] = repeated(measure, repeats)
    found["write_bytes_per_s"] = found["write_bytes_per_s"][1:]
    return found


def _write_bandwidth(folder: Path, num_bytes: int = 256 << 20) -> float:
    """Bytes per second of one stream with an fsync at the end."""
    piece = keys.draws(1, 0, _WRITE_BYTES // 8).view(np.uint8)
    path = folder / "stream.bin"
    fd = open_sized(path, num_bytes)

    def stream() -> None:
        for at in range(0, num_bytes, _WRITE_BYTES):
            write_all(fd, piece, at)
        os.fsync(fd)

    try:
        return num_bytes / seconds(stream)
    finally:
        os.close(fd)
        path.unlink()


def _dgl(store: Store) -> Callable[[], int]:
    dgl = import_dgl()
    import torch

    graph = dgl_graph(store)
    sampler = dgl.dataloading.NeighborSampler(FANOUTS[::-1])
    batches = seed_batches(as_seeds(store, "train"), BATCH_SIZE, 0)
    seeds = [torch.from_numpy(batches[k].ids) for k in range(len(batches))]

    def work() -> int:
        return sum(block.num_edges() for block in chain(*(sampler.sample(graph, ids)[2] for ids in seeds)))

    return work


def _pyg(store: Store) -> Callable[[], int]:
    import torch
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader

    loader = NeighborLoader(
        Data(edge_index=pyg_edge_index(store), num_nodes=store.num_nodes),
        num_neighbors=FANOUTS,
        batch_size=BATCH_SIZE,
        input_nodes=torch.from_numpy(store.split("train")),
        num_workers=num_workers(None),
        persistent_workers=True,
    )
    return lambda: sum(batch.edge_index.shape[1] for batch in loader)


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result) + "\n")
