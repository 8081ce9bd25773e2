"""DGL: import it beside a torch that it was not built for, and a Batch as its blocks.

The core of DGL 2.1 works with any later torch. Only GraphBolt, which it imports on the way, has a native library per
torch version, and none for those after 2.2.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from gnnsys.batch import Batch
from gnnsys.errors import MissingDependencyError

if TYPE_CHECKING:
    from dgl import DGLGraph

HAS_GRAPHBOLT = True
"""False once DGL was imported without its GraphBolt."""

_STUBBED = ("dgl.graphbolt", "dgl.graphbolt.base", "dgl.graphbolt.internal")


def import_dgl() -> ModuleType:
    """The module `dgl`; without GraphBolt, and with one warning, when that has no library for the torch that runs.

    Raises:
        MissingDependencyError: DGL is not installed, or fails for another reason.
    """
    global HAS_GRAPHBOLT
    if "dgl" in sys.modules:
        return sys.modules["dgl"]
    found = importlib.util.find_spec("dgl")
    if found is None or not found.submodule_search_locations:
        raise _missing("is not installed")
    if not _has_graphbolt(Path(next(iter(found.submodule_search_locations)))):
        HAS_GRAPHBOLT = False
        sys.modules.update({name: _Stub(name) for name in _STUBBED})
        warnings.warn(f"dgl is used without GraphBolt, which has no build for torch {torch.__version__}", stacklevel=2)
    os.environ.setdefault("DGLBACKEND", "pytorch")  # else it writes a file into the user's home
    try:
        return import_module("dgl")
    except Exception as error:  # anything may go wrong in a package that was built for something else
        for name in [name for name in sys.modules if name.split(".")[0] == "dgl"]:
            del sys.modules[name]
        raise _missing(f"cannot be imported ({type(error).__name__}: {error})") from error


def batch_to_dgl(batch: Batch) -> list[DGLGraph]:
    """DGL blocks, outermost first: `blocks[0].srcdata["_ID"]` is `n_id`, destinations are a prefix of sources;
    `edata["_ID"]` is `e_id` when the batch has it.

    Raises:
        MissingDependencyError: DGL is not installed.
        ConfigError: see `Batch.sampled_blocks`.
    """
    blocks, dgl = batch.sampled_blocks, import_dgl()
    made = []
    for block in blocks:
        sources = block.indices.to(torch.int64), block.dst_index()
        made.append(dgl.create_block(sources, num_src_nodes=block.num_src, num_dst_nodes=block.num_dst))
        made[-1].srcdata["_ID"] = batch.n_id[: block.num_src]
        made[-1].dstdata["_ID"] = batch.n_id[: block.num_dst]
        if block.e_id is not None:
            made[-1].edata["_ID"] = block.e_id
    return made


class _Stub(ModuleType):
    """Stands for a module that is not there: every name in it is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _has_graphbolt(folder: Path) -> bool:
    release = torch.__version__.split("+")[0]
    return any((folder / "graphbolt").glob(f"*graphbolt*_{release}.*"))


def _missing(why: str) -> MissingDependencyError:
    return MissingDependencyError("GS-DEP-002", f"the package dgl {why}", hint='pip install "gnnsys[dgl]"')
