"""Rows for training, 512 bytes each, under a memory limit: packed Loader, mapped file, direct random reads.

Everyone fetches the rows of the same batches of the same graph; only the Loader also decodes topology and delivers
finished batches. The limit holds for a child process and its page cache, from outside. The disk's sequential bandwidth
is measured before and after every repeat of the Loader, by a plain loop of direct reads over the same files.

    python -m gnnsys.bench.read CONTESTANT FOLDER REPEATS     one contestant, as JSON (what the limited child runs)
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.bench.harness import Report, drop_caches, memory_limit, repeated, report, row, run_child
from gnnsys.ingestion import ingest
from gnnsys.loading.loader import Loader
from gnnsys.planning.packing import pack
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.files import round_up
from gnnsys.storage.pack import Pack
from gnnsys.storage.store import Store, table_path
from gnnsys.storage.table_direct import DirectTable
from gnnsys.storage.table_files import MappedTable
from gnnsys.storage.tables import Table
from gnnsys.units import format_size

FANOUTS, BATCH_SIZE, FEATURES = [10, 10], 1024, 128
PACK_MEMORY, LIMIT = 256 << 20, 640 << 20
WORKERS = PREFETCH = 4
"""Enough that the disk always has a request while other threads put rows in place; 3 got 0.88 of the loop, 4 1.0."""
_READ_BYTES = 1 << 20
_GB = 1e9


def run(quick: bool, folder: Path) -> Report:
    """Prepare a graph and a pack in `folder` (some GiB), measure every contestant in a limited child."""
    nodes = 1_000_000 if quick else 4_000_000
    repeats = 2 if quick else 5
    source = f"synthetic:powerlaw:nodes={nodes},edges={8 * nodes},feat={FEATURES},classes=16,train=0.04"
    store = ingest(source, folder / "store", memory="2GiB")
    packed = pack(store, folder / "pack", fanouts=FANOUTS, batch_size=BATCH_SIZE, memory=PACK_MEMORY, layout="packed")
    with memory_limit(LIMIT) as prefix:
        found = {
            name: json.loads(
                run_child(["gnnsys.bench.read", name, str(folder), str(repeats)], prefix=prefix).splitlines()[-1]
            )
            for name in ("packed", "verified", "mapped", "direct")
        }
    ours, always = found["packed"], found["verified"]
    delivered = [n * store.row_bytes() / _GB for n in ours["rows_s"]]
    rows = [
        row("read, packed", "delivered", "GB/s", delivered, "1 MiB O_DIRECT loop", ours["disk_gb_s"]),
        row("read, packed", "from disk", "GB/s", ours["gb_s"], "1 MiB O_DIRECT loop", ours["disk_gb_s"]),
        row(
            "read, packed, every read verified",
            "from disk",
            "GB/s",
            always["gb_s"],
            "1 MiB O_DIRECT loop",
            always["disk_gb_s"],
        ),
        row("read, packed", "rows_per_s", "rows/s", ours["rows_s"], "mapped", found["mapped"]["rows_s"]),
        row("read, packed", "rows_per_s", "rows/s", ours["rows_s"], "direct", found["direct"]["rows_s"]),
    ]
    limited = f"Memory of every contestant, page cache included: {format_size(LIMIT)}." if prefix else "No limit."
    config = {
        "nodes": nodes,
        "feature_bytes": nodes * store.row_bytes(),
        "row_bytes": store.row_bytes(),
        "fanouts": FANOUTS,
        "batch_size": BATCH_SIZE,
        "batches": packed.pool.num_batches,
        "cached_rows": packed.generations[0].num_cached,
        "limit_bytes": LIMIT if prefix else None,
        "workers": WORKERS,
        "prefetch": PREFETCH,
        "repeats": repeats,
        "quick": quick,
    }
    verified = (
        "Bytes are checked against their sums when they are first read: that is the warm-up epoch, which is not "
        'counted. "Every read verified" is what such an epoch costs.'
    )
    cached = "Rows of cached nodes come from memory and are not read from disk."
    return report(rows, config, notes=[limited, cached, verified])


def main(contestant: str, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Samples of one contestant: rows per second, and for the Loader bandwidth beside the disk's own."""
    if contestant in ("packed", "verified"):
        return _loader(folder, repeats, "always" if contestant == "verified" else "first")
    return {"rows_s": _table(folder, repeats, contestant)}


def _loader(folder: Path, repeats: int, verify: str) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {"gb_s": [], "rows_s": [], "disk_gb_s": []}
    opened = Pack.open(folder / "pack", verify=verify)
    with Loader(opened, with_y=False, workers=WORKERS, prefetch=PREFETCH, verify=verify) as loader:  # type: ignore[arg-type]

        def epoch() -> float:
            disk = [_sequential(opened)]
            started, rows, num_bytes = time.perf_counter(), 0, 0.0
            for batch in loader:
                rows += len(batch.n_id)
                num_bytes += batch.io["bytes_read"]
            spent = time.perf_counter() - started
            for name, value in (("gb_s", num_bytes / _GB), ("rows_s", rows)):
                samples[name].append(value / spent)
            disk.append(_sequential(opened))
            samples["disk_gb_s"].append(statistics.mean(disk))
            return spent

        repeated(epoch, repeats, before=drop_caches)
    return {name: values[1:] for name, values in samples.items()}


def _sequential(opened: Pack) -> float:
    """GB/s of reading the packed rows front to back, nothing done with them."""
    buffer = aligned_buffer(_READ_BYTES, reused=True)
    paths = sorted((opened.generations[0].path / "rows").glob("rows-*.bin"))
    started, done = time.perf_counter(), 0
    for path in paths:
        file = DirectFile(path)
        for offset in range(0, file.num_bytes, _READ_BYTES):
            file.read(buffer[: round_up(min(_READ_BYTES, file.num_bytes - offset))], offset)
        done += file.num_bytes
        file.close()
    return done / _GB / (time.perf_counter() - started)


def _table(folder: Path, repeats: int, contestant: str) -> list[float]:
    """Rows per second of reading the input nodes of a few batches from the Store, not verified."""
    pool = Pack.open(folder / "pack").pool
    table = _open(Store.open(folder / "store"), contestant)
    wanted = _batches([pool.ids(k) for k in range(min(pool.num_batches, 3 * (repeats + 1)))])
    samples: list[float] = []

    def read() -> float:
        ids = next(wanted)
        out = np.empty((len(ids), table.columns), dtype=table.dtype)
        started = time.perf_counter()
        table.read(ids, out=out)
        samples.append(len(ids) / (time.perf_counter() - started))
        return samples[-1]

    return repeated(read, repeats, before=drop_caches)


def _batches(ids: list[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        yield from ids


def _open(store: Store, contestant: str) -> Table:
    entry = store.manifest.entry(table_path("x"))
    kinds: dict[str, Callable[[], Table]] = {
        "mapped": lambda: MappedTable(store.path, entry, store.id, "off"),
        "direct": lambda: DirectTable(store.path, entry, store.id, "off", threads=32),
    }
    return kinds[contestant]()


if __name__ == "__main__":
    result: Any = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result) + "\n")
