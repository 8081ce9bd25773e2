"""Everything done wrong at the prompt: one clear line, a stable code, an exit code; nothing on stdout, no traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.cli.common import Stopped
from gnnsys.cli.main import _run
from gnnsys.models.sage import Sage
from gnnsys.storage.lock import WriterLock
from gnnsys.storage.manifest import Manifest, read_manifest, write_manifest

EDGES = np.array([[0, 1], [1, 2], [2, 0], [3, 1]])
TRAINING = ("--epochs", "1", "--hidden", "4", "--threads", "1", "--memory", "512MiB", "-q")


class Prompt:
    """Runs commands in this process and looks at what a user would see."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        # Hints show what was typed.
        monkeypatch.setattr("sys.argv", ["gnnsys"])

    def run(self, *arguments: object) -> tuple[int, str, str]:
        code = _run([str(a) for a in arguments])
        out, err = self._capsys.readouterr()
        return code, out, err

    def refuses(self, exit_code: int, code: str, fragment: str, *arguments: object, stdout: bool = False) -> str:
        """The command fails as told; returns what it said."""
        found, out, err = self.run(*arguments)
        assert (found, err.startswith(f"error {code}: ")) == (exit_code, True), (found, err)
        assert fragment in err
        assert "Traceback" not in err
        assert stdout or out == ""
        return err

    def succeeds(self, *arguments: object) -> dict[str, Any]:
        """The command ends well and prints exactly one JSON object."""
        found, out, err = self.run(*arguments, "--json")
        assert found == 0, err
        result = json.loads(out)
        assert isinstance(result, dict)
        return result


@pytest.fixture
def prompt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Prompt:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)
    return Prompt(capsys, monkeypatch)


def source(**keys: object) -> str:
    values = {"nodes": 60, "edges": 400, "feat": 8, "classes": 3, "train": 0.4, "valid": 0.2, "test": 0.2, **keys}
    return "synthetic:powerlaw:" + ",".join(f"{k}={v}" for k, v in values.items())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished store, pool, pack and run, all small and all good."""
    folder = tmp_path_factory.mktemp("made")
    sampling = ("--fanouts", "3,2", "--batch-size", "8", "-q")
    commands = [
        ("ingest", source(), folder / "store", "-q"),
        ("sample", folder / "store", folder / "pool", *sampling),
        ("pack", folder / "store", folder / "pack", *sampling, "--memory", "64MiB"),
        ("train", folder / "pack", "--out", folder / "run", *TRAINING),
    ]
    for command in commands:
        assert _run([str(a) for a in command]) == 0
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same artefacts, to be spoilt."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def npz(**arrays: Any) -> Callable[[Path], str]:
    """Prepares an archive in a folder and returns the source that names it."""

    def prepare(folder: Path) -> str:
        np.savez_compressed(folder / "g.npz", **arrays)
        return f"npz:{folder / 'g.npz'}"

    return prepare


def edges(text: bytes) -> Callable[[Path], str]:
    def prepare(folder: Path) -> str:
        (folder / "e.csv").write_bytes(text)
        return f"edges:{folder / 'e.csv'}"

    return prepare


def edges_npy(array: np.ndarray, cut: int = 0) -> Callable[[Path], str]:
    def prepare(folder: Path) -> str:
        buffer = io.BytesIO()
        np.save(buffer, array)
        data = buffer.getvalue()
        (folder / "e.npy").write_bytes(data[: len(data) - cut])
        return f"edges:{folder / 'e.npy'}"

    return prepare


def plain(text: str) -> Callable[[Path], str]:
    return lambda _folder: text


def folder_as(kind: str) -> Callable[[Path], str]:
    return lambda folder: f"{kind}:{folder}"


def pipe_as(kind: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        os.mkfifo(folder / "pipe")
        return f"{kind}:{folder / 'pipe'}"

    return make


def cut_off_npz(folder: Path) -> str:
    np.savez(folder / "g.npz", edges=EDGES)
    data = (folder / "g.npz").read_bytes()
    (folder / "g.npz").write_bytes(data[: len(data) // 2])
    return f"npz:{folder / 'g.npz'}"


def zip_bomb(folder: Path) -> str:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1 << 20, 2), dtype=np.int64))
    with zipfile.ZipFile(folder / "g.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("edges.npy", buffer.getvalue())
    return f"npz:{folder / 'g.npz'}"


def huge_shape(folder: Path) -> str:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 2)}\n"
    (folder / "e.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16))
    return f"edges:{folder / 'e.npy'}"


X = np.ones((4, 3), dtype=np.float32)
NANS = np.where(np.arange(4)[:, None] >= 2, np.float32("nan"), X)
GRAPH = {"edges": EDGES, "node_features": X, "node_labels": np.array([0, 1, 0, 1])}


def masks(train: list[bool], valid: list[bool]) -> dict[str, np.ndarray]:
    return {"train_masks": np.array([train]), "val_masks": np.array([valid])}


INGEST: list[tuple[str, Callable[[Path], str], tuple[str, ...], int, str, str]] = [
    ("unknown source", plain("nqz:g.npz"), (), 3, "GS-CFG-104", "did you mean npz:?"),
    ("source without a kind", plain("g.npz"), (), 3, "GS-CFG-104", "Write npz:"),
    ("data set without a kind", plain("ogbn-arxiv"), (), 3, "GS-CFG-104", "Write ogb:ogbn-arxiv."),
    ("largest data set without a kind", plain("mag240m:root"), (), 3, "GS-CFG-104", "Write ogb:mag240m:root."),
    ("file of another kind", plain("npx:g.npz"), (), 3, "GS-CFG-104", "synthetic:powerlaw:"),
    ("source of no known suffix", plain("g.parquet"), (), 3, "GS-CFG-104", "synthetic:powerlaw:"),
    ("missing npz", plain("npz:nowhere.npz"), (), 5, "GS-IN-100", "nowhere.npz: no such file"),
    ("missing edges", plain("edges:nowhere.csv"), (), 5, "GS-IN-100", "nowhere.csv: no such file"),
    ("folder for an archive", folder_as("npz"), (), 5, "GS-IN-100", "not a regular file"),
    ("folder for edges", folder_as("edges"), (), 5, "GS-IN-100", "not a regular file"),
    ("pipe for an archive", pipe_as("npz"), (), 5, "GS-IN-100", "not a regular file"),
    ("pipe for edges", pipe_as("edges"), (), 5, "GS-IN-100", "not a regular file"),
    ("malformed memory", plain(source()), ("--memory", "4 gigs"), 3, "GS-CFG-001", "'4 gigs' is not a size"),
    ("negative memory", plain(source()), ("--memory", "-4GiB"), 3, "GS-CFG-001", "'-4GiB' is not a size"),
    ("too little memory", plain(source()), ("--memory", "1MiB"), 8, "GS-MEM-101", "At least 16.0 MiB"),
    ("no threads", plain(source()), ("--workers", "0"), 3, "GS-CFG-003", "workers is 0"),
    ("unknown key", plain(source(clases=3)), (), 3, "GS-CFG-110", "Did you mean classes?"),
    ("a key twice", plain(source() + ",nodes=7"), (), 3, "GS-CFG-114", "nodes is given twice"),
    ("seed of no draw", plain(source()), ("--split-seed", "3"), 3, "GS-CFG-108", "--split random:60/20/20"),
    ("NaN as mean", plain(source()), ("--on-nan", "mean"), 3, "GS-CFG-100", "expected error or zero"),
    ("infinite nodes", plain(source(nodes="inf")), (), 3, "GS-CFG-111", "nodes='inf'"),
    ("unknown split", plain(source()), ("--split", "halves"), 3, "GS-CFG-101", "per-class:20/30"),
    ("negative id", edges(b"0,1\n1,-2\n"), (), 5, "GS-IN-101", "node id -2 is negative"),
    ("id beyond N", npz(edges=EDGES + 1, node_features=X), (), 5, "GS-IN-102", "outside [0, 4)"),
    ("float ids in text", edges(b"0.0,1.0\n1.0,2.0\n"), (), 5, "GS-IN-103", "e.csv row 1"),
    ("float ids in npy", edges_npy(EDGES * 0.5), (), 5, "GS-IN-104", "expected integers"),
    ("NUL bytes", edges(b"0,1\n1,\0\n"), (), 5, "GS-IN-109", "row 2 holds a NUL byte"),
    ("nothing but NUL", edges(b"\0\0\0\0"), (), 5, "GS-IN-109", "holds a NUL byte"),
    ("truncated npz", cut_off_npz, (), 5, "GS-IN-113", "not a .npz archive"),
    ("truncated npy", edges_npy(EDGES, cut=8), (), 5, "GS-IN-112", "cut off or damaged"),
    ("objects", npz(edges=np.array([[0, None]])), (), 5, "GS-IN-111", "allow_pickle=False"),
    ("objects in npy", edges_npy(np.array([[0, None]])), (), 5, "GS-IN-111", "allow_pickle=False"),
    ("zip bomb", zip_bomb, (), 5, "GS-IN-113", "compressed beyond reason"),
    ("huge declared shape", huge_shape, (), 5, "GS-IN-112", "needs 73786976294838206"),
    ("NaN features", npz(**{**GRAPH, "node_features": NANS}), (), 5, "GS-IN-120", "2 rows hold a NaN"),
    ("first NaN row", npz(**{**GRAPH, "node_features": NANS}), (), 5, "GS-IN-120", "the first is row 2"),
    (
        "label below -1",
        npz(**{**GRAPH, "node_labels": np.array([0, -7, 0, 1])}),
        (),
        5,
        "GS-IN-130",
        "node 1 has label",
    ),
    ("half a label", npz(**{**GRAPH, "node_labels": np.array([0, 0.5, 0, 1])}), (), 5, "GS-IN-131", "label 0.5"),
    (
        "all unlabelled",
        npz(**{**GRAPH, "node_labels": np.full(4, -1)}, **masks([True] * 2 + [False] * 2, [False] * 3 + [True])),
        (),
        *(5, "GS-IN-144", "no node of split train has a label"),
    ),
    (
        "node in two splits",
        npz(**GRAPH, **masks([True, True, False, False], [False, True, False, False])),
        (),
        *(5, "GS-IN-142", "node 1 is in split"),
    ),
    (
        "empty split",
        npz(**GRAPH, **masks([False] * 4, [True] * 4)),
        (),
        *(5, "GS-IN-143", "split train is empty"),
    ),
    ("no such version", npz(**GRAPH), ("--split", "given:3"), 3, "GS-CFG-103", "no splits"),
    ("class too small", npz(**GRAPH), ("--split", "per-class:1/2"), 5, "GS-IN-145", "Ask for fewer"),
    ("rows of another graph", npz(**{**GRAPH, "node_labels": np.zeros(5, int)}), (), 5, "GS-IN-122", "5 rows for 4"),
    ("features beside an archive", npz(**GRAPH), ("--features", "x.npy"), 3, "GS-CFG-105", "go with edges:FILE"),
]


@pytest.mark.parametrize(
    ("prepare", "options", "exit_code", "code", "fragment"), [c[1:] for c in INGEST], ids=[c[0] for c in INGEST]
)
def test_a_bad_source_is_named(
    prepare: Callable[[Path], str],
    options: tuple[str, ...],
    exit_code: int,
    code: str,
    fragment: str,
    prompt: Prompt,
    tmp_path: Path,
) -> None:
    found, out, err = prompt.run("ingest", prepare(tmp_path), tmp_path / "s", *options)
    assert (found, out) == (exit_code, ""), err
    assert err.startswith(f"error {code}: ")
    assert fragment in err
    assert "Traceback" not in err
    assert not (tmp_path / "s/manifest.json").exists()


def test_loops_and_parallel_edges_are_left_out_when_asked_to(prompt: Prompt, tmp_path: Path) -> None:
    command = ("ingest", edges(b"0,0\n0,1\n0,1\n")(tmp_path), tmp_path / "s", "--dedup", "--no-self-loops")
    counts = prompt.succeeds(*command)
    assert (counts["edges"], counts["merged"], counts["dropped_loops"]) == (1, 1, 1)
    assert "1 duplicate edge merged, 1 self loop left out" in prompt.run(*command)[1]


def test_what_was_skipped_and_what_is_peculiar_is_named(prompt: Prompt, tmp_path: Path) -> None:
    code, out, _ = prompt.run("ingest", edges(b"user,item\n0,0\n0,1\n0,1\n")(tmp_path), tmp_path / "s")
    assert code == 0
    assert "3 edges, 0 classes, 1 self loop, 1 parallel edge, 1 header line skipped, splits none" in out


def test_bad_edges_are_left_out_when_asked_to(prompt: Prompt, tmp_path: Path) -> None:
    text = edges(b"0,1\n1,-2\n")(tmp_path)
    assert prompt.succeeds("ingest", text, tmp_path / "s", "--on-bad-edge", "drop")["dropped_edges"] == 1


def test_other_options_on_the_same_folder_are_refused_with_the_difference(prompt: Prompt, copy: Path) -> None:
    prompt.refuses(3, "GS-CFG-010", "seed was 0, now 4", "ingest", source(seed=4), copy / "store")


def test_the_same_command_again_gives_the_same_result(prompt: Prompt, copy: Path) -> None:
    results = [prompt.succeeds("ingest", source(), copy / "store") for _ in range(2)]
    assert results[0] == results[1]


def test_a_foreign_folder_is_left_alone(prompt: Prompt, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    prompt.refuses(5, "GS-IN-022", "the folder is not empty", "ingest", source(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_a_folder_is_named(prompt: Prompt, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    prompt.refuses(5, "GS-IN-020", "a file is in the way", "ingest", source(), tmp_path / "s")


USAGE: list[tuple[str, tuple[str, ...], int, str, str]] = [
    ("no store there", ("sample", "{m}/nowhere", "{o}"), 5, "GS-IN-021", "no store there"),
    ("a pack is no store", ("sample", "{m}/pack", "{o}"), 5, "GS-IN-021", "'gnnsys-pack', expected 'gnnsys-store'"),
    ("a pack is packed already", ("pack", "{m}/pack", "{o}"), 5, "GS-IN-021", "expected 'gnnsys-store'"),
    ("a pack over its store", ("pack", "{m}/store", "{m}/store"), 5, "GS-IN-021", "expected 'gnnsys-pack'"),
    ("a store over a pool", ("ingest", source(), "{m}/pool"), 5, "GS-IN-021", "expected 'gnnsys-store'"),
    ("fanouts are words", ("sample", "{m}/store", "{o}", "--fanouts", "many"), 3, "GS-CFG-701", "15,10,5"),
    ("no fanouts", ("sample", "{m}/store", "{o}", "--fanouts", ""), 3, "GS-CFG-701", "is not a list"),
    ("fanout -2", ("sample", "{m}/store", "{o}", "--fanouts", "5,-2"), 3, "GS-CFG-701", "-1 (all neighbours)"),
    ("batches of none", ("sample", "{m}/store", "{o}", "--batch-size", "0"), 3, "GS-CFG-204", "at least 1"),
    ("unknown seeds", ("sample", "{m}/store", "{o}", "--seeds", "trian"), 3, "GS-CFG-020", "train, valid, test"),
    ("negative seed", ("sample", "{m}/store", "{o}", "--seed", "-1"), 3, "GS-CFG-206", "seed is -1"),
    ("no threads", ("sample", "{m}/store", "{o}", "--workers", "0"), 3, "GS-CFG-003", "at least 1"),
    ("packing with no threads", ("pack", "{m}/store", "{o}", "--workers", "0"), 3, "GS-CFG-003", "workers is 0"),
    ("packing with -1 threads", ("pack", "{m}/pool", "{o}", "--workers", "-1"), 3, "GS-CFG-003", "workers is -1"),
    ("sampling in too little", ("sample", "{m}/store", "{o}", "--memory", "100KiB"), 8, "GS-MEM-002", "--memory"),
    ("plan of nothing", ("plan", "{m}/nowhere"), 5, "GS-IN-021", "there"),
    ("plan of a pack", ("plan", "{m}/pack"), 5, "GS-IN-021", "expected 'gnnsys-store'"),
    ("plan of no epochs", ("plan", "{m}/store", "--epochs", "0"), 3, "GS-CFG-302", "at least 1"),
    ("plan of no batches", ("plan", "{m}/store", "--batch-size", "0"), 3, "GS-CFG-204", "at least 1"),
    ("unknown layout", ("pack", "{m}/store", "{o}", "--layout", "zip"), 3, "GS-CFG-301", "packed"),
    ("a pool has its fanouts", ("pack", "{m}/pool", "{o}", "--fanouts", "9"), 3, "GS-CFG-704", "--fanouts was given"),
    ("a pool has its batches", ("plan", "{m}/pool", "--batch-size", "9"), 3, "GS-CFG-704", "--batch-size was given"),
    ("malformed disk", ("pack", "{m}/store", "{o}", "--disk", "lots"), 3, "GS-CFG-001", "'lots' is not a size"),
    ("packing in too little", ("pack", "{m}/store", "{o}", "--memory", "200KiB"), 8, "GS-MEM-002", "MiB"),
    (
        "packing on no disk",
        ("pack", "{m}/store", "{o}", "--disk", "10KiB"),
        9,
        "GS-DISK-301",
        "needs at least --memory",
    ),
    ("unknown model", ("train", "{m}/pack", "--out", "{o}", "--model", "sgae"), 3, "GS-CFG-604", "sage"),
    ("no such model file", ("train", "{m}/pack", "--out", "{o}", "--model", "no.py:Net"), 3, "GS-CFG-615", "no.py"),
    (
        "rocauc of 3 classes",
        ("train", "{m}/pack", "--out", "{o}", "--metric", "rocauc"),
        3,
        "GS-CFG-505",
        "there are 3",
    ),
    ("unknown metric", ("train", "{m}/pack", "--out", "{o}", "--metric", "f2"), 3, "GS-CFG-501", "metric"),
    ("another's metric", ("train", "{m}/pack", "--out", "{o}", "--metric", "f1"), 3, "GS-CFG-503", "acc, rocauc"),
    ("no epochs", ("train", "{m}/pack", "--out", "{o}", "--epochs", "0"), 3, "GS-CFG-501", "epochs"),
    ("a store without fanouts", ("train", "{m}/store", "--out", "{o}"), 3, "GS-CFG-509", "fanouts are missing"),
    ("fanouts for a pack", ("train", "{m}/pack", "--out", "{o}", "--fanouts", "9,9"), 3, "GS-CFG-508", "fanouts"),
    ("training on a run", ("train", "{m}/run", "--out", "{o}"), 5, "GS-IN-021", "{m}/run"),
    (
        "training in too little",
        ("train", "{m}/pack", "--out", "{o}", "--memory", "1MiB"),
        8,
        "GS-MEM-004",
        "Give at least",
    ),
    ("another seed", ("train", "{m}/pack", "--out", "{m}/run", "--seed", "3"), 3, "GS-CFG-521", "seed"),
    ("never resumed", ("train", "{m}/pack", "--out", "{m}/run", "--resume", "never"), 3, "GS-CFG-520", "--out"),
    ("evaluation of no run", ("evaluate", "{m}/pack"), 5, "GS-IN-511", "no run there"),
    ("evaluation on no split", ("evaluate", "{m}/run", "--split", "tset"), 3, "GS-CFG-020", "train, valid, test"),
    ("info on nothing", ("info", "{m}/nowhere"), 5, "GS-IN-021", "there"),
    ("verify of nothing", ("verify", "{m}/nowhere"), 5, "GS-IN-021", "there"),
    ("unknown benchmark", ("bench", "raed"), 3, "GS-CFG-703", "'read'"),
]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "fragment"), [c[1:] for c in USAGE], ids=[c[0] for c in USAGE]
)
def test_a_bad_option_is_named(
    arguments: tuple[str, ...], exit_code: int, code: str, fragment: str, prompt: Prompt, made: Path, tmp_path: Path
) -> None:
    filled = [a.replace("{m}", str(made)).replace("{o}", str(tmp_path / "out")) for a in arguments]
    found, out, err = prompt.run(
        *filled, *(TRAINING[:6] if arguments[0] == "train" and "--epochs" not in filled else ())
    )
    assert (found, out) == (exit_code, ""), err
    assert err.startswith(f"error {code}: ")
    assert fragment.replace("{m}", str(made)) in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("ingest",), ("pcak", "a", "b"), ("pack", "a", "b", "--fanout", "3")])
def test_usage_errors_end_with_two(arguments: tuple[str, ...], prompt: Prompt) -> None:
    found, out, err = prompt.run(*arguments)
    assert (found, out) == (2, "")
    assert "Usage" in err


def test_an_unfinished_run_cannot_be_evaluated(prompt: Prompt, copy: Path) -> None:
    (copy / "run/result.json").unlink()
    prompt.refuses(11, "GS-TRAIN-003", "Repeat its train command", "evaluate", copy / "run")


def test_an_unfinished_run_says_how_far_it_came(prompt: Prompt, copy: Path) -> None:
    (copy / "run/result.json").unlink()
    told = prompt.succeeds("info", copy / "run")
    assert (told["result"], told["progress"]["epoch"], told["config"]["options"]["epochs"]) == (None, 1, 1)
    assert "not finished (step" in prompt.run("info", copy / "run")[1]
    shutil.rmtree(copy / "run/checkpoints")
    assert "no checkpoint yet" in prompt.run("info", copy / "run")[1]


def test_a_run_of_python_is_not_evaluated_by_the_name_of_a_file(prompt: Prompt, made: Path, tmp_path: Path) -> None:
    model = Sage(in_channels=8, hidden_channels=4, num_layers=2, out_channels=3)
    task = gs.NodeClassification(3)
    gs.train(model, made / "pack", task=task, epochs=1, memory="512MiB", threads=1, out=tmp_path / "run")
    command = ("evaluate", tmp_path / "run", "--model", "my_model.py:Net")
    prompt.refuses(3, "GS-CFG-705", "gs.Run.open(path).evaluate", *command)


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, hidden_channels, num_layers, out_channels, dropout):
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return self.lin(x)
"""


def test_an_edited_model_file_is_another_model(prompt: Prompt, made: Path, tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text(NET)
    train = ("train", made / "pack", "--out", tmp_path / "run", *TRAINING)
    evaluate = ("evaluate", tmp_path / "run", "--model", f"{net}:Net")
    first = prompt.succeeds(*train, "--model", f"{net}:Net")
    assert prompt.succeeds(*train, "--model", f"{tmp_path}/./net.py:Net") == first
    assert prompt.succeeds(*evaluate)["metrics"] == first["metrics"]["test"]
    net.write_text(NET.replace("self.lin(x)", "-self.lin(x)"))
    prompt.refuses(3, "GS-CFG-521", "model.code was", *train, "--model", f"{net}:Net")
    with pytest.warns(RuntimeWarning, match="is not the code that"):
        prompt.succeeds(*evaluate)


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        ("x.no_such_method()", "error your model failed at {net}:10: AttributeError"),
        ("x[:, :3] @ edge_index", "error your model failed at {net}:10: RuntimeError"),
        ("None", "error GS-CFG-612: Net gives a NoneType, expected one tensor"),
        ("self.lin(x)[:, :1]", "error GS-CFG-612: Net gives shape ("),
    ],
)
def test_an_error_in_the_users_forward_is_told_as_the_users(
    forward: str, says: str, prompt: Prompt, made: Path, tmp_path: Path
) -> None:
    net = tmp_path / "net.py"
    net.write_text(NET.replace("self.lin(x)", forward))
    train = ("train", made / "pack", "--model", f"{net}:Net", "--out", tmp_path / "run", *TRAINING)
    _, _, err = prompt.run(*train)
    assert err.startswith(says.format(net=net))
    assert "This is a bug" not in err
    assert "Traceback" not in err
    assert "Traceback" in prompt.run("-v", *train)[2]


def test_a_pack_whose_store_moved_is_told_where(prompt: Prompt, copy: Path) -> None:
    (copy / "store").rename(copy / "elsewhere")
    train = ("train", copy / "pack", "--out", copy / "again", *TRAINING)
    prompt.refuses(5, "GS-IN-302", "--store", *train)
    assert prompt.succeeds(*train, "--store", copy / "elsewhere")["best_epoch"] == 0


def test_a_pack_whose_graph_changed_is_refused(prompt: Prompt, copy: Path) -> None:
    shutil.rmtree(copy / "store")
    prompt.succeeds("ingest", source(seed=9), copy / "store")
    prompt.refuses(5, "GS-IN-301", "the graph changed", "train", copy / "pack", "--out", copy / "again", *TRAINING)


@pytest.mark.parametrize("name", ["store", "pool", "pack"])
def test_a_manifest_from_a_newer_version_is_refused(name: str, prompt: Prompt, copy: Path) -> None:
    path = copy / name / "manifest.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "version": 7}))
    prompt.refuses(10, "GS-VER-001", "Update gnnsys", "info", copy / name)


@pytest.mark.parametrize("verb", ["ingest", "sample", "pack"])
def test_a_second_writer_is_refused(verb: str, prompt: Prompt, copy: Path) -> None:
    target = copy / {"ingest": "store", "sample": "pool", "pack": "pack"}[verb]
    given = source() if verb == "ingest" else copy / "store"
    with WriterLock(target):
        prompt.refuses(7, "GS-LOCK-001", f"being written by pid {os.getpid()}", verb, given, target)


def _kinds(folder: Path) -> list[str]:
    """One file of every kind below an artefact: those that differ in a number only count once."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size)
    names = [str(p.relative_to(folder)) for p in files]
    return [n for n in names if Path(n).name not in (".lock", "provenance.json", "hint.json")]


@pytest.mark.parametrize("name", ["store", "pool", "pack"])
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(name: str, prompt: Prompt, copy: Path) -> None:
    folder = copy / name
    assert prompt.succeeds("verify", folder, "--deep")["problems"] == []
    for file in _kinds(folder):
        good = (folder / file).read_bytes()
        (folder / file).write_bytes(bytes([good[0] ^ 4]) + good[1:])
        found, out, err = prompt.run("verify", folder, "--deep")
        assert found == 6, (file, out, err)
        assert Path(file).name in err, (file, err)
        assert "Traceback" not in err
        (folder / file).write_bytes(good)


@pytest.mark.parametrize("name", ["store", "pool", "pack"])
def test_a_truncated_and_a_missing_file_are_found(name: str, prompt: Prompt, copy: Path) -> None:
    folder = copy / name
    for file in _kinds(folder):
        good = (folder / file).read_bytes()
        (folder / file).write_bytes(good[:-2])
        assert prompt.run("verify", folder)[0] == 6, file
        (folder / file).unlink()
        assert prompt.run("verify", folder)[0] in (5, 6, 11), file
        (folder / file).write_bytes(good)


def test_a_bug_is_one_line_without_v(prompt: Prompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("this should not happen")

    monkeypatch.setattr("gnnsys.cli.data.gs.ingest", broken)
    found, out, err = prompt.run("ingest", source(), tmp_path)
    assert (found, out, err.count("Traceback")) == (1, "", 0)
    assert "error RuntimeError: this should not happen" in err
    assert "Traceback" in prompt.run("ingest", source(), tmp_path, "-v")[2]


def test_every_verb_prints_exactly_one_json_object(prompt: Prompt, made: Path, tmp_path: Path) -> None:
    sampling = ("--fanouts", "3,2", "--batch-size", "8")
    assert "store_digest" in prompt.succeeds("ingest", source(), tmp_path / "s")
    assert "pool_digest" in prompt.succeeds("sample", tmp_path / "s", tmp_path / "pool", *sampling)
    assert "candidates" in prompt.succeeds("plan", tmp_path / "s", *sampling)
    assert "pack_digest" in prompt.succeeds("pack", tmp_path / "s", tmp_path / "pack", *sampling, "--memory", "64MiB")
    assert "weights_digest" in prompt.succeeds("train", tmp_path / "pack", "--out", tmp_path / "run", *TRAINING)
    assert "metrics" in prompt.succeeds("evaluate", tmp_path / "run")
    assert {prompt.succeeds("info", made / n)["kind"] for n in ("store", "pool", "pack", "run")} == {
        *("gnnsys-store", "gnnsys-pool", "gnnsys-pack", "gnnsys-run")
    }


def test_labels_beyond_the_classes_are_found_by_verify(prompt: Prompt, copy: Path) -> None:
    manifest = read_manifest(copy / "store", "gnnsys-store", 1)
    counts = {**manifest.counts, "classes": 1}
    write_manifest(copy / "store", Manifest(**{**manifest.__dict__, "counts": counts}))
    prompt.refuses(6, "GS-STORE-010", "labels/y.bin: node", "verify", copy / "store", "--deep", stdout=True)


def test_damage_to_a_run_is_found_and_the_file_named(prompt: Prompt, copy: Path) -> None:
    run = copy / "run"
    assert prompt.succeeds("verify", run)["problems"] == []
    checkpoint = max(run.glob("checkpoints/ckpt-*"))
    own = [run / name for name in ("config.json", "result.json", "best.safetensors", "model.safetensors")]
    for file in (*own, *(p for p in checkpoint.iterdir() if p.is_file())):
        good = file.read_bytes()
        for at in (0, len(good) - 5):
            file.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
            prompt.refuses(6, "GS-STORE-010", file.name, "verify", run, stdout=True)
        file.write_bytes(good)


def test_an_interruption_names_the_command_that_continues(
    prompt: Prompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr("gnnsys.cli.data.gs.ingest", interrupted)
    monkeypatch.setattr("sys.argv", ["gnnsys", "ingest", "npz:my graph.npz", "s"])
    found, out, err = prompt.run("ingest", "npz:my graph.npz", tmp_path)
    assert (found, out) == (130, "")
    assert "Continue with:\n  gnnsys ingest 'npz:my graph.npz' s" in err


def test_a_graph_without_edges_goes_all_the_way(prompt: Prompt, tmp_path: Path) -> None:
    prompt.succeeds("ingest", source(edges=0), tmp_path / "s")
    made = prompt.succeeds("pack", tmp_path / "s", tmp_path / "p", "--fanouts", "3,-1", "--memory", "64MiB")
    assert made["plan"]["layout"] == "packed"
    result = prompt.succeeds("train", tmp_path / "p", "--out", tmp_path / "r", *TRAINING)
    assert set(result["metrics"]) == {"train", "valid", "test"}
