"""`gnnsys explain`: the index of errors is what the code raises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnnsys.cli.error_index import error_index

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for top in ("gnnsys", "storage", "samplers", "models") for path in (ROOT / top).rglob("*.py")]


def gnnsys(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gnnsys", *arguments], capture_output=True, text=True, check=False)


def test_every_code_in_the_sources_is_explained() -> None:
    written = {code for path in SOURCES for code in re.findall(r"\"(GS-[A-Z]+-\d{3})[\":]", path.read_text())}
    assert len(written) > 200
    assert written - error_index().keys() == set()


def test_a_code_ends_in_one_exit_code() -> None:
    assert {code: entry.kind for code, entry in error_index().items() if " or " in entry.kind} == {}


def test_what_is_explained_is_what_happens(tmp_path: Path) -> None:
    failed = gnnsys("ingest", f"npz:{tmp_path / 'none.npz'}", str(tmp_path / "s"))
    code = re.findall(r"GS-[A-Z]+-\d{3}", failed.stderr)[0]
    said = gnnsys("explain", code).stdout
    assert f"ends a command with {failed.returncode}" in said
    assert "{path}: no such file" in said
    assert "(ingestion/source.py)" in said


@pytest.mark.parametrize(("given", "hint"), [("GS-IN-1O1", "Did you mean GS-IN-"), ("why", "Codes look like")])
def test_an_unknown_code_is_refused(given: str, hint: str) -> None:
    failed = gnnsys("explain", given)
    assert failed.returncode == 3
    assert hint in failed.stderr
