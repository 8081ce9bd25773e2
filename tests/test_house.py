"""The shape of the house: who may import whom, one place that writes files, one importable name."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gnnsys

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("storage", "samplers", "models", "bench")
GROUND = {"errors", "units", "keys", "progress", "batch", "budget", "failpoints"}

MAY_IMPORT = {
    "storage": GROUND,
    "samplers": GROUND | {"storage"},
    "models": GROUND,
    "planning": GROUND | {"storage", "samplers"},
    "loading": GROUND | {"storage", "samplers"},
    "ingestion": GROUND | {"storage", "samplers"},
    "interop": GROUND | {"storage", "samplers", "loading"},
    "access": GROUND,
    "pipeline": GROUND | {"loading"},
    "training": GROUND | {"storage", "samplers", "models", "ingestion", "planning", "loading", "interop", "pipeline"},
    "reporting": GROUND | {"storage", "training"},
}
"""Packages that cli, bench and examples may import freely; nobody may import those three."""


def _sources() -> Iterator[tuple[str, str, Path]]:
    """(package, name inside gnnsys, file) of every module of the library."""
    own = ROOT / "gnnsys"
    for top in (own, *(ROOT / name for name in LINKED)):
        for path in sorted(top.rglob("*.py")):
            short = str(path.relative_to(own if top == own else ROOT))
            yield short.split("/")[0].removesuffix(".py"), short, path


def _imports(path: Path) -> Iterator[str]:
    """First name under gnnsys of everything that a file imports, deferred imports of `Batch.to_*` left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "gnnsys" else [f"gnnsys.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("gnnsys."))


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    broken = [
        f"{short} imports {name}"
        for owner, short, path in _sources()
        if owner == package
        for name in _imports(path)
        if name not in allowed
    ]
    assert broken == []


def test_the_ground_floor_imports_nothing_of_the_project_but_itself() -> None:
    broken = [
        f"{short} imports {name}"
        for owner, short, path in _sources()
        if owner in GROUND
        for name in _imports(path)
        if name not in GROUND and not (owner == "batch" and name == "interop")
    ]
    assert broken == []


WRITES = {"save", "savez", "tofile", "write_text", "write_bytes", "save_file", "mkstemp", "rename"}


def test_only_one_module_writes_files() -> None:
    broken = [
        f"{short}:{node.lineno}"
        for owner, short, path in _sources()
        if owner not in {"cli", "bench"} and short != "storage/files.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _writes(node)
    ]
    assert broken == []


def _writes(call: ast.Call) -> bool:
    """The call creates or changes a file: a writing method, or an `open` with a mode that writes."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    arguments = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
    modes = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name in WRITES or (
        name == "open" and any(set(mode) <= set("rwabtx+") and set(mode) & set("wax+") for mode in modes)
    )


@pytest.mark.parametrize("name", LINKED)
def test_a_linked_folder_is_a_link_and_refuses_its_bare_name(name: str) -> None:
    link = ROOT / "gnnsys" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    child = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f"import gnnsys.{name}" in child.stderr


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(gnnsys, name) is not None for name in gnnsys.__all__)


def test_the_public_surface_is_what_the_design_names() -> None:
    assert set(gnnsys.__all__) == {
        "ArraySource",
        *("Batch", "Block", "GnnsysError", "Loader", "MutableTable", "NodeClassification", "Pack", "Plan", "Pool"),
        *("MultilabelClassification", "NodeRegression"),
        *("Run", "Seeds", "Store", "Task", "add", "aggregate", "balanced_weights", "build", "ingest", "pack", "plan"),
        *("estimate", "label_propagation", "predict", "sample", "show_progress", "train"),
    }


def test_importing_gnnsys_loads_no_heavy_or_optional_package() -> None:
    heavy = ("torch", "numba", "dgl", "ogb", "torch_geometric")
    code = f"import sys, gnnsys; print([m for m in {heavy} if m in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
