"""`gnnsys explain`: the index of errors is what the code raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnsys.cli.error_index import error_index
from gnnsys.cli.main import _run

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for top in ("gnnsys", "storage", "samplers", "models") for path in (ROOT / top).rglob("*.py")]


@pytest.fixture
def gnnsys(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        return _run(list(arguments)), *capsys.readouterr()

    return run


def test_every_code_in_the_sources_is_explained() -> None:
    written = {code for path in SOURCES for code in re.findall(r"\"(GS-[A-Z]+-\d{3})[\":]", path.read_text())}
    assert len(written) > 200
    assert written - error_index().keys() == set()


def test_a_code_ends_in_one_exit_code() -> None:
    assert {code: entry.kind for code, entry in error_index().items() if " or " in entry.kind} == {}


def test_what_is_explained_is_what_happens(gnnsys: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    exit_code, _, err = gnnsys("ingest", f"npz:{tmp_path / 'none.npz'}", str(tmp_path / "s"))
    code = re.findall(r"GS-[A-Z]+-\d{3}", err)[0]
    said = gnnsys("explain", code)[1]
    assert f"ends a command with {exit_code}" in said
    assert "{path}: no such file" in said
    assert "(ingestion/source.py)" in said


@pytest.mark.parametrize(("given", "hint"), [("GS-IN-1O1", "Did you mean GS-IN-"), ("why", "Codes look like")])
def test_an_unknown_code_is_refused(given: str, hint: str, gnnsys: Callable[..., tuple[int, str, str]]) -> None:
    exit_code, _, err = gnnsys("explain", given)
    assert exit_code == 3
    assert hint in err
