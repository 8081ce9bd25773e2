"""Pre-aggregated packs beside plain ones at equal memory, on three graphs: bytes, disk, least memory, seconds.

Both packs are of one pool, and both get what the one that needs more works in plus a tenth of the features. An epoch
trains GraphSAGE (mean aggregator, a layer per hop, Adam) in the plainest loop, from a cold page cache; bytes are what
the Loader asked from the disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from gnnsys.bench.harness import Report, drop_caches, repeated, report, row, seconds
from gnnsys.ingestion import ingest
from gnnsys.loading.loader import Loader
from gnnsys.models.registry import build
from gnnsys.planning.packing import pack
from gnnsys.planning.plan import plan
from gnnsys.samplers.sample import sample

CLASSES, HIDDEN = 16, 128
GRAPHS: dict[str, dict[str, Any]] = {
    "dense, 10,15,20": {"nodes": 2_000_000, "edges": 50_000_000, "feat": 128, "fanouts": [10, 15, 20]},
    "middling, 10,10,10": {"nodes": 1_000_000, "edges": 16_000_000, "feat": 256, "fanouts": [10, 10, 10]},
    "sparse, 15,10,5": {"nodes": 4_000_000, "edges": 32_000_000, "feat": 64, "fanouts": [15, 10, 5]},
}
BATCH_SIZE = 256
LAYOUTS = ("pre-aggregated", "packed")


def run(quick: bool, folder: Path) -> Report:
    """Make every graph in `folder`, pack it twice and train from both packs."""
    repeats, batches, shrink = (2, 6, 8) if quick else (5, 24, 1)
    rows = [
        made
        for number, (name, graph) in enumerate(GRAPHS.items())
        for made in _compared(name, graph, folder / str(number), repeats, batches, shrink)
    ]
    config = {
        "graphs": GRAPHS,
        "shrink": shrink,
        "batch_size": BATCH_SIZE,
        "batches": batches,
        "hidden": HIDDEN,
        "repeats": repeats,
        "quick": quick,
    }
    return report(
        rows, config, notes=['"memory_bytes" is the least --memory; "disk_bytes" what the finished pack takes.']
    )


def _compared(
    name: str, graph: dict[str, Any], folder: Path, repeats: int, batches: int, shrink: int
) -> list[dict[str, Any]]:
    nodes = graph["nodes"] // shrink
    source = f"synthetic:powerlaw:nodes={nodes},edges={graph['edges'] // shrink},feat={graph['feat']},classes={CLASSES}"
    store = ingest(f"{source},train={batches * BATCH_SIZE / nodes}", folder / "store", memory="2GiB")
    pool = sample(store, folder / "pool", fanouts=graph["fanouts"], batch_size=BATCH_SIZE)
    priced = plan(pool, store, memory="16GiB", aggregate="mean")
    least = max(priced.candidate(layout).memory_bytes for layout in LAYOUTS)
    found, memory = {}, least + nodes * store.row_bytes() // 10
    for layout in LAYOUTS:
        made = pack(pool, folder / layout, store=store, layout=layout, aggregate="mean", memory=memory)
        chosen = next(c for c in made.plan["candidates"] if c["layout"] == layout)
        found[layout] = {
            "disk_bytes": [float(chosen["disk_bytes"])],
            "memory_bytes": [float(chosen["memory_bytes"])],
            **_trained(folder / layout, graph, repeats),
        }
    shutil.rmtree(folder)
    ours, plain = found["pre-aggregated"], found["packed"]
    units = {"bytes": "bytes", "disk_bytes": "bytes", "memory_bytes": "bytes", "epoch_s": "s"}
    return [
        row(f"fold, {name}", metric, unit, ours[metric], "packed", plain[metric], less_is_better=True)
        for metric, unit in units.items()
    ]


def _trained(folder: Path, graph: dict[str, Any], repeats: int) -> dict[str, list[float]]:
    """Seconds of every epoch after one to warm up, and the bytes that one asks from the disk."""
    torch.manual_seed(0)
    sizes = {"in_channels": graph["feat"], "hidden_channels": HIDDEN, "out_channels": CLASSES}
    model = build("sage", num_layers=len(graph["fanouts"]), **sizes)
    optimizer, asked = torch.optim.Adam(model.parameters(), lr=0.003), [0.0]
    with Loader(folder) as loader:

        def epoch() -> None:
            asked[0] = 0.0
            for batch in loader:
                optimizer.zero_grad(set_to_none=True)
                assert batch.y is not None
                functional.cross_entropy(model(batch.x, batch.blocks), batch.y).backward()
                optimizer.step()
                asked[0] += batch.io["bytes_read"]

        spent = repeated(lambda: seconds(epoch), repeats, before=drop_caches)
    return {"epoch_s": spent, "bytes": asked}
