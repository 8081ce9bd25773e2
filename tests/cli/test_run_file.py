"""`gnnsys train -c`: defaults < file < flags, and a run's own file trains it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnsys.cli.main import _run

Command = Callable[..., tuple[int, str, str]]
SOURCE = "synthetic:powerlaw:nodes=80,edges=500,feat=8,classes=3,train=0.4,valid=0.2,test=0.2"
NET = """
import torch
from gnnsys.models.registry import NAMES
class Net(NAMES["sage"]):
    pass
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run one command; gives exit code, stdout and stderr."""
    monkeypatch.setattr("sys.argv", ["gnnsys"])
    monkeypatch.setattr("os.fsync", lambda _fd: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = _run([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert _run(["ingest", SOURCE, str(folder / "store"), "-q"]) == 0
    sampling = ["--fanouts", "3,2", "--batch-size", "8", "-q"]
    assert _run(["pack", str(folder / "store"), str(folder / "pack"), *sampling]) == 0
    return folder


def run_file(path: Path, **options: Any) -> Path:
    options = {"hidden": 4, "epochs": 1, "threads": 1, "memory": "512MiB", **options}
    lines = [f"{key} = {json.dumps(value)}" for key, value in options.items() if value is not None]
    path.write_text("\n".join(["[train]", *lines]))
    return path


def trained(command: Command, *arguments: object) -> dict[str, Any]:
    code, out, err = command("train", *arguments, "--json")
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


@pytest.mark.parametrize(
    "options",
    [
        {"source": "pack", "model": "gcn", "lr": 0.02, "dropout": 0.25, "seed": 3, "layers": 1},
        {"source": "store", "fanouts": [4, 3], "batch_size": 16},
        {"source": "store", "chunks": 2, "layers": 3, "model": "gcnii", "refresh": 2, "epochs": 3},
        {"source": "store", "fanouts": [2], "model": "net.py:Net"},
    ],
    ids=["pack", "store", "chunks", "own model"],
)
def test_the_file_of_a_run_trains_the_same_weights(
    command: Command, made: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "net.py").write_text(NET)
    first = trained(command, "-c", run_file(tmp_path / "run.toml", **options), "--out", tmp_path / "runs" / "a")
    again = trained(command, "-c", tmp_path / "runs/a/config.toml", "--out", tmp_path / "b")
    assert again["weights_digest"] == first["weights_digest"]
    configs = [json.loads((tmp_path / run / "config.json").read_text()) for run in ("runs/a", "b")]
    assert configs[0]["digest"] == configs[1]["digest"]


def test_the_file_of_a_run_names_what_the_machine_chose(command: Command, made: Path, tmp_path: Path) -> None:
    trained(command, "-c", run_file(tmp_path / "run.toml", threads=None), made / "pack", "--out", tmp_path / "run")
    text = (tmp_path / "run" / "config.toml").read_text()
    assert "\nthreads = " in text
    assert '\ndevice = "c' in text
    assert "\nout = " not in text


def test_flags_win_over_the_file_and_the_file_over_defaults(command: Command, made: Path, tmp_path: Path) -> None:
    path = run_file(tmp_path / "run.toml", source=str(made / "pack"), out="run", lr=0.5)
    trained(command, "-c", path, "--lr", "0.25")
    options = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert (options["lr"], options["hidden"], options["dropout"]) == (0.25, 4, 0.5)


def test_a_file_and_its_flags_continue_the_same_run(command: Command, made: Path, tmp_path: Path) -> None:
    path = run_file(tmp_path / "run.toml", source=str(made / "pack"), out="run")
    first = trained(command, "-c", path)
    assert trained(command, made / "pack", "-c", path, "--out", tmp_path / "run") == first


def test_show_config_says_where_every_value_comes_from(command: Command, tmp_path: Path) -> None:
    path = run_file(tmp_path / "run.toml", lr=0.5)
    code, out, _ = command("train", "-c", path, "--lr", "0.25", "--show-config")
    assert code == 0
    assert "lr = 0.25  # a flag\n" in out
    assert f"hidden = 4  # {path}\n" in out
    assert "\n# dropout = 0.5\n" in out
    code, out, _ = command("train", "-c", path, "--lr", "0.25", "--show-config", "--json")
    assert json.loads(out)["origins"]["lr"] == "a flag"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train"], "GS-CFG-882", "PACK|POOL|STORE"),
        (["train", "pack"], "GS-CFG-882", "--out"),
        (["train", "-c", "missing.toml"], "GS-IN-540", "missing.toml: no such file"),
        (["train", "--show-config", "--lr", "0"], "GS-CFG-501", "lr is 0"),
    ],
)
def test_what_is_missing_is_named(command: Command, arguments: list[str], code: str, said: str) -> None:
    exit_code, out, err = command(*arguments)
    assert (exit_code, out) == (5 if code.startswith("GS-IN") else 3, "")
    assert err.startswith(f"error {code}: ")
    assert said in err
