"""Seam of the layer pipeline: two Loaders of one pack, each reading only the hops of its own layers."""

import pytest
import torch

import gnnsys as gs


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    folder = tmp_path_factory.mktemp("seam")
    source = "synthetic:powerlaw:nodes=3000,edges=30000,feat=24,classes=4,train=0.2,seed=1"
    store = gs.ingest(source, folder / "store", memory="64MiB")
    return gs.pack(store, folder / "pack", seeds="train", fanouts=[5, 4, 3], batch_size=64, memory="64MiB", seed=0)


def test_each_stage_gets_its_own_blocks_and_nothing_else(pack: gs.Pack) -> None:
    with gs.Loader(pack, with_y=False) as first, gs.Loader(pack, hops=1, with_x=False) as last:
        for whole, inner in zip(first, last, strict=True):
            assert whole.y is None
            assert inner.x is None
            assert inner.index == whole.index
            assert len(inner.blocks) == 1
            assert torch.equal(inner.blocks[0].indices, whole.blocks[-1].indices)
            assert torch.equal(inner.blocks[0].degree, whole.blocks[-1].degree)
            assert torch.equal(inner.seeds, whole.seeds)


def test_a_later_stage_reads_fewer_bytes_exactly_as_planned(pack: gs.Pack) -> None:
    read = {}
    for hops in (1, 2, 3):
        with gs.Loader(pack, hops=hops, with_x=False) as loader:
            read[hops] = sum(batch.io["bytes_read"] for batch in loader)
            assert read[hops] == loader.planned_bytes(0)
    assert read[1] < read[2] < read[3]


def test_cutting_a_model_between_two_loaders_changes_no_bit(pack: gs.Pack) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(24, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)]
    with (
        gs.Loader(pack) as whole,
        gs.Loader(pack, with_y=False) as first,
        gs.Loader(pack, hops=1, with_x=False) as last,
    ):
        for one, outer, inner in zip(whole, first, last, strict=True):
            assert isinstance(one.x, torch.Tensor)
            assert isinstance(outer.x, torch.Tensor)
            expected = one.x
            for layer, block in zip(layers, one.blocks, strict=True):
                expected = layer(gs.aggregate(block, expected, "mean"))
            sent = outer.x
            for layer, block in zip(layers[:2], outer.blocks[:2], strict=True):
                sent = layer(gs.aggregate(block, sent, "mean"))
            assert torch.equal(layers[2](gs.aggregate(inner.blocks[0], sent, "mean")), expected)


def test_both_loaders_follow_one_order_in_every_epoch(pack: gs.Pack) -> None:
    with gs.Loader(pack, seed=5) as first, gs.Loader(pack, seed=5, hops=1, with_x=False) as last:
        for epoch in (0, 1):
            first.set_epoch(epoch)
            last.set_epoch(epoch)
            assert [b.index for b in first] == [b.index for b in last]
