"""Stages in processes against one process and against graph parallelism: bytes, bubble and seconds of an epoch.

The whole graph in chunks through GCNII, and sampled batches of a pack through SAGE, as users start them. Bytes and
messages of the pipeline are counted where they are sent. Graph parallelism is not run: its bytes are computed from the
rows that the parts of this graph, cut by our partitioner, have to fetch of each other (`halo_rows`), and from a ring
all-reduce of the gradients. Seconds of the pipeline are measured with one thread per stage, beside one process with as
many threads; exact training on the whole graph beside PyG's layers.

    python -m gnnsys.bench.pipeline pyg FOLDER EPOCHS     PyG alone, as JSON
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout

from gnnsys.bench.harness import Report, contestants, repeated, report, row, run_child, samples, seconds
from gnnsys.ingestion import ingest
from gnnsys.models.deep import ALPHA, LAMBDA
from gnnsys.models.registry import build
from gnnsys.pipeline.partition import edge_cut, partition
from gnnsys.planning.packing import pack
from gnnsys.storage.store import Store

LAYERS, HIDDEN, CHUNKS = 16, 64, 16
STAGES = (2, 4)
FANOUTS, MICRO_BATCHES = [10, 10, 5], 8
_BARE = ("--guard-every", "0", "--history", "zero")
"""Nothing is sent but what chunks need."""
_MB = 1e6


def run(quick: bool, folder: Path) -> Report:
    """Train for some epochs per contestant, in processes of their own."""
    nodes, epochs = (10_000, 4) if quick else (30_000, 6)
    source = f"synthetic:powerlaw:nodes={nodes},edges={10 * nodes},feat=64,classes=16,train=0.3"
    store = ingest(source, folder / "store", memory="1GiB")
    indptr, indices = np.array(store.graph.indptr), np.array(store.graph.indices)
    rows, cuts = [], {}
    deep = ("--model", "gcnii", "--layers", str(LAYERS), "--chunks", str(CHUNKS), *_BARE)
    whole = [_train(store.path, folder / f"whole-{stages}", stages, epochs, deep) for stages in (1, *STAGES)]
    _same_weights(whole)
    for stages, run_of in zip(STAGES, whole[1:], strict=True):
        part = partition(indptr, indices, stages)
        cuts[stages] = edge_cut(indptr, indices, part) / len(indices)
        model = build("gcnii", **_sizes(store), num_layers=LAYERS)
        computed = graph_parallel_bytes(model, halo_rows(indptr, indices, part), LAYERS, HIDDEN, stages) / _MB
        case = f"pipeline, whole graph, {stages} stages"
        sent = [_sent(run_of, epochs) / _MB]
        rows.append(
            row(case, "bytes_per_epoch", "MB", sent, "graph parallel, computed", [computed], less_is_better=True)
        )
        rows.append(_bubble(case, run_of, stages, CHUNKS))
    exact = _run(store.path, folder / "exact", epochs, [*deep[:4], "--chunks", "1", "--threads", "2"])
    rows.append(_seconds("pipeline, whole graph, 2 stages", whole[1], exact))
    peer = contestants("gnnsys.bench.pipeline", ["pyg"], folder, epochs)["pyg"]
    rows.append(_against_pyg(exact, samples(peer, "epoch_s")))
    packed = pack(store, folder / "pack", fanouts=FANOUTS, batch_size=256, memory="1GiB")
    shallow = ("--model", "sage", "--micro-batches", str(MICRO_BATCHES))
    sampled = [_train(packed.path, folder / f"sampled-{stages}", stages, epochs, shallow) for stages in (1, 2)]
    _same_weights(sampled)
    case = "pipeline, sampled batches, 2 stages"
    rows.append(_bubble(case, sampled[1], 2, MICRO_BATCHES))
    alone = _run(packed.path, folder / "alone", epochs, [*shallow, "--threads", "2"])
    rows.append(_seconds(case, sampled[1], alone))
    config = {
        "nodes": nodes,
        "edges": store.num_edges,
        "whole_graph": {"model": "gcnii", "layers": LAYERS, "hidden": HIDDEN, "chunks": CHUNKS},
        "sampled": {"model": "sage", "fanouts": FANOUTS, "micro_batches": MICRO_BATCHES},
        "edges_cut_of_graph_parallel": cuts,
        "epochs": epochs,
        "quick": quick,
    }
    notes = [
        "Weights were equal, bit for bit, for every number of stages.",
        "Bytes of graph parallelism are computed, not measured: two exchanges of halo rows per layer, and a ring "
        "all-reduce of the gradients. The parts are those of our own partitioner, which has "
        + ", ".join(f"{cut:.0%} of the edges between {stages} parts" for stages, cut in cuts.items())
        + ".",
        "The bubble is the share of its time that a stage waits for others, mean over stages; in theory, with stages "
        "of equal cost on processors of their own, it is (S - 1) / (K + S - 1). "
        f"Here {os.cpu_count()} cores serve all stages.",
        "One process trains on the exact whole graph; the stages on chunks, from zero history and without looks of the "
        "guard. Neither page cache nor memory was limited: after the first epoch rows are in memory.",
    ]
    return report(rows, config, notes=notes)


def halo_rows(indptr: np.ndarray, indices: np.ndarray, part: np.ndarray) -> int:
    """Rows that parts fetch of each other for one aggregation: distinct sources of a part's nodes in other parts."""
    to = np.repeat(part, np.diff(indptr)).astype(np.int64)
    outside = part[indices] != to
    return len(np.unique(to[outside] * len(part) + indices[outside]))


def graph_parallel_bytes(model: nn.Module, halo: int, layers: int, hidden: int, parts: int) -> int:
    """Bytes of an epoch over all parts: halo rows forward and back in every layer, and one all-reduce."""
    parameters = sum(p.numel() for p in model.parameters())
    return 4 * (2 * layers * hidden * halo + 2 * (parts - 1) * parameters)


def _sizes(store: Store) -> dict[str, Any]:
    return {"in_channels": store.table_columns(), "hidden_channels": HIDDEN, "out_channels": store.num_classes}


def _train(source: Path, out: Path, stages: int, epochs: int, options: Sequence[str]) -> dict[str, Any]:
    """The result of a run in that many processes of one thread."""
    return _run(source, out, epochs, [*options, "--pipeline", str(stages), "--threads", "1"])


def _run(source: Path, out: Path, epochs: int, options: Sequence[str]) -> dict[str, Any]:
    common = ["--hidden", str(HIDDEN), "--epochs", str(epochs), "--eval-every", str(epochs), "--json"]
    found = run_child(["gnnsys", "train", str(source), "--out", str(out), *common, *options])
    result: dict[str, Any] = json.loads(found.splitlines()[-1])
    return result


def _against_pyg(exact: Mapping[str, Any], peer: Any) -> dict[str, Any]:
    ours = exact["epoch_s"][1:]
    return row("whole graph, one chunk", "epoch_s", "s", ours, "PyG GCN2Conv, 2 threads", peer, less_is_better=True)


def _pyg_epochs(folder: Path, epochs: int) -> list[float]:
    """Seconds of full-graph training with PyG's layers: the same network, data in memory, and the graph as a sparse
    matrix with its norms computed once, PyG's fastest form."""
    from torch_geometric.nn import GCN2Conv
    from torch_geometric.nn.conv.gcn_conv import gcn_norm
    from torch_geometric.utils import to_torch_csr_tensor

    torch.set_num_threads(2)
    store = Store.open(folder / "store")
    x = torch.from_numpy(store.table("x", "memory").read(np.arange(store.num_nodes)))
    into = np.repeat(np.arange(store.num_nodes), np.diff(store.graph.indptr))
    edge_index = torch.from_numpy(np.stack([np.asarray(store.graph.indices, dtype=np.int64), into]))
    edge_index, weight = gcn_norm(edge_index, num_nodes=store.num_nodes)
    adj_t = to_torch_csr_tensor(edge_index.flip(0), weight, size=(store.num_nodes, store.num_nodes))
    seeds, labels = torch.from_numpy(store.split("train")), store.labels()
    assert labels is not None
    y = torch.from_numpy(labels[seeds.numpy()])
    first, last = nn.Linear(x.shape[1], HIDDEN), nn.Linear(HIDDEN, store.num_classes)
    convs = nn.ModuleList(GCN2Conv(HIDDEN, ALPHA, LAMBDA, layer, normalize=False) for layer in range(1, LAYERS + 1))
    optimizer = torch.optim.Adam([*first.parameters(), *convs.parameters(), *last.parameters()], lr=0.003)

    def epoch() -> None:
        optimizer.zero_grad()
        h = initial = first(x).relu()
        for conv in convs:
            h = conv(dropout(h, 0.5), initial, adj_t).relu()
        cross_entropy(last(dropout(h, 0.5))[seeds], y).backward()
        optimizer.step()

    return repeated(lambda: seconds(epoch), epochs - 1)


def _same_weights(results: Sequence[Mapping[str, Any]]) -> None:
    """Raise RuntimeError unless all ended in the same weights: figures of different work are not compared."""
    if len({result["weights_digest"] for result in results}) > 1:
        raise RuntimeError("stages ended in different weights")


def _sent(result: Mapping[str, Any], epochs: int) -> float:
    return float(sum(rank["bytes_sent"] for rank in result["pipeline"]["ranks"])) / epochs


def _bubble(case: str, result: Mapping[str, Any], stages: int, micro: int) -> dict[str, Any]:
    shares = [rank["wait_s"] / (rank["wait_s"] + rank["compute_s"]) for rank in result["pipeline"]["ranks"]]
    theory = (stages - 1) / (micro + stages - 1)
    return row(case, "bubble", "of the time", [statistics.mean(shares)], "theory", [theory], less_is_better=True)


def _seconds(case: str, ours: Mapping[str, Any], alone: Mapping[str, Any]) -> dict[str, Any]:
    """Epochs but the first, which reads from disk what later ones have in memory."""
    peer = "one process, 2 threads"
    return row(case, "epoch_s", "s", ours["epoch_s"][1:], peer, alone["epoch_s"][1:], less_is_better=True)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"epoch_s": _pyg_epochs(Path(sys.argv[2]), int(sys.argv[3]))}) + "\n")
