"""`gnnsys doctor`: every state is provoked; it fails only where nothing would work."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from gnnsys.cli import checkup
from gnnsys.cli.main import _run
from gnnsys.planning.calibrate import Speeds

Doctor = Callable[..., tuple[int, dict[str, dict[str, str]], str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """Run the verb; gives the exit code, the findings by topic, and stderr."""
    monkeypatch.setattr(checkup, "speeds_of", lambda _folder: Speeds(2.0**30, 2.0**29, 50_000, 1.0))

    def run(path: Path = tmp_path) -> tuple[int, dict[str, dict[str, str]], str]:
        code = _run(["doctor", "--path", str(path), "--json"])
        out, err = capsys.readouterr()
        return code, {f["topic"]: f for f in json.loads(out)["findings"]} if out else {}, err

    return run


def test_a_good_machine_passes_and_the_folder_is_left_as_it_was(doctor: Doctor, tmp_path: Path) -> None:
    code, findings, _ = doctor()
    assert code == 0
    assert {findings[topic]["state"] for topic in ("python", "torch", "numba", "locks", "folder")} == {"ok"}
    assert findings["disk speed"]["found"] == "read 1.0 GiB/s, write 512.0 MiB/s, 50,000 random reads/s"
    assert list(tmp_path.iterdir()) == []


def refuse(*_arguments: object) -> Any:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    ("topic", "simulate", "state"),
    [
        ("O_DIRECT", lambda m: m.delattr(os, "O_DIRECT"), "degraded"),
        ("O_DIRECT", lambda m: m.setattr(os, "preadv", refuse), "degraded"),
        ("fallocate", lambda m: m.delattr(os, "posix_fallocate"), "degraded"),
        ("fallocate", lambda m: m.setattr(os, "posix_fallocate", refuse), "degraded"),
        ("locks", lambda m: m.setattr("fcntl.flock", refuse), "broken"),
        ("accounting", lambda m: m.setattr(checkup, "counted_bytes", lambda: 0), "degraded"),
        ("open files", lambda m: m.setattr(resource, "getrlimit", lambda _what: (256, 256)), "degraded"),
        ("memory", lambda m: m.setattr(os, "sysconf", refuse), "degraded"),
        ("disk speed", lambda m: m.setattr(checkup, "speeds_of", lambda _folder: None), "degraded"),
        ("/dev/shm", lambda m: m.setattr(checkup, "free_bytes", lambda _folder: 1), "degraded"),
        ("bf16", lambda m: m.setattr(checkup, "_text", lambda _path: ""), "degraded"),
        ("bf16", lambda m: m.setattr(checkup, "_text", lambda _path: "flags : avx512_bf16"), "ok"),
    ],
)
def test_what_a_machine_lacks_is_told_with_what_follows(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, topic: str, simulate: Callable[[Any], None], state: str
) -> None:
    with monkeypatch.context() as patch:
        simulate(patch)
        code, findings, err = doctor()
    assert (findings[topic]["state"], code) == (state, 4 if state == "broken" else 0)
    assert findings[topic]["means"]
    assert ("GS-DEP-005" in err) == (state == "broken")


def test_the_limit_of_a_container_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_text", lambda path: "1073741824\n" if path.endswith("memory.max") else "")
    assert "this container may use 1.0 GiB" in doctor()[1]["memory"]["found"]


def test_absent_packages_are_missing_when_optional_and_broken_when_not(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checkup, "version", absent)
    code, findings, err = doctor()
    assert (code, findings["numba"]["state"], findings["dgl"]["state"]) == (4, "broken", "missing")
    assert 'pip install "gnnsys[dgl]"' in findings["dgl"]["means"]
    assert "GS-DEP-005" in err


def test_a_folder_that_cannot_be_written_is_broken(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **_options: refuse())
    code, findings, _ = doctor()
    assert (code, findings["folder"]["state"]) == (4, "broken")
    assert "locks" not in findings


def test_a_folder_that_is_not_there_is_refused(doctor: Doctor, tmp_path: Path) -> None:
    code, _, err = doctor(tmp_path / "nothing")
    assert code == 5
    assert err.startswith("error GS-IN-542: ")


def test_lines_are_for_people(capsys: pytest.CaptureFixture[str], doctor: Doctor, tmp_path: Path) -> None:
    assert _run(["doctor", "--path", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["OK", "python"]
    assert {line.split()[0] for line in lines} <= {"OK", "degraded", "missing"}


def test_a_command_without_a_package_that_is_needed_says_which() -> None:
    code = "import sys; sys.modules['numba'] = None; sys.argv[1:] = ['doctor']; import gnnsys.cli.main as m; m.main()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 4
    assert child.stderr == "error GS-DEP-006: gnnsys needs the package numba\n  pip install numba\n"
