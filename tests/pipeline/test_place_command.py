"""`gnnsys place`: a profile of the real model on the real batch, and its words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError, MemoryBudgetError
from gnnsys.training.placing import place_training
from gnnsys.training.run import train_from_config
from tests.pipeline.conftest import environment


def test_a_pack_is_profiled_layer_by_layer(pack: gs.Pack) -> None:
    found = place_training(pack.path, {"model": "sage", "hidden": 16, "micro_batches": 4}, 4)
    batch = gs.Loader(pack).largest_batch()
    assert [layer.sent_bytes for layer in found.work.layers] == [
        block.num_dst * width * 4 for block, width in zip(batch.blocks, (16, 16, 16, 4), strict=True)
    ]
    assert [layer.parameter_bytes for layer in found.work.layers] == [4 * (2 * a * b + b) for a, b in WIDTHS]
    assert all(layer.forward_s > 0 and layer.backward_s > 0 for layer in found.work.layers)
    narrow = place_training(pack.path, {"model": "sage", "hidden": 16, "micro_batches": 4, "precision": "bf16"}, 1)
    assert narrow.work.layers[0].sent_bytes * 2 == found.work.layers[0].sent_bytes
    assert {(each.stages, each.replicas) for each in found.candidates} == {
        (1, 1),
        (1, 2),
        (1, 4),
        (2, 1),
        (2, 2),
        (3, 1),
        (4, 1),
    }


WIDTHS = [(24, 16), (16, 16), (16, 16), (16, 4)]


def test_chunks_count_what_they_keep(pack: gs.Pack) -> None:
    store = gs.Store.open(pack.path.parent / "store")
    options: dict[str, Any] = {"model": "gcnii", "hidden": 16, "layers": 4, "chunks": 6}
    found = place_training(store.path, options, 2)
    rows = store.num_nodes * 16 * 4
    assert found.work.fixed_bytes == (3 * rows,) * 4
    assert found.work.num_micro == 6
    one = place_training(store.path, {**options, "refresh": 1}, 2)
    assert one.work.fixed_bytes == (2 * rows,) * 4
    assert [each.name for each in found.candidates] == ["one device", "2 stages"]
    assert found.candidates[1].step_bytes == pytest.approx(2 * 2 * rows, rel=0.2)  # the largest chunk stands for all


def test_the_command_says_what_it_would_choose(pack: gs.Pack) -> None:
    command = [sys.executable, "-m", "gnnsys", "place", str(pack.path), "--devices", "2", "--micro-batches", "2"]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=environment())
    found = json.loads(told.stdout)
    assert found["chosen"]["name"] in {each["name"] for each in found["candidates"]}
    assert found["why"]
    words = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    assert "data parallel x 2" in words
    assert max(len(line) for line in words.splitlines()) <= 120


def test_what_fits_is_what_training_takes(pack: gs.Pack) -> None:
    options = {"model": "sage", "hidden": 16, "memory": "8MiB", "epochs": 1}
    assert place_training(pack.path, options, 1).chosen is None
    with pytest.raises(MemoryBudgetError):
        train_from_config(pack.path, options, pack.path.parent / "run")


def test_no_devices_are_refused(pack: gs.Pack) -> None:
    with pytest.raises(ConfigError, match="0 devices"):
        place_training(pack.path, {"model": "sage"}, 0)


def test_layers_and_hops_must_be_as_many(pack: gs.Pack, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(TWO_LAYERS)
    with pytest.raises(ConfigError, match="the model has 2 layers, a batch 4 hops"):
        place_training(pack.path, {"model": f"{tmp_path / 'net.py'}:Net"}, 1)


TWO_LAYERS = """
import torch, gnnsys as gs

class Layer(torch.nn.Linear):
    def forward(self, h, block):
        return super().forward(gs.aggregate(block, h, "mean"))

class Net(torch.nn.Module):
    def __init__(self, in_channels, out_channels, **_):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(in_channels, 8), Layer(8, out_channels)])

    def forward(self, x, blocks):
        for layer, block in zip(self.layers, blocks):
            x = layer(x, block)
        return x
"""
