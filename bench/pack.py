"""Packing: how much of what the disk could do does a pack take, peer in the same run.

    efficiency = (feature bytes / read bandwidth + written bytes / write bandwidth) / seconds

Both bandwidths are those of plain front-to-back streams on the same volume, measured just before and after every
repeat: reads by O_DIRECT, writes through the page cache with an fsync at the end. 1 means that packing costs what
reading the features once and writing the result once cost one after the other; overlapping them gives more. The peer
packs naively: per batch it fetches the cold rows by random direct reads and writes its run.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys import keys
from gnnsys.bench.harness import Report, drop_caches, report, row, seconds, spread
from gnnsys.budget import Budget
from gnnsys.planning.access import access_counts, hottest_nodes, hottest_rows
from gnnsys.samplers.sample import sample
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.files import open_sized, round_up, write_all
from gnnsys.storage.generation import Generation
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.packing import write_generation
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import FORMAT, INDICES, INDPTR, VERSION, Store, split_path, table_path
from gnnsys.storage.tables import DirectTable
from gnnsys.storage.writer import SequentialWriter, write_array

_COLUMNS = 128
_REQUEST = 4 << 20
_PEER_BATCHES = 4
"""Batches that the naive peer packs; its time grows in proportion, so more would only take longer."""


def run(quick: bool, folder: Path) -> Report:
    """Pack 1 GiB of features (64 MiB when quick) from a pool that asks for about as much again."""
    config: dict[str, Any] = {
        "nodes": (128 << 10) if quick else (2 << 20),
        "degree": 8,
        "columns": _COLUMNS,
        "row_bytes": 4 * _COLUMNS,
        "fanouts": [10, 10],
        "batch_size": 1024,
        "seeds": 0.06,
        "cached": 0.1,
        "memory": (32 << 20) if quick else (512 << 20),
        "repeats": 1 if quick else 5,
    }
    store = _make_store(folder / "store", config)
    pool = sample(store, folder / "pack" / "pool", fanouts=config["fanouts"], batch_size=1024)
    hot = _hottest(pool, store, int(config["nodes"] * config["cached"]))
    samples = [_repeat(folder, pool, store, hot, config) for _ in range(config["repeats"] + 1)][1:]
    naive = [_naive(folder, pool, store, hot) for _ in range(config["repeats"])]
    return _reported(samples, naive, config)


def _repeat(folder: Path, pool: Pool, store: Store, hot: np.ndarray, config: dict[str, Any]) -> dict[str, float]:
    """One packing from scratch with its phases, and the bandwidths around it."""
    target = folder / "pack"
    for path in target.iterdir():
        if path.name != "pool":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    features = store.path / table_path("x")
    before = _bandwidths(folder, features)
    dropped = drop_caches()
    marks: dict[str, float] = {}
    start = time.perf_counter()
    generation = write_generation(
        target,
        pool,
        store,
        layout="packed",
        cache_rows=len(hot),
        hottest=lambda: hot,
        memory=config["memory"],
        progress=lambda stage, *_: marks.update({stage: time.perf_counter() - start}),
    )
    took = time.perf_counter() - start
    after = _bandwidths(folder, features)
    read, write = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    read_bytes, written = store.num_nodes * generation.row_bytes, _written(generation)
    return {
        "seconds": took,
        "place_s": marks["place"],
        "scatter_s": marks["write"] - marks["place"],
        "rest_s": took - marks["write"],
        "read_bandwidth": read,
        "write_bandwidth": write,
        "feature_bytes": read_bytes,
        "written_bytes": written,
        "packed_rows": float(generation.count.sum()),
        "efficiency": (read_bytes / read + written / write) / took,
        "caches_dropped": dropped,
    }


def _naive(folder: Path, pool: Pool, store: Store, hot: np.ndarray) -> float:
    """Rows per second of the peer: random direct reads per batch, one write per batch, fsync at the end."""
    cached = np.zeros(store.num_nodes, dtype=bool)
    cached[hot] = True
    table = DirectTable(store.path, store.manifest.entry(table_path("x")), store.id, "off", 32)
    path, at, rows = folder / "naive.bin", 0, 0
    drop_caches()
    fd = open_sized(path, 0)
    start = time.perf_counter()
    try:
        for k in range(min(_PEER_BATCHES, pool.num_batches)):
            ids = np.sort(pool.ids(k))
            run = table.read(ids[~cached[ids]])
            write_all(fd, run, at)
            at, rows = at + round_up(run.nbytes), rows + len(run)
        os.fsync(fd)
        return rows / (time.perf_counter() - start)
    finally:
        os.close(fd)
        table.close()
        path.unlink()


def _bandwidths(folder: Path, features: Path) -> tuple[float, float]:
    """Bytes per second of reading the features by O_DIRECT, and of writing as much with an fsync."""
    file, buffer = DirectFile(features), aligned_buffer(_REQUEST)
    size, path = file.num_bytes, folder / "stream.bin"

    def scan() -> None:
        for at in range(0, size, _REQUEST):
            file.read(buffer, at)

    read = seconds(scan)
    file.close()
    fd = open_sized(path, size)
    buffer[:] = keys.draws(1, 0, _REQUEST // 8).view(np.uint8)

    def stream() -> None:
        for at in range(0, size, _REQUEST):
            write_all(fd, buffer[: size - at], at)
        os.fsync(fd)

    try:
        write = seconds(stream)
    finally:
        os.close(fd)
        path.unlink()
    return size / read, size / write


def _written(generation: Generation) -> int:
    counts = generation.manifest.counts
    return int(counts["rows_bytes"]) + int(counts["slots_bytes"]) + generation.cache_rows_bytes


def _hottest(pool: Pool, store: Store, rows: int) -> np.ndarray:
    access = access_counts(pool, store.num_nodes, store.row_bytes(), Budget(1 << 40), 2)
    return hottest_nodes(access, hottest_rows(access, rows))


def _reported(samples: list[dict[str, float]], naive: list[float], config: dict[str, Any]) -> Report:
    efficiency = [s["efficiency"] for s in samples]
    speed = [s["packed_rows"] / s["seconds"] for s in samples]
    rows = [
        row("pack", "efficiency", "x", efficiency, "reading, then writing, at disk speed", [1.0] * len(samples)),
        row("pack", "rows_per_s", "rows/s", speed, "direct", naive),
    ]
    middle = {key: statistics.median(s[key] for s in samples) for key in samples[0]}
    note = (
        f"Efficiency = (feature bytes / read bandwidth + written bytes / write bandwidth) / seconds: "
        f"({middle['feature_bytes'] / 1e9:.2f} GB / {middle['read_bandwidth'] / 1e9:.2f} GB/s + "
        f"{middle['written_bytes'] / 1e9:.2f} GB / {middle['write_bandwidth'] / 1e9:.2f} GB/s) / "
        f"{middle['seconds']:.2f} s, medians of {len(samples)} repeats, fsync included."
    )
    return report(
        rows,
        config,
        efficiency=spread(efficiency),
        samples=samples,
        naive_rows_per_s=naive,
        caches_dropped=all(s["caches_dropped"] for s in samples),
        notes=[note],
    )


def _make_store(folder: Path, config: dict[str, Any]) -> Store:
    """A skewed random graph with random features, written piece by piece."""
    num_nodes, degree = config["nodes"], config["degree"]
    rng = np.random.default_rng(0)
    names = rng.permutation(num_nodes).astype(np.int32)
    with Stage(folder, FORMAT, VERSION, inputs={}, parameters=config) as stage:
        sources = np.sort(names[(num_nodes * rng.random((num_nodes, degree)) ** 2.5).astype(np.int64)], axis=1)
        files: list[FileEntry] = []
        for path, array, role in (
            (INDPTR, np.arange(0, num_nodes * degree + 1, degree, dtype=np.int64), "indptr"),
            (INDICES, sources.reshape(-1), "indices"),
        ):
            writer = SequentialWriter(folder, path, stage.id)
            writer.append(array)
            files += writer.finish(array.dtype, array.shape, role)
        writer = SequentialWriter(folder, table_path("x"), stage.id)
        for first in range(0, num_nodes, 1 << 16):
            writer.append(rng.random((min(1 << 16, num_nodes - first), _COLUMNS), dtype=np.float32))
        files += writer.finish(np.dtype(np.float32), (num_nodes, _COLUMNS), "table")
        train = np.sort(names[: int(num_nodes * config["seeds"])])
        files.append(write_array(folder, split_path("train"), train, "split"))
        counts = {"nodes": num_nodes, "edges": sources.size, "classes": 0, "max_degree": degree, "splits": ["train"]}
        stage.commit(counts=counts, files=tuple(files))
    return Store.open(folder)
