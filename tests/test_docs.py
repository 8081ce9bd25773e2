"""Docs that are true today: README code runs, generated pages are what their JSON says, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gnnsys.bench.tables import pages
from gnnsys.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    child = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert "'test': {'acc': 0." in child.stdout


def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    """Commands and code in order; what they print is what the page says, numbers aside."""
    text = (ROOT / "docs" / "tutorial.md").read_text().split("## With an OGB download")[0]
    shell = f'set -euo pipefail\ngnnsys() {{ "{sys.executable}" -m gnnsys "$@"; }}\n'
    printed = ""
    for kind, block in re.findall(r"```(python|sh|text)\n(.*?)```", text, flags=re.DOTALL):
        if kind == "text":
            assert [line for line in block.splitlines() if _shape(line) not in _shape(printed)] == []
            continue
        command = [sys.executable, "-c", block] if kind == "python" else ["bash", "-c", shell + block]
        child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert child.returncode == 0, child.stderr
        printed += child.stdout
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 20_001


def _shape(text: str) -> str:
    return re.sub(r"[\d.,]+", "#", text)


ELSEWHERE = {"tutorial.md", "access.md"}
"""The tutorial has a test of its own; rows for a GPU need one."""


def test_the_python_of_every_page_runs_as_it_stands(tmp_path: Path) -> None:
    code = ["import os"]
    for page in sorted((ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
        if blocks and page.name not in ELSEWHERE:
            (tmp_path / page.stem).mkdir()
            code += [f"os.chdir({str(tmp_path / page.stem)!r})", f"exec({''.join(blocks)!r}, {{}})"]
    assert len(code) > 10
    child = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda p: p.name)
def test_a_generated_page_is_what_its_json_says(page: Path) -> None:
    assert page.read_text() == pages()[page]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("verb", [command.name for command in app.registered_commands])
def test_the_help_of_every_verb_shows_an_example(verb: str) -> None:
    assert f"Example: gnnsys {verb} " in CliRunner().invoke(app, [verb, "--help"]).stdout
