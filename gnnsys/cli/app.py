"""The verbs of the `gnnsys` command in one application, each imported when it is typed: help comes at once."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

VERBS = {
    "ingest": "data",
    "add": "data",
    "sample": "data",
    "plan": "data",
    "pack": "data",
    "train": "learn",
    "place": "placing",
    "evaluate": "learn",
    "predict": "learn",
    "info": "inspect",
    "verify": "inspect",
    "report": "reports",
    "explain": "explain",
    "doctor": "doctor",
    "demo": "demo",
    "bench": "measure",
}
"""Where in `gnnsys.cli` the function of that name is."""


class _Verbs(TyperGroup):
    """Knows of every verb what its docstring says; the one that is typed is imported, with all that it needs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _imported(name), rest


app = typer.Typer(cls=_Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error happened.")] = False,
) -> None:
    """Train graph neural networks on graphs larger than memory. Start with: gnnsys demo"""


def _imported(verb: str) -> Any:
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(verb)(getattr(import_module(f"gnnsys.cli.{VERBS[verb]}"), verb))
    return typer.main.get_command(alone)


def _docstring(module: str, function: str) -> str | None:
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    return next(ast.get_docstring(n) for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)


for _verb, _module in VERBS.items():
    app.command(_verb, help=_docstring(_module, _verb))(lambda: None)
