"""ogbn-papers100M's shape at 1/16 from OGB's own archive to a Store: ours in 512 MiB, the ogb package, the disk alone.

The archive is written here, in the exact layout of the download: 7 million nodes, 100 million edges, 128 columns. The
ogb package builds the whole graph in memory and saves it as one pickle, which is its form for the next start. The disk
alone reads every byte of the input and writes as many bytes as the Store has, which is the least that any way takes.

    python -m gnnsys.bench.ogb CONTESTANT FOLDER REPEATS     one contestant, as JSON
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.bench.harness import Report, contestants, drop_caches, memory_limit, report, row, samples, seconds
from gnnsys.budget import GrowthMeter
from gnnsys.ingestion import ingest
from gnnsys.units import format_size

NAME = "ogbn-papers100M"
MEMORY = 512 << 20
RUNTIME = 320 << 20
"""What Python and its packages take before there is any graph."""
COLUMNS, CLASSES = 128, 172
_LABELLED = 0.014
_BLOCK = 1 << 18
_LEVEL = 1
"""Of deflate: what is read is as large and as fast as with the usual 6, what writes it here is not as slow."""


def run(quick: bool, folder: Path) -> Report:
    """Write the download in `folder`, some GiB, and let everyone read it in a process of its own."""
    nodes, edges, repeats = (440_000, 6_250_000, 2) if quick else (7_000_000, 100_000_000, 2)
    write_download(folder / "ogbn_papers100M", nodes, edges)
    with memory_limit(MEMORY + RUNTIME) as prefix:
        found = contestants("gnnsys.bench.ogb", ["ours"], folder, repeats, prefix)
    found |= contestants("gnnsys.bench.ogb", ["ogb", "disk"], folder, repeats)
    ours, case = found["ours"], "ingest, papers100M at 1/16"
    rows = [
        row(case, "seconds", "s", ours["seconds"], "ogb", samples(found["ogb"], "seconds"), less_is_better=True),
        row(case, "peak_growth", "bytes", ours["peak"], "ogb", samples(found["ogb"], "peak"), less_is_better=True),
        row(case, "seconds", "s", ours["seconds"], "disk alone", found["disk"]["seconds"], less_is_better=True),
    ]
    config = {
        "nodes": nodes,
        "edges": edges,
        "columns": COLUMNS,
        "input_bytes": _bytes_below(folder / "ogbn_papers100M" / "raw"),
        "store_bytes": _bytes_below(folder / "store"),
        "memory_bytes": MEMORY,
        "limit_bytes": MEMORY + RUNTIME if prefix else None,
        "repeats": repeats,
        "quick": quick,
    }
    held = f"Ours is held to {format_size(MEMORY)} and {format_size(RUNTIME)} for the runtime, page cache included."
    return report(rows, config, notes=[held if prefix else "No limit could be set.", _OTHERS])


_OTHERS = (
    "All start with an empty page cache where it can be emptied. The ogb package has no limit and writes a pickle; "
    "ours checks and writes a durable Store."
)


def main(contestant: str, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat, and how far anonymous memory grew at its peak in all of them."""
    work = {"ours": _ours, "ogb": _ogb, "disk": _disk}[contestant](folder)
    found = []
    with GrowthMeter() as meter:
        for _ in range(repeats):
            drop_caches()
            found.append(seconds(work))
    return {"seconds": found, "peak": [meter.peak_growth]}


def _ours(folder: Path) -> Callable[[], Any]:
    ingest("synthetic:powerlaw:nodes=100,edges=1000,feat=4,classes=3", folder / "warm", memory="16MiB")

    def work() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        ingest(f"ogb:{NAME}:{folder}", folder / "store", memory=MEMORY)

    return work


def _ogb(folder: Path) -> Callable[[], Any]:
    from ogb.nodeproppred import NodePropPredDataset

    def work() -> None:
        shutil.rmtree(folder / "ogbn_papers100M" / "processed", ignore_errors=True)
        (folder / "ogbn_papers100M" / "processed").mkdir()
        NodePropPredDataset(NAME, root=str(folder))
        os.sync()

    return work


def _disk(folder: Path) -> Callable[[], Any]:
    buffer = bytearray(1 << 20)
    files = [path for path in (folder / "ogbn_papers100M" / "raw").iterdir() if path.is_file()]
    num_bytes = _bytes_below(folder / "store")

    def work() -> None:
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        with (folder / "copy").open("wb", buffering=0) as file:
            for _ in range(num_bytes // len(buffer)):
                file.write(buffer)
            os.fsync(file.fileno())

    return work


def write_download(folder: Path, nodes: int, edges: int) -> None:
    """The folder that OGB's download of papers100M unpacks to, with a random graph of that size."""
    raw, split = folder / "raw", folder / "split" / "time"
    raw.mkdir(parents=True)
    split.mkdir(parents=True)
    (folder / "RELEASE_v1.txt").touch()
    rng = np.random.default_rng(0)
    labelled = rng.random(nodes) < _LABELLED
    with zipfile.ZipFile(raw / "data.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        _member(archive, "edge_index", np.int64, (2, edges), (_ids(rng, nodes, n) for n in (*_sizes(edges),) * 2))
        _member(archive, "num_nodes_list", np.int64, (1,), [np.array([nodes])])
        _member(archive, "num_edges_list", np.int64, (1,), [np.array([edges])])
        rows = (rng.standard_normal((n, COLUMNS), dtype=np.float32) for n in _sizes(nodes))
        _member(archive, "node_feat", np.float32, (nodes, COLUMNS), rows)
        _member(archive, "node_year", np.int64, (nodes, 1), (np.full(n, 2010) for n in _sizes(nodes)))
    y = np.where(labelled, rng.integers(0, CLASSES, nodes), np.nan).astype(np.float32).reshape(-1, 1)
    np.savez_compressed(raw / "node-label.npz", node_label=y)
    ids = np.flatnonzero(labelled)
    for name, part in zip(("train", "valid", "test"), np.array_split(ids, 3), strict=True):
        with gzip.open(split / f"{name}.csv.gz", "wt") as file:
            file.writelines(f"{node}\n" for node in part)


def _ids(rng: np.random.Generator, nodes: int, count: int) -> np.ndarray:
    """Node ids, skewed towards small ones as citations are."""
    return (nodes * rng.random(count) ** 2).astype(np.int64)


def _sizes(count: int) -> Iterator[int]:
    yield from (min(_BLOCK, count - start) for start in range(0, count, _BLOCK))


def _member(archive: zipfile.ZipFile, name: str, dtype: type, shape: tuple[int, ...], blocks: Any) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result) + "\n")
