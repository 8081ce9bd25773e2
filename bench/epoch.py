"""Seconds per epoch of training: ours out of core, ours in memory, and PyG and DGL in memory.

Everyone trains the same GraphSAGE (mean aggregator, three layers, Adam) on the same seeds of the same graph, in the
plainest loop. Out of core means a tenth of the features as memory, for cache, loader and step, and on top of it only
what Python and torch themselves take; a cgroup holds to that, page cache included. In memory means no limit.

    python -m gnnsys.bench.epoch CONTESTANT FOLDER REPEATS     one contestant, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnsys.bench.harness import (
    Report,
    contestants,
    drop_caches,
    memory_limit,
    repeated,
    report,
    row,
    samples,
    seconds,
)
from gnnsys.bench.peers import dgl_graph, pyg_edge_index
from gnnsys.ingestion import ingest
from gnnsys.interop.dgl import import_dgl
from gnnsys.loading.loader import Loader
from gnnsys.models.registry import build
from gnnsys.planning.packing import pack
from gnnsys.storage.pack import Pack
from gnnsys.storage.store import Store
from gnnsys.units import format_size

FANOUTS, FEATURES, HIDDEN, CLASSES = [15, 10, 5], 128, 256, 16
BATCHES = 32
RUNTIME = 448 << 20
"""What Python, torch and their code take before there is any graph, with room for the kernel's own accounts."""
OUT_OF_CORE = ("packed", "pre-aggregated", "mapped", "direct")
IN_MEMORY = ("in-memory", "bf16", "pyg", "pyg layers", "dgl")


def run(quick: bool, folder: Path) -> Report:
    """Prepare a graph and its packs in `folder` (some GiB) and let every contestant train in a process of its own."""
    nodes, batch_size, repeats = (1_500_000, 96, 2) if quick else (4_000_000, 256, 5)
    source = f"synthetic:powerlaw:nodes={nodes},edges={8 * nodes},feat={FEATURES},classes={CLASSES}"
    store = ingest(f"{source},train={BATCHES * batch_size / nodes}", folder / "store", memory="2GiB")
    feature_bytes = nodes * store.row_bytes()
    memory = feature_bytes // 10
    packs = {layout: _pack(store, folder, layout, batch_size, memory) for layout in ("packed", "pre-aggregated")}
    with memory_limit(memory + RUNTIME) as prefix:
        found = contestants("gnnsys.bench.epoch", OUT_OF_CORE, folder, repeats, prefix)
    found |= contestants("gnnsys.bench.epoch", IN_MEMORY, folder, repeats)
    config = {
        "nodes": nodes,
        "edges": store.num_edges,
        "feature_bytes": feature_bytes,
        "memory_bytes": memory,
        "limit_bytes": memory + RUNTIME if prefix else None,
        "fanouts": FANOUTS,
        "batch_size": batch_size,
        "batches": BATCHES,
        "hidden": HIDDEN,
        "bytes_per_epoch": {name: made["bytes_planned_per_epoch"] for name, made in packs.items()},
        "repeats": repeats,
        "quick": quick,
    }
    limited = f"Limit out of core: {format_size(memory)}, a tenth of the features, and {format_size(RUNTIME)} for the "
    notes = [
        limited + "runtime." if prefix else "No limit could be set.",
        'Peer "packed" is the layout of DiskGNN; "pyg layers" trains PyG\'s SAGEConv on batches of ours in memory; '
        '"bf16" is ours with bfloat16 products, which pay only where the processor has them.',
        "DGL samples and slices in the training process, on all its threads (num_workers=0).",
    ]
    return report(_rows(found), config, notes=notes)


def _rows(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours out of core beside everyone else; then the same engine in memory beside the other engines."""

    def against(case: str, ours: str, peers: tuple[str, ...]) -> list[dict[str, Any]]:
        mine = found[ours]["epoch_s"]
        return [row(case, "epoch_s", "s", mine, p, samples(found[p], "epoch_s"), less_is_better=True) for p in peers]

    return [
        *against("epoch, packed, 10 % memory", "packed", ("in-memory", "mapped", "direct", "dgl", "pyg")),
        *against("epoch, pre-aggregated, 10 % memory", "pre-aggregated", ("in-memory", "packed", "dgl", "pyg")),
        *against("epoch, in memory", "in-memory", ("dgl", "pyg", "pyg layers", "bf16")),
    ]


def _pack(store: Store, folder: Path, layout: str, batch_size: int, memory: int) -> dict[str, Any]:
    made = pack(
        store,
        folder / layout,
        fanouts=FANOUTS,
        batch_size=batch_size,
        memory=memory,
        layout=layout,
        aggregate="mean" if layout == "pre-aggregated" else None,
    )
    return made.plan.to_json()


def main(contestant: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of every epoch of one contestant, after one to warm up."""
    torch.manual_seed(0)
    model, step, batches = CONTESTANTS[contestant](folder)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def epoch() -> None:
        for batch in batches():
            optimizer.zero_grad(set_to_none=True)
            out, labels = step(batch)
            functional.cross_entropy(out, labels).backward()
            optimizer.step()

    drop_caches()
    return {"epoch_s": repeated(lambda: seconds(epoch), repeats)}


Contestant = tuple[nn.Module, Callable[[Any], tuple[Tensor, Tensor]], Callable[[], Iterator[Any]]]


def _ours(folder: Path, layout: str, rows: str, bf16: bool = False) -> Contestant:
    model = build("sage", in_channels=FEATURES, hidden_channels=HIDDEN, num_layers=len(FANOUTS), out_channels=CLASSES)
    loader = Loader(folder / layout, rows=rows)

    def step(batch: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(batch.x, batch.blocks).float(), batch.y

    return model, step, lambda: iter(loader)


def _sage(layers: nn.ModuleList, x: Tensor, graphs: Sequence[Any], call: Callable[..., Tensor]) -> Tensor:
    """GraphSAGE of another library's layers: `call(layer, x, graph)` one after another, ReLU between them."""
    for number, (layer, graph) in enumerate(zip(layers, graphs, strict=True)):
        x = call(layer, x, graph)
        x = functional.relu(x) if number + 1 < len(layers) else x
    return x


_WIDTHS = [(FEATURES, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)]


def _dgl(folder: Path) -> Contestant:
    dgl = import_dgl()
    store = Store.open(folder / "store")
    graph = dgl_graph(store)
    graph.ndata["feat"], graph.ndata["label"] = _tensors(store)
    sampler = dgl.dataloading.NeighborSampler(FANOUTS[::-1], prefetch_node_feats=["feat"], prefetch_labels=["label"])
    seeds = torch.from_numpy(np.array(store.split("train")))
    loader = dgl.dataloading.DataLoader(
        graph, seeds, sampler, batch_size=_batch_size(folder), shuffle=True, num_workers=0
    )
    layers = nn.ModuleList([dgl.nn.SAGEConv(a, b, "mean") for a, b in _WIDTHS])

    def step(batch: Any) -> tuple[Tensor, Tensor]:
        _, _, blocks = batch
        out = _sage(layers, blocks[0].srcdata["feat"], blocks, lambda layer, x, block: layer(block, x))
        return out, blocks[-1].dstdata["label"]

    return layers, step, lambda: iter(loader)


def _pyg(folder: Path) -> Contestant:
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader

    store = Store.open(folder / "store")
    x, y = _tensors(store)
    loader = NeighborLoader(
        Data(x=x, y=y, edge_index=pyg_edge_index(store)),
        num_neighbors=FANOUTS,
        batch_size=_batch_size(folder),
        shuffle=True,
        input_nodes=torch.from_numpy(np.array(store.split("train"))),
        num_workers=2,
        persistent_workers=True,
    )
    layers = _pyg_layers()

    def step(batch: Any) -> tuple[Tensor, Tensor]:
        out = _sage(layers, batch.x, [batch.edge_index] * len(layers), lambda layer, x, edges: layer(x, edges))
        return out[: batch.batch_size], batch.y[: batch.batch_size]

    return layers, step, lambda: iter(loader)


def _pyg_on_ours(folder: Path) -> Contestant:
    """PyG's convolutions on our batches, trimmed hop by hop."""
    layers, loader = _pyg_layers(), Loader(folder / "packed", rows="memory")

    def convolve(layer: nn.Module, x: Tensor, block: Any) -> Tensor:
        edge_index = torch.stack([block.indices.to(torch.int64), block.dst_index()])
        out: Tensor = layer((x, x[: block.num_dst]), edge_index)
        return out

    return layers, lambda batch: (_sage(layers, batch.x, batch.blocks, convolve), batch.y), lambda: iter(loader)


def _pyg_layers() -> nn.ModuleList:
    from torch_geometric.nn import SAGEConv

    return nn.ModuleList([SAGEConv(a, b) for a, b in _WIDTHS])


def _batch_size(folder: Path) -> int:
    return Pack.open(folder / "packed").pool.batch_size


def _tensors(store: Store) -> tuple[Tensor, Tensor]:
    """Features and labels in memory."""
    labels = store.labels()
    assert labels is not None
    rows = store.table("x").read(np.arange(store.num_nodes))
    return torch.from_numpy(rows), torch.from_numpy(np.array(labels))


CONTESTANTS: dict[str, Callable[[Path], Contestant]] = {
    "packed": lambda folder: _ours(folder, "packed", "packed"),
    "pre-aggregated": lambda folder: _ours(folder, "pre-aggregated", "packed"),
    "direct": lambda folder: _ours(folder, "packed", "direct"),
    "mapped": lambda folder: _ours(folder, "packed", "mapped"),
    "in-memory": lambda folder: _ours(folder, "packed", "memory"),
    "bf16": lambda folder: _ours(folder, "packed", "memory", bf16=True),
    "dgl": _dgl,
    "pyg": _pyg,
    "pyg layers": _pyg_on_ours,
}

if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result) + "\n")
