"""As in a notebook: Ctrl-C in a cell, cells run twice, loops left half-way; nothing stays behind and work goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import gnnsys as gs
from gnnsys.models.registry import build

SOURCE = "synthetic:powerlaw:nodes=400,edges=3000,feat=8,classes=3,train=0.4,valid=0.2,test=0.2"
SIZES = {"in_channels": 8, "hidden_channels": 8, "num_layers": 2, "out_channels": 3}

CELLS = """
import json, os, signal, sys, threading
import gnnsys as gs
from gnnsys.models.registry import build

folder, where = sys.argv[1:]
handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
threads = set(threading.enumerate())

def interrupt(stage, done, _total):
    # A cell is stopped by SIGINT to the kernel's process, after a checkpoint of the first epoch.
    if stage == "train" and done > 1.5 and not interrupted:
        interrupted.append(True)
        os.kill(os.getpid(), signal.SIGINT)

def train(out, progress=lambda *_: None):
    model = build("sage", **%(sizes)s, dropout=0.3)
    return gs.train(model, folder + "/pack", task=gs.NodeClassification(3), epochs=3, threads=1, memory="512MiB",
                    out=folder + "/" + out, progress=progress)

interrupted = []
caught = None
if where == "main":
    try:
        train("run", interrupt)
    except KeyboardInterrupt:
        caught = "KeyboardInterrupt"
else:
    # Signals reach the main thread; the cell runs in another one and is not stopped by them.
    failed = []
    def cell():
        try:
            train("run")
        except BaseException as error:
            failed.append(repr(error))
    thread = threading.Thread(target=cell)
    thread.start(); thread.join()
    caught = failed
left = sorted(t.name for t in set(threading.enumerate()) - threads)
same = handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
again = train("run").result
whole = train("whole").result
print(json.dumps({"caught": caught, "left": left, "same": same, "resumed": again["resumed_from"],
                  "equal": again["weights_digest"] == whole["weights_digest"]}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebook")
    store = gs.ingest(SOURCE, path / "store")
    gs.pack(store, path / "pack", fanouts=[4, 3], batch_size=16)
    return path


def cells(folder: Path, where: str) -> dict[str, Any]:
    """What a child process that runs the cells found; SIGINT is as Python sets it, whatever the parent did."""
    child = subprocess.run(
        [sys.executable, "-c", CELLS % {"sizes": SIZES}, str(folder), where],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def test_ctrl_c_in_a_cell_leaves_nothing_behind_and_the_cell_goes_on_when_run_again(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "pack").symlink_to(folder / "pack")
    (tmp_path / "store").symlink_to(folder / "store")
    found = cells(tmp_path, "main")
    assert found["caught"] == "KeyboardInterrupt"
    assert (found["left"], found["same"], found["equal"]) == ([], True, True)
    assert found["resumed"]


def test_a_cell_in_a_thread_trains_without_touching_signals(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").symlink_to(folder / "pack")
    (tmp_path / "store").symlink_to(folder / "store")
    found = cells(tmp_path, "thread")
    assert (found["caught"], found["left"], found["same"], found["equal"]) == ([], [], True, True)


def train(folder: Path, out: Path, source: Any = None) -> gs.Run:
    options: dict[str, Any] = {"epochs": 2, "threads": 1, "memory": "512MiB"}
    model = build("sage", **SIZES)  # type: ignore[arg-type]
    return gs.train(model, source or folder / "pack", task=gs.NodeClassification(3), out=out, **options)


def test_training_twice_into_the_same_folder_gives_the_run_that_is_there(folder: Path, tmp_path: Path) -> None:
    first = train(folder, tmp_path / "run")
    assert train(folder, tmp_path / "run").result == first.result


def test_a_loader_made_twice_and_one_left_half_way_change_nothing(folder: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loader = gs.Loader(folder / "pack")
    whole = [batch.n_id.tolist() for batch in loader]
    loader = gs.Loader(folder / "pack")
    for batch in loader:
        first = batch.n_id.tolist()
        break
    loader = gs.Loader(folder / "pack")
    assert first == whole[0]
    assert [batch.n_id.tolist() for batch in loader] == whole
    loader.close()
    left = set(threading.enumerate()) - before
    assert {t.name for t in left} == set()
    assert train(folder, tmp_path / "a").result["losses"] == train(folder, tmp_path / "b").result["losses"]
