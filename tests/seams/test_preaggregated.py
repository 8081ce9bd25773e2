"""Pre-aggregated packs end to end: what is stored, what is delivered, what is trained, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gnnsys as gs
from gnnsys.batch import Block, FoldedBlock
from gnnsys.errors import ConfigError
from gnnsys.models.fold import fold
from gnnsys.planning.calibrate import Speeds
from gnnsys.storage.aggregates import HOWS
from tests.graphs import ingest_arrays

NODES, EDGES, COLUMNS, CLASSES = 700, 6000, 9, 4
FANOUTS = [4, 3]
OPTIONS: dict[str, Any] = {"fanouts": FANOUTS, "batch_size": 40, "seed": 3, "memory": "64MiB"}
HOW_OF = {"sage": "mean", "gin": "sum", "gcn": "gcn", "sgc": "gcn"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> gs.Store:
    return make_store(tmp_path_factory.mktemp("store"), np.float32)


def make_store(folder: Path, dtype: Any) -> gs.Store:
    """A random graph with parallel edges and an isolated node 0, which is a seed."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(1, NODES, (2, EDGES))
    x = (50 * rng.normal(size=(NODES, COLUMNS))).astype(dtype)
    splits = {"train": np.arange(0, NODES, 2), "valid": np.arange(1, NODES, 4)}
    return ingest_arrays(folder, src, dst, NODES, x=x, y=rng.integers(0, CLASSES, NODES), splits=splits)


@pytest.fixture(scope="module")
def plain(store: gs.Store, tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    return gs.pack(store, tmp_path_factory.mktemp("plain"), **OPTIONS)


@pytest.fixture(scope="module", params=HOWS)
def folded(request: pytest.FixtureRequest, store: gs.Store, tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    return make_folded(store, tmp_path_factory.mktemp(request.param), request.param)


def make_folded(store: gs.Store, folder: Path, how: str, **options: Any) -> gs.Pack:
    return gs.pack(store, folder, layout="pre-aggregated", aggregate=how, **{**OPTIONS, **options})


def batches(source: Any, **options: Any) -> list[gs.Batch]:
    with gs.Loader(source, shuffle=False, **options) as loader:
        return list(loader)


def slow_aggregates(block: Block, x: np.ndarray, how: str) -> np.ndarray:
    """(D, F) float64, edge by edge."""
    out = np.zeros((block.num_dst, x.shape[1]))
    d = block.degree.double().numpy()
    for v in range(block.num_dst):
        edges = block.indices[block.indptr[v] : block.indptr[v + 1]].tolist()
        for u in edges:
            weight = {"sum": 1.0, "mean": 1 / len(edges), "gcn": d[v] / len(edges) / np.sqrt((d[u] + 1) * (d[v] + 1))}
            out[v] += weight[how] * x[u]
        out[v] += x[v] / (d[v] + 1) if how == "gcn" else 0
    return out


def test_the_outermost_block_comes_aggregated_and_the_rest_as_it_was(plain: gs.Pack, folded: gs.Pack) -> None:
    for full, batch in zip(batches(plain), batches(folded), strict=True):
        block, how, inner = batch.blocks[0], folded.plan["aggregate"], full.num_nodes[-2]
        assert isinstance(block, FoldedBlock)
        assert (block.how, block.num_dst, block.num_edges) == (how, inner, full.blocks[0].num_edges)
        expected = slow_aggregates(full.blocks[0], full.x.double().numpy(), how)
        np.testing.assert_allclose(block.sums.numpy(), expected, rtol=1e-5, atol=1e-4)  # float32 sums of a few dozen
        assert batch.num_nodes == full.num_nodes[:-1]
        assert torch.equal(batch.n_id, full.n_id[:inner])
        assert torch.equal(batch.degree, full.degree[:inner])
        assert torch.equal(batch.y, full.y)
        assert len(batch.blocks) == len(full.blocks)
        assert torch.equal(batch.blocks[1].indices, full.blocks[1].indices)
        assert torch.equal(batch.x, full.x[:inner, : 0 if how == "gcn" else COLUMNS])


@pytest.mark.parametrize(("dtype", "stored"), [(np.float16, torch.float16), (np.uint8, torch.float32)])
def test_sums_of_short_rows_are_made_in_float32(tmp_path: Path, dtype: Any, stored: torch.dtype) -> None:
    store = make_store(tmp_path / "store", dtype)
    pack, direct = make_folded(store, tmp_path / "pack", "mean"), batches(make_plain(store, tmp_path))
    for full, batch in zip(direct, batches(pack), strict=True):
        sums = batch.blocks[0].sums
        expected = torch.from_numpy(slow_aggregates(full.blocks[0], full.x.double().numpy(), "mean"))
        assert sums.dtype == stored
        torch.testing.assert_close(sums.double(), expected, rtol=1e-3 if dtype == np.float16 else 1e-5, atol=1e-4)


def test_sums_of_float16_rows_do_not_overflow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, NODES, (2, 20 * NODES))
    x = np.full((NODES, 3), 30_000, dtype=np.float16)  # three of them are beyond the largest float16
    splits = {"train": np.arange(0, NODES, 2)}
    store = ingest_arrays(tmp_path / "store", src, dst, NODES, x=x, y=np.zeros(NODES, dtype=np.int64), splits=splits)
    for how in ("sum", "gcn"):
        blocks = [batch.blocks[0] for batch in batches(make_folded(store, tmp_path / how, how))]
        assert all(block.sums.dtype == torch.float32 and block.sums.isfinite().all() for block in blocks)


def make_plain(store: gs.Store, folder: Path) -> gs.Pack:
    return gs.pack(store, folder / "plain", **OPTIONS)


@pytest.mark.parametrize("name", HOW_OF)
def test_training_equals_that_on_the_plain_pack_to_rounding(
    name: str, store: gs.Store, plain: gs.Pack, tmp_path: Path
) -> None:
    pack = make_folded(store, tmp_path / "pack", HOW_OF[name])
    runs = [train(source, name, tmp_path / f"run{i}") for i, source in enumerate((plain, pack))]
    (a, losses), (b, folded_losses) = runs
    np.testing.assert_allclose(folded_losses, losses, rtol=1e-4)
    for key, weight in a.items():
        torch.testing.assert_close(b[key], weight, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(b[key], weight) for key, weight in initial(name).items())


def train(source: gs.Pack, name: str, out: Path) -> tuple[dict[str, Tensor], list[float]]:
    model = make_model(name)
    run = gs.train(model, source, task=gs.NodeClassification(CLASSES), epochs=3, lr=0.01, out=out)
    return model.cpu().state_dict(), run.result["losses"]


def make_model(name: str, **options: Any) -> nn.Module:
    sizes = {"in_channels": COLUMNS, "hidden_channels": 16, "num_layers": 2, "out_channels": CLASSES}
    return gs.build(name, **{**sizes, **options})


def initial(name: str) -> dict[str, Tensor]:
    return make_model(name).state_dict()


def test_the_same_bytes_with_any_workers_memory_and_cache(store: gs.Store, tmp_path: Path) -> None:
    digests = {
        make_folded(store, tmp_path / str(i), "mean", **options).generations[0].aggregates.manifest.digest  # type: ignore[union-attr]
        for i, options in enumerate([{"workers": 1}, {"workers": 3}, {"memory": "12MiB"}])
    }
    assert len(digests) == 1


def test_a_repeated_command_does_nothing_and_plain_rows_leave_no_trace(store: gs.Store, tmp_path: Path) -> None:
    first = make_folded(store, tmp_path, "mean")
    files = changed_at(tmp_path)
    assert make_folded(store, tmp_path, "mean").digest == first.digest
    assert changed_at(tmp_path) == files
    assert not list(tmp_path.rglob("plain"))
    with pytest.raises(ConfigError, match="aggregate was 'mean', now 'sum'"):
        make_folded(store, tmp_path, "sum")


def test_an_interrupted_one_continues_with_another_memory(
    store: gs.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What packing works in decides no byte of a pack that keeps no rows; it goes on with the cache that was begun."""
    whole = make_folded(store, tmp_path / "whole", "gcn")
    with monkeypatch.context() as patch:
        patch.setattr("gnnsys.storage.packing.write_aggregates", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_folded(store, tmp_path / "torn", "gcn", memory="12MiB")
    assert make_folded(store, tmp_path / "torn", "gcn").digest == whole.digest


def test_an_attempt_that_came_to_nothing_gives_way_to_another_layout(
    store: gs.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("gnnsys.storage.packing.write_aggregates", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_folded(store, tmp_path, "mean")
    assert gs.pack(store, tmp_path, **OPTIONS).verify(deep=True) == []
    assert not (tmp_path / "g000000/aggregates").exists()


def test_a_kill_right_after_the_aggregates_leaves_no_scratch(
    store: gs.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_folded(store, tmp_path, "mean")
    assert make_folded(store, tmp_path, "mean").verify(deep=True) == []
    assert not list(tmp_path.rglob(".work"))


def test_a_layer_may_write_into_what_it_is_given(store: gs.Store, tmp_path: Path) -> None:
    block = batches(make_folded(store, tmp_path, "mean"))[0].blocks[0]
    before = block.sums.clone()
    gs.aggregate(block, torch.zeros(block.num_dst, COLUMNS), "mean").add_(1)
    assert torch.equal(block.sums, before)


@pytest.mark.parametrize("memory", ["9MiB", "10MiB", "12MiB", "20MiB"])
@pytest.mark.parametrize("how", HOWS)
def test_a_plan_hands_out_no_more_memory_than_there_is(how: str, memory: str, store: gs.Store, plain: gs.Pack) -> None:
    speeds = Speeds(read=1e9, write=1e9, random=1e5, copy=1e10)
    made = gs.plan(plain.pool, store, memory=memory, layout="pre-aggregated", aggregate=how, speeds=speeds)
    assert made.shares["left"] >= 0
    assert (made.cache_hits > 0) == (made.cache_rows > 0)


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def changed_at(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_bytes_are_those_of_the_plan(folded: gs.Pack) -> None:
    chosen = next(c for c in folded.plan["candidates"] if c["layout"] == "pre-aggregated")
    with gs.Loader(folded, shuffle=False) as loader:
        read = [int(batch.io["bytes_read"]) for batch in loader]
        assert sum(read) == loader.planned_bytes(0) == chosen["bytes"]
    stored = [f for part in ("slots", "rows", "cache", "aggregates") for f in folded.path.rglob(f"{part}/*.bin")]
    data = sum(f.stat().st_size for f in stored if f.name.startswith(("rows", "slots", "runs")))
    assert data + folded.pool.manifest.counts["bytes"] == chosen["disk_bytes"]


def test_rows_from_the_store_make_it_a_plain_pack(plain: gs.Pack, folded: gs.Pack) -> None:
    for full, batch in zip(batches(plain), batches(folded, rows="memory"), strict=True):
        assert torch.equal(full.x, batch.x)
        assert torch.equal(full.edge_index, batch.edge_index)


def test_a_loader_continues_where_it_stood(folded: gs.Pack) -> None:
    expected = [batch.blocks[0].sums for batch in batches(folded)]
    with gs.Loader(folded, shuffle=False) as loader:
        next(iter(loader))
        state = loader.state_dict()
        assert loader.fanouts == FANOUTS
    with gs.Loader(folded, shuffle=False) as loader:
        loader.load_state_dict(state)
        assert all(torch.equal(a.blocks[0].sums, b) for a, b in zip(loader, expected[1:], strict=True))


def test_a_position_in_the_plain_pack_is_none_in_the_folded_one(plain: gs.Pack, folded: gs.Pack) -> None:
    with gs.Loader(plain) as one, gs.Loader(folded) as other, pytest.raises(ConfigError, match="aggregate"):
        other.load_state_dict(one.state_dict())


class Attention(nn.Module):
    def forward(self, h: Tensor, block: Block) -> Tensor:
        return h[: block.num_dst]


class Changing(nn.Module):
    """Says what it does not do."""

    aggregates_input = "mean"

    def forward(self, h: Tensor, block: Block) -> Tensor:
        return gs.aggregate(block, h * 2, "mean")


def stack(*layers: nn.Module) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x: Tensor, blocks: Any) -> Tensor:
            raise NotImplementedError

    return Net()


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (make_model("gcn", dropout=0.5), ["GcnLayer", "no linear aggregation"]),
        (make_model("sage"), ["SageLayer", "'mean'", "'sum'"]),
        (make_model("mlp"), ["DenseLayer"]),
        (stack(Attention(), Attention()), ["Attention", "no linear aggregation"]),
    ],
)
def test_a_model_that_it_cannot_serve_is_refused_by_name(
    model: nn.Module, names: list[str], store: gs.Store, tmp_path: Path
) -> None:
    pack = make_folded(store, tmp_path / "pack", "sum")
    with pytest.raises(ConfigError) as caught:
        gs.train(model, pack, task=gs.NodeClassification(CLASSES), epochs=1, out=tmp_path / "run")
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(ConfigError, match="GS-CFG-605"):
        fold(model, batches(pack)[0])


def test_a_layer_that_changes_its_rows_first_is_found_out(store: gs.Store, tmp_path: Path) -> None:
    batch = batches(make_folded(store, tmp_path, "mean"))[0]
    with pytest.raises(ConfigError, match="changes its rows"):
        fold(stack(Changing(), Attention()), batch)


def test_edges_that_are_not_there_cannot_be_listed(store: gs.Store, tmp_path: Path) -> None:
    batch = batches(make_folded(store, tmp_path, "mean"))[0]
    for listed in (lambda: batch.edge_index, batch.to_pyg, batch.to_dgl):
        with pytest.raises(ConfigError, match="GS-CFG-606"):
            listed()


@pytest.mark.parametrize("options", [{"hops": 1}, {"tables": ("x", "x")}])
def test_what_was_not_kept_cannot_be_loaded(options: dict[str, Any], store: gs.Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GS-CFG-414"):
        gs.Loader(make_folded(store, tmp_path, "mean"), **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layout": "pre-aggregated"}, "aggregate is missing"),
        ({"layout": "auto", "aggregate": "max"}, "'max'"),
        ({"layout": "pre-aggregated", "aggregate": "sum", "fanouts": []}, "no first layer"),
    ],
)
def test_what_cannot_be_folded_is_refused(options: dict[str, Any], named: str, store: gs.Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        gs.pack(store, tmp_path, **{**OPTIONS, **options})


def test_a_flipped_bit_is_found(store: gs.Store, tmp_path: Path) -> None:
    pack = make_folded(store, tmp_path, "mean")
    path = pack.generations[0].path / "aggregates" / "runs-00000.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert any("aggregates of batch 0" in problem for problem in gs.Pack.open(tmp_path).verify(deep=True))
    with pytest.raises(gs.GnnsysError, match="aggregates of batch 0"):
        batches(gs.Pack.open(tmp_path))


def test_aggregates_of_another_pack_are_found(store: gs.Store, tmp_path: Path) -> None:
    """Of the same pool and shape, with good checksums."""
    one, other = (make_folded(store, tmp_path / how, how) for how in ("mean", "sum"))
    a, b = (pack.generations[0].path / "aggregates" for pack in (one, other))
    a.rename(a.with_name("away"))
    b.rename(a)
    assert any("are not those of" in problem for problem in gs.Pack.open(tmp_path / "mean").verify())
    with pytest.raises(gs.GnnsysError, match="are not those of"):
        gs.Loader(tmp_path / "mean")


def test_the_planner_offers_it_and_chooses_what_ends_first(store: gs.Store, tmp_path: Path) -> None:
    pool = gs.sample(store, tmp_path / "pool", **{k: v for k, v in OPTIONS.items() if k != "memory"})
    slow = Speeds(read=1e3, write=1e9, random=1.0, copy=1e9)
    offered = gs.plan(pool, memory="64MiB", aggregate="mean", epochs=1000, speeds=slow)
    assert [c.layout for c in offered.candidates] == ["packed", "pre-aggregated", "direct"]
    assert offered.layout == min(offered.candidates, key=lambda c: c.total_s(1000) or 0).layout
    assert "pre-aggregated" not in [c.layout for c in gs.plan(pool, memory="64MiB", speeds=slow).candidates]
    fast = replace(slow, read=1e9, write=1.0, random=1e9)
    assert gs.plan(pool, memory="64MiB", aggregate="mean", epochs=1, speeds=fast).layout == "direct"


@pytest.mark.parametrize(
    ("model", "rest", "offered"),
    [("sage", (), True), ("gin", (), True), ("gcn", (), False), ("gcn", ("--dropout", "0"), True), ("mlp", (), False)],
)
def test_the_command_line_offers_it_when_the_model_declares_such_a_layer(
    model: str, rest: tuple[str, ...], offered: bool, store: gs.Store
) -> None:
    found = command("plan", str(store.path), "--fanouts", "4,3", "--model", model, *rest, "--json")
    layouts = [c["layout"] for c in json.loads(found.stdout)["candidates"]]
    assert ("pre-aggregated" in layouts) == offered


def test_the_command_line_refuses_by_name_what_cannot_be_folded(store: gs.Store, tmp_path: Path) -> None:
    found = command("pack", str(store.path), str(tmp_path / "p"), "--layout", "pre-aggregated", "--model", "gcn")
    assert found.returncode == ConfigError.exit_code
    assert "GcnLayer" in found.stderr
    assert not (tmp_path / "p").exists()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "gnnsys", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)
