"""Every verb on a graph of 300 nodes, as a function: what fault and kill tests run hundreds of times."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys as gs
from gnnsys import failpoints
from gnnsys.cli.inspect import problems_of
from gnnsys.errors import GnnsysError
from gnnsys.storage.checksums import digest_file

SOURCE = "synthetic:powerlaw:nodes=300,edges=1500,feat=4,classes=3,train=0.2,seed=3"
SAMPLED = {"fanouts": [4, 3], "batch_size": 16, "seed": 1, "memory": "64MiB"}


def _model() -> Any:
    return gs.build("sage", in_channels=4, hidden_channels=8, num_layers=2, out_channels=3, seed=0)


def _ingest(world: Path, out: Path) -> str:
    return gs.ingest(SOURCE, out=out).manifest.digest


def _sample(world: Path, out: Path) -> str:
    pool = gs.sample(gs.Store.open(world / "store"), out, **SAMPLED)
    pool.close()
    return pool.digest


def _pack(world: Path, out: Path) -> str:
    pack = gs.pack(gs.Store.open(world / "store"), out, **SAMPLED)
    pack.close()
    return pack.digest


def _add(world: Path, out: Path) -> str:
    """Into a copy of the Store, which is there as a whole or not at all."""
    if not out.exists():
        beside = out.with_name(f"{out.name}-copy-{os.getpid()}")
        shutil.copytree(world / "store", beside)
        beside.rename(out)
    table = np.arange(900, dtype=np.float32).reshape(300, 3)
    made = gs.add(out, tables={"emb": table}, splits={"mine": np.arange(0, 300, 7)})
    return "".join(digest_file(made.path / "added" / part) for part in ADDED)


ADDED = ("table-emb/tables/emb.bin", "split-mine/splits/mine.bin")


def _train(world: Path, out: Path) -> str:
    options = {"epochs": 2, "threads": 1, "workers": 1, "memory": "512MiB", "checkpoint_steps": 2}
    run = gs.train(_model(), gs.Pack.open(world / "pack"), task=gs.NodeClassification(3), out=out, **options)
    return str(run.result["weights_digest"])


def _predict(world: Path, out: Path) -> str:
    out.mkdir(exist_ok=True)
    gs.predict(world / "run", out / "p.csv", what="outputs", model=_model(), store=world / "store")
    return digest_file(out / "p.csv")


VERBS: Mapping[str, tuple[Callable[[Path, Path], str], int]] = {
    "ingest": (_ingest, 20),
    "add": (_add, 10),
    "sample": (_sample, 20),
    "pack": (_pack, 20),
    "train": (_train, 3),
    "predict": (_predict, 3),
}
"""Each verb, a function from (a folder with `store`, `pack` and `run`, the folder to make) to the digest of what it
made; and how many of its places are tried unless a test is told to try more."""


def places(verb: str, world: Path, out: Path) -> list[str]:
    """The failpoints that one run of `verb` passes, in order."""
    passed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "_rules", [None])
        patch.setattr(failpoints, "_due", lambda name: passed.append(name) or [])
        VERBS[verb][0](world, out)
    return passed


def assert_whole(verb: str, world: Path, out: Path, golden: str, what: object) -> None:
    """Repeating `verb` ends in the golden bytes, and leaves nothing else."""
    assert VERBS[verb][0](world, out) == golden, what
    assert verb == "predict" or problems_of(out, deep=True) == [], what
    assert [p for p in out.rglob("*") if ".tmp" in p.name or p.name == ".work"] == [], what


SECONDS = 120
"""After which a child counts as hung."""


def fork(work: Callable[[], object], seconds: float = 0) -> int:
    """Id of a forked process that does `work`, for `seconds` by itself, and exits as the command line would; to be
    waited for by `wait_for`."""
    if child := os.fork():
        return child
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(seconds) + SECONDS)
    status = 1
    try:
        work()
        status = 0
    except GnnsysError as error:
        status = error.exit_code
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait_for(child: int) -> int:
    """Exit code of a forked process, minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
