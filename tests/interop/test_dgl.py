"""DGL blocks are views of a Batch; without DGL the error says so."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gnnsys.errors import MissingDependencyError
from gnnsys.interop import dgl as adapter

CHECK = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
import gnnsys as gs
source = "synthetic:powerlaw:nodes=2000,edges=20000,feat=4,classes=2,train=0.2,seed=1"
store = gs.ingest(source, sys.argv[1], memory="64MiB")
with gs.Loader(store, fanouts=[5, 3], batch_size=32, edge_ids=True) as loader:
    batch = next(iter(loader))
blocks = batch.to_dgl()
assert len(blocks) == 2
for block, ours in zip(blocks, batch.blocks, strict=True):
    assert (block.num_src_nodes(), block.num_dst_nodes()) == (ours.num_src, ours.num_dst)
    assert torch.equal(block.srcdata["_ID"][: ours.num_dst], block.dstdata["_ID"])
    into, sources = block.edges()[1], block.edges()[0]
    assert torch.equal(sources, ours.indices.long()) and torch.equal(into, ours.dst_index())
    assert torch.equal(block.edata["_ID"], ours.e_id)
import dgl
graph = dgl.graph((store.graph.indices, np.repeat(np.arange(2000), np.diff(store.graph.indptr))), num_nodes=2000)
graph.ndata["feat"] = torch.from_numpy(store.table().read(np.arange(2000)))
graph.ndata["label"] = torch.from_numpy(np.array(store.labels()))
graph.ndata["train_mask"] = torch.from_numpy(np.isin(np.arange(2000), store.split("train")))
again = gs.ingest(graph, sys.argv[1] + "-dgl", memory="64MiB")
ours, theirs = ({f.path: f.digest for f in s.manifest.files if f.path[-1] == "n"} for s in (store, again))
assert theirs.items() <= ours.items() and len(theirs) == 5, theirs
hetero = dgl.heterograph({("a", "b", "c"): ([0], [0])})
try:
    gs.ingest(hetero, sys.argv[1] + "-hetero")
except gs.GnnsysError as error:
    assert error.code == "GS-IN-151", error
else:
    raise AssertionError("several types were taken")
assert torch.equal(blocks[0].srcdata["_ID"], batch.n_id) and torch.equal(blocks[-1].dstdata["_ID"], batch.seeds)
"""


def test_without_dgl_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.delitem(sys.modules, "dgl", raising=False)
    with pytest.raises(
        MissingDependencyError, match=r"GS-DEP-002: the package dgl is not installed(?s:.*)gnnsys\[dgl\]"
    ):
        adapter.import_dgl()


@pytest.mark.skipif(importlib.util.find_spec("dgl") is None, reason="dgl is not installed (make bench installs it)")
def test_blocks_are_those_of_the_batch(tmp_path: Path) -> None:
    # in a process of its own: importing dgl changes warnings, threads and the environment
    child = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path / "s")], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
