"""examples/lightning_module.py: Lightning on our loader ends in the weights of a plain loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import gnnsys as gs

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "lightning_module.py"
SOURCE = "synthetic:powerlaw:nodes=300,edges=2000,feat=8,classes=3,train=0.4,valid=0.2,test=0.2"


@pytest.mark.usefixtures("one_thread")
def test_lightning_ends_in_the_weights_of_a_plain_loop(tmp_path: Path) -> None:
    pack = gs.pack(gs.ingest(SOURCE, tmp_path / "store"), tmp_path / "pack", fanouts=[4, 3], batch_size=24)
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(pack.path), "--classes", "3", "--epochs", "2"]
    child = subprocess.run(
        [*command, "--out", str(tmp_path / "model.pt")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    net = gs.build("sage", in_channels=8, hidden_channels=64, num_layers=2, out_channels=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with gs.Loader(pack) as loader:
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                optimizer.zero_grad()
                cross_entropy(net(batch.x, batch.blocks), batch.y, ignore_index=-1).backward()
                optimizer.step()
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.allclose(found[name], weights, atol=1e-6) for name, weights in net.state_dict().items())
