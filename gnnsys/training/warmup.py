"""Warm-up: the whole way from a Store to scores on an 8-node graph, before memory growth is measured.

What a process loads once - kernels from numba's cache or compiled now, torch's lazy parts, code of the C library - is
no growth of the work. Kernels are compiled per argument type, so the same path is walked, not a likeness of it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from gnnsys.budget import Budget
from gnnsys.ingestion import ArraySource, ingest
from gnnsys.loading.loader import Loader
from gnnsys.models.registry import build
from gnnsys.planning.calibrate import Speeds
from gnnsys.planning.packing import pack
from gnnsys.training.config import TrainConfig
from gnnsys.training.layerwise import layerwise
from gnnsys.training.step import StepWork
from gnnsys.training.tasks import NodeClassification
from gnnsys.training.tensors import encode, split_optimizer

_ROWS = ("packed", "direct", "mapped", "memory")
_ANY_SPEEDS = Speeds(1.0, 1.0, 1.0, 1.0)


def warm_up(device: torch.device) -> None:
    """Make a tiny Store and Pack in the temporary folder, read it every way, take steps, infer layer by layer."""
    ids = np.arange(8)
    x, splits = np.ones((8, 4), dtype=np.float32), {"train": ids[:4]}
    model = build("sage", in_channels=4, hidden_channels=4, num_layers=2, out_channels=2, dropout=0.5).to(device)
    optimizer = torch.optim.Adam(model.parameters())
    work = StepWork(model, NodeClassification(2), TrainConfig(), device)
    with tempfile.TemporaryDirectory(prefix="gnnsys-warm-up-") as folder:
        source = ArraySource((ids, ids[::-1]), x=x, y=ids % 2, splits=splits)
        store = ingest(source, Path(folder) / "store")
        packed = pack(store, Path(folder) / "pack", fanouts=[2, 2], batch_size=4, speeds=_ANY_SPEEDS)
        for rows in _ROWS:
            with Loader(packed, rows=rows, device=device) as loader:
                for batch in loader:
                    work.rehearse(batch)
                    optimizer.step()
        with Loader(store, fanouts=[2, 2], batch_size=4) as loader:
            next(iter(loader))
        layerwise(model, store, nodes=ids, budget=Budget(1 << 28), scratch=Path(folder))
    encode(split_optimizer(optimizer.state_dict(), [name for name, _ in model.named_parameters()])[0])
