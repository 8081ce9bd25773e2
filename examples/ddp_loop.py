"""Your own training loop in plain PyTorch, alone or data-parallel from one pack, and continued where it stopped.

    python examples/ddp_loop.py packs/cora --batches-per-step 2 --out runs/alone
    torchrun --standalone --nproc-per-node 2 examples/ddp_loop.py packs/cora --batches-per-step 2 --out runs/both

Both give the same weights: rank r of W takes batches r, r + W, ... of the epoch, each exactly once, so W ranks share
the batches of a step. With two ranks and one batch each the weights are equal to the bit on a processor, with one
thread each: the two gradients are added once, in either order, and scaled by powers of two. With more ranks the sums
are rounded in another order and agree to the last digits. Dropout is left out: its draws would differ between ranks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import gnnsys as gs


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group("gloo")
    with gs.Loader(options.pack, rank=rank, world_size=world) as loader:
        train(loader, options, rank, world)
    if world > 1:
        dist.destroy_process_group()


def train(loader: gs.Loader, options: argparse.Namespace, rank: int, world: int) -> None:
    batch = loader.largest_batch()
    layers, columns = len(batch.blocks), batch.x.shape[1]
    net = gs.build("sage", in_channels=columns, hidden_channels=32, num_layers=layers, out_channels=options.classes)
    model = DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    saved, step = options.out / "checkpoint.pt", 0
    if saved.exists():
        step = restore(torch.load(saved, weights_only=True), net, optimizer, loader)
    per_rank = options.batches_per_step // world
    if per_rank < 1:
        sys.exit(f"--batches-per-step {options.batches_per_step} is less than one batch for each of {world} ranks")
    for epoch in range(loader.state_dict()["epoch"], options.epochs):
        batches = iter(loader)
        for _ in range(steps_left(loader, per_rank, world)):
            optimizer.zero_grad()
            one_step(model, batches, per_rank, world, spare=batch)
            optimizer.step()
            step += 1
            if rank == 0:
                replace(saved, {**states(net, optimizer, loader), "step": step})
            if step == options.stop_after:
                return
        loader.set_epoch(epoch + 1)
    if rank == 0:
        torch.save(net.state_dict(), options.out / "model.pt")


def one_step(model: nn.Module, batches: Iterator[gs.Batch], count: int, world: int, spare: gs.Batch) -> None:
    """Gradients of the mean loss over all ranks' batches of this step. A rank that has none left adds zeros."""
    own = [next(batches, None) for _ in range(count)]
    labelled = total(sum(int((b.y >= 0).sum()) for b in own if b is not None), world)
    for number, batch in enumerate(own):
        weight = 0.0 if batch is None else world / max(labelled, 1)  # DistributedDataParallel divides by `world`
        if isinstance(model, DistributedDataParallel):
            model.require_backward_grad_sync = number == count - 1
        (loss_of(model, batch or spare) * weight).backward()


def loss_of(model: nn.Module, batch: gs.Batch) -> Tensor:
    out = model(batch.x, batch.blocks)[: batch.batch_size]
    return cross_entropy(out, batch.y, ignore_index=-1, reduction="sum")


def total(value: int, world: int) -> int:
    """Sum over all ranks."""
    tensor = torch.tensor(value)
    if world > 1:
        dist.all_reduce(tensor)
    return int(tensor)


def steps_left(loader: gs.Loader, per_rank: int, world: int) -> int:
    """Of this epoch, until the rank with most batches has none left."""
    left = torch.tensor(len(loader) - loader.state_dict()["next"])
    if world > 1:
        dist.all_reduce(left, op=dist.ReduceOp.MAX)
    return -(-int(left) // per_rank)


def replace(path: Path, state: dict[str, object]) -> None:
    """Write beside it first: a kill in the middle leaves the earlier one whole."""
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    beside.replace(path)


def states(net: nn.Module, optimizer: torch.optim.Optimizer, loader: gs.Loader) -> dict[str, object]:
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}


def restore(saved: dict, net: nn.Module, optimizer: torch.optim.Optimizer, loader: gs.Loader) -> int:
    """Go back to where the first rank stood; all ranks have had as many batches, as far as they have any."""
    net.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    place = saved["loader"]
    loader.load_state_dict({**place, "next": min(place["next"], len(loader))})
    return int(saved["step"])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A plain PyTorch loop, data-parallel under torchrun.")
    parser.add_argument("pack", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches-per-step", type=int, default=2, help="over all ranks")
    parser.add_argument("--stop-after", type=int, default=0, help="steps, to try continuing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
