"""Train graph neural networks on graphs larger than memory.

    import gnnsys as gs
    store = gs.ingest("npz:cora.npz", "stores/cora", undirected=True)
    pack = gs.pack(store, "packs/cora", seeds="train", fanouts=[10, 5], batch_size=64)
    run = gs.train(model, gs.Loader(pack), task=gs.NodeClassification(store.num_classes), epochs=20, out="runs/a")

Names are loaded on first use; importing gnnsys does no work.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnsys.batch import Batch, Block
    from gnnsys.errors import GnnsysError
    from gnnsys.ingestion import ArraySource, add, ingest
    from gnnsys.loading.loader import Loader
    from gnnsys.models.aggregate import aggregate
    from gnnsys.models.registry import build
    from gnnsys.planning.packing import pack
    from gnnsys.planning.plan import Plan, estimate, plan
    from gnnsys.progress import show_progress
    from gnnsys.samplers.sample import sample
    from gnnsys.samplers.seeds import Seeds
    from gnnsys.storage.pack import Pack
    from gnnsys.storage.pool import Pool
    from gnnsys.storage.store import Store
    from gnnsys.storage.tables import MutableTable
    from gnnsys.training.label_propagation import label_propagation
    from gnnsys.training.matrix_tasks import MultilabelClassification, NodeRegression
    from gnnsys.training.run import Run, predict, train
    from gnnsys.training.tasks import NodeClassification, Task, balanced_weights

_HOME = {
    "ArraySource": "gnnsys.ingestion",
    "Batch": "gnnsys.batch",
    "Block": "gnnsys.batch",
    "GnnsysError": "gnnsys.errors",
    "Loader": "gnnsys.loading.loader",
    "MultilabelClassification": "gnnsys.training.matrix_tasks",
    "MutableTable": "gnnsys.storage.tables",
    "NodeClassification": "gnnsys.training.tasks",
    "NodeRegression": "gnnsys.training.matrix_tasks",
    "Pack": "gnnsys.storage.pack",
    "Plan": "gnnsys.planning.plan",
    "Pool": "gnnsys.storage.pool",
    "Run": "gnnsys.training.run",
    "Seeds": "gnnsys.samplers.seeds",
    "Store": "gnnsys.storage.store",
    "Task": "gnnsys.training.tasks",
    "add": "gnnsys.ingestion",
    "aggregate": "gnnsys.models.aggregate",
    "balanced_weights": "gnnsys.training.tasks",
    "build": "gnnsys.models.registry",
    "estimate": "gnnsys.planning.plan",
    "ingest": "gnnsys.ingestion",
    "label_propagation": "gnnsys.training.label_propagation",
    "pack": "gnnsys.planning.packing",
    "plan": "gnnsys.planning.plan",
    "predict": "gnnsys.training.run",
    "sample": "gnnsys.samplers.sample",
    "show_progress": "gnnsys.progress",
    "train": "gnnsys.training.run",
}

__all__ = [
    "ArraySource",
    "Batch",
    "Block",
    "GnnsysError",
    "Loader",
    "MultilabelClassification",
    "MutableTable",
    "NodeClassification",
    "NodeRegression",
    "Pack",
    "Plan",
    "Pool",
    "Run",
    "Seeds",
    "Store",
    "Task",
    "add",
    "aggregate",
    "balanced_weights",
    "build",
    "estimate",
    "ingest",
    "label_propagation",
    "pack",
    "plan",
    "predict",
    "sample",
    "show_progress",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gnnsys' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
