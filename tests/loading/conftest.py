"""One small graph as Store, Pool and Packs of both layouts, and an oracle that delivers batches from memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.batch import Batch
from gnnsys.keys import derive, permutation
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.sample import sample
from gnnsys.samplers.seeds import Seeds, as_seeds
from gnnsys.samplers.tree import TreeSampler
from gnnsys.storage.blob import PoolBatch
from gnnsys.storage.hint import write_hint
from gnnsys.storage.pack import FORMAT, VERSION, Pack
from gnnsys.storage.packing import write_generation
from gnnsys.storage.pool import Pool
from gnnsys.storage.stage import Stage
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays

NODES, EDGES, CLASSES = 500, 4000, 3
FANOUTS, BATCH, SEED = [4, 3], 24, 7
CACHED = 60


def make_store(folder: Path, x: np.ndarray | None, *, nodes: int = NODES, edges: int = EDGES) -> Store:
    """A random graph; node 0 is isolated, one node in three is a training seed."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(1, nodes, (2, edges)) if edges else np.empty((2, 0), dtype=np.int64)
    splits = {"train": np.arange(0, nodes, 3), "valid": np.arange(1, nodes, 3)}
    return ingest_arrays(folder, src, dst, nodes, x=x, y=rng.integers(0, CLASSES, nodes), splits=splits)


def make_pack(
    folder: Path, store: Store, *, layout: str = "packed", cache_rows: int = CACHED, seeds: Any = "train"
) -> Pack:
    """A Pack with exactly that many cached rows, whatever a plan would say."""
    part = folder / "g000000"
    pool = sample(store, part / "pool", seeds=seeds, fanouts=FANOUTS, batch_size=BATCH, seed=SEED)
    counts = np.bincount(np.concatenate([pool.ids(k) for k in range(len(pool))]), minlength=store.num_nodes)
    hottest = np.argsort(-counts, kind="stable")[:cache_rows]
    generation = write_generation(
        part,
        pool,
        store,
        layout=layout,
        cache_rows=cache_rows if layout == "packed" else 0,
        hottest=lambda: hottest,
        memory=64 << 20,
    )
    with Stage(folder, FORMAT, VERSION, inputs={"store": store.id}, parameters={}, allow={"g000000"}) as stage:
        if stage.finished is None:
            stage.commit(counts={"generations": [{"name": "g000000", "digest": generation.digest}]}, files=())
    write_hint(folder, store.path, store.id)
    return Pack.open(folder)


@dataclass
class World:
    """Everything a Loader can be opened on, made from the same graph, seeds and seed."""

    store: Store
    pool: Pool
    packed: Pack
    direct: Pack
    x: np.ndarray
    y: np.ndarray

    def oracle(self, epoch: int = 0) -> list[PoolBatch]:
        """The batches of an epoch in order, sampled here and now."""
        batches = seed_batches(as_seeds(self.store, "train"), BATCH, SEED)
        sampler = TreeSampler(self.store.graph, FANOUTS, seed=SEED, labels=self.store.labels())
        return [sampler.sample(batches[int(k)]) for k in permutation(len(batches), derive(0, epoch))]


def make_world(folder: Path, x: np.ndarray, **options: Any) -> World:
    store = make_store(folder / "store", x, nodes=len(x), **options)
    labels = store.labels()
    assert labels is not None
    return World(
        store=store,
        pool=sample(store, folder / "pool", seeds="train", fanouts=FANOUTS, batch_size=BATCH, seed=SEED),
        packed=make_pack(folder / "packed", store),
        direct=make_pack(folder / "direct", store, layout="direct"),
        x=x,
        y=np.asarray(labels),
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    x = np.random.default_rng(1).normal(size=(NODES, 5)).astype(np.float32)
    return make_world(tmp_path_factory.mktemp("world"), x)


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory, world: World) -> Pack:
    """Pairs in the order of time, never shuffled."""
    pairs = np.random.default_rng(2).integers(1, NODES, (100, 2))
    seeds = Seeds.links(pairs, t=np.arange(100) * 10, order="fixed", negatives=1, exclude="none")
    return make_pack(tmp_path_factory.mktemp("events") / "pack", world.store, seeds=seeds)


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of a Batch by the path of its field."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, tuple):
        return {k: t for i, v in enumerate(value) for k, t in tensors(v, f"{name}[{i}]").items()}
    if isinstance(value, dict):
        return {k: t for key, v in value.items() for k, t in tensors(v, f"{name}[{key}]").items()}
    if hasattr(value, "__dataclass_fields__"):
        return {k: t for f in fields(value) for k, t in tensors(getattr(value, f.name), f"{name}.{f.name}").items()}
    return {}


def same(a: Batch, b: Batch) -> bool:
    """Equal in every bit, index and count; what it cost may differ."""
    one, other = tensors(a), tensors(b)
    return (
        (a.index, a.pool_index, a.num_nodes, one.keys()) == (b.index, b.pool_index, b.num_nodes, other.keys())
        and all(t.dtype == other[name].dtype for name, t in one.items())
        and all(t.numpy().tobytes() == other[name].numpy().tobytes() for name, t in one.items())
    )


@pytest.fixture
def no_threads_left() -> Callable[[], None]:
    """Fails unless every loader thread is gone within a second."""

    def check() -> None:
        deadline = time.monotonic() + 1
        while alive := [t.name for t in threading.enumerate() if t.name.startswith(("gnnsys-load", "gnnsys-direct"))]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.005)

    return check
