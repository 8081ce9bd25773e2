"""examples/ddp_loop.py: two ranks from one pack give the weights of one process, every batch once, also continued."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gnnsys as gs

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "ddp_loop.py"
SOURCE = "synthetic:powerlaw:nodes=300,edges=2000,feat=8,classes=3,train=0.4,valid=0.2,test=0.2"
ALONE, BOTH = (), ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> gs.Pack:
    """An odd number of batches: one rank has one more than the other."""
    folder = tmp_path_factory.mktemp("ddp")
    return gs.pack(gs.ingest(SOURCE, folder / "store"), folder / "pack", fanouts=[4, 3], batch_size=24)


def loop(launch: tuple[str, ...], pack: gs.Pack, out: Path, *options: str) -> None:
    command = [sys.executable, *launch, str(SCRIPT), str(pack.path), "--classes", "3", "--out", str(out), *options]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == 0, child.stderr


def weights(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(out / "model.pt", weights_only=True)
    return found


@pytest.mark.slow
def test_two_ranks_give_the_weights_of_one_process_to_the_bit_also_continued(pack: gs.Pack, tmp_path: Path) -> None:
    loop(ALONE, pack, tmp_path / "alone")
    loop(BOTH, pack, tmp_path / "both", "--stop-after", "4")
    assert not (tmp_path / "both" / "model.pt").exists()
    loop(BOTH, pack, tmp_path / "both")
    alone, both = weights(tmp_path / "alone"), weights(tmp_path / "both")
    assert alone.keys() == both.keys()
    assert all(torch.equal(alone[name], both[name]) for name in alone)


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_batch_is_delivered_once_over_the_ranks_also_after_a_resume(pack: gs.Pack, world_size: int) -> None:
    with gs.Loader(pack) as whole:
        expected = sorted(batch.index for batch in whole)
    assert len(expected) % 2 == 1
    seen: list[int] = []
    for rank in range(world_size):
        with gs.Loader(pack, rank=rank, world_size=world_size) as loader:
            seen.append(next(iter(loader)).index)
            place = loader.state_dict()
        with gs.Loader(pack, rank=rank, world_size=world_size) as loader:
            loader.load_state_dict(place)
            seen += [batch.index for batch in loader]
    assert sorted(seen) == expected
