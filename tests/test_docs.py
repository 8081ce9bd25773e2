"""Docs that are true today: README code runs, generated pages are what their JSON says, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda p: p.name)
def test_a_generated_page_is_what_its_json_says(page: Path) -> None:
    assert page.read_text() == pages()[page]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("verb", [command.name for command in app.registered_commands])
def test_the_help_of_every_verb_shows_an_example(verb: str) -> None:
    child = subprocess.run([sys.executable, "-m", "gnnsys", verb, "--help"], capture_output=True, text=True, check=True)
    assert f"Example: gnnsys {verb} " in child.stdout
