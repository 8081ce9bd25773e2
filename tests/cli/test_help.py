"""The overview of all verbs comes at once, and says of each verb how its own help begins."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from gnnsys.cli.app import VERBS, app


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "GS-IN-101"], ["trian"]])
def test_neither_torch_nor_numba_is_loaded_for_a_text(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom gnnsys.cli.app import app\n"
        f"try:\n    app({arguments})\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numba', 'numpy') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == "[]"


def test_every_verb_is_listed_with_its_own_docstring() -> None:
    listed = {command.name: command.help for command in app.registered_commands}
    functions = {verb: getattr(import_module(f"gnnsys.cli.{module}"), verb) for verb, (module, _) in VERBS.items()}
    firsts = {verb: str(inspect.getdoc(function)).split("\n\n")[0] for verb, function in functions.items()}
    assert listed == {verb: " ".join(first.split()) for verb, first in firsts.items()}
