"""What the planner promised beside what happened: bytes and seconds of every layout, on one pool.

Predictions come from `gnnsys.plan` with the speeds of this disk, measured at the start of the run. An epoch is all
batches delivered by a Loader, nothing done with them; preparing is packing the pool.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from gnnsys.bench.harness import Report, drop_caches, repeated, report, row
from gnnsys.ingestion import ingest
from gnnsys.loading.loader import Loader
from gnnsys.planning.calibrate import measure
from gnnsys.planning.packing import pack
from gnnsys.planning.plan import plan
from gnnsys.samplers.sample import sample
from gnnsys.storage.generation import LAYOUTS

FANOUTS, BATCH_SIZE, FEATURES = [10, 10], 1024, 128
MEMORY = 320 << 20


def run(quick: bool, folder: Path) -> Report:
    """Plan, pack and read one pool in every layout."""
    nodes, repeats = (500_000, 2) if quick else (4_000_000, 5)
    source = f"synthetic:powerlaw:nodes={nodes},edges={8 * nodes},feat={FEATURES},classes=16"
    store = ingest(f"{source},train={(20 if quick else 80) * BATCH_SIZE / nodes}", folder / "store", memory="2GiB")
    pool = sample(store, folder / "pool", fanouts=FANOUTS, batch_size=BATCH_SIZE)
    speeds = measure(folder)
    options: dict[str, Any] = {"memory": MEMORY, "aggregate": "mean"}
    planned = plan(pool, store, speeds=speeds, **options)
    rows = []
    for layout in LAYOUTS:
        promised, case = planned.candidate(layout), f"plan, {layout}"
        out = folder / layout
        drop_caches()
        start = time.perf_counter()
        pack(pool, out, store=store, layout=layout, speeds=speeds, **options)
        prepared = time.perf_counter() - start
        found = _epochs(out, repeats)
        rows.append(row(case, "bytes", "bytes", found["bytes"], "predicted", [promised.bytes], less_is_better=True))
        rows.append(
            row(case, "epoch_s", "s", found["epoch_s"], "predicted", _known(promised.epoch_s), less_is_better=True)
        )
        if promised.prepare_s:  # `direct` has nothing to prepare
            rows.append(row(case, "prepare_s", "s", [prepared], "predicted", [promised.prepare_s], less_is_better=True))
        shutil.rmtree(out)
    config = {
        "nodes": nodes,
        "fanouts": FANOUTS,
        "batch_size": BATCH_SIZE,
        "batches": pool.num_batches,
        "memory_bytes": MEMORY,
        "speeds": vars(speeds),
        "repeats": repeats,
        "quick": quick,
    }
    return report(rows, config, notes=[_NOTE], plan=planned.to_json())


_NOTE = "A ratio is predicted over measured: 1 is a promise kept, below 1 it took longer or read more than promised."


def _known(value: float | None) -> list[float] | str:
    return "the disk was not measured" if value is None else [value]


def _epochs(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of epochs from a cold page cache, and the bytes that one asks from the disk."""
    asked = [0.0]
    with Loader(folder) as loader:

        def epoch() -> float:
            start = time.perf_counter()
            asked[0] = sum(batch.io["bytes_read"] for batch in loader)
            return time.perf_counter() - start

        spent = repeated(epoch, repeats, before=drop_caches)
    return {"epoch_s": spent, "bytes": asked}
