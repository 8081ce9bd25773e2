"""The verbs of the `gnnsys` command in one application. Each is imported when it is typed: most load torch."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

VERBS = {
    "ingest": ("data", "Read a graph from SOURCE and write a Store, in bounded memory."),
    "add": (
        "data",
        "Add tables and splits to a Store, without ingesting it again; both options may be given several times.",
    ),
    "sample": ("data", "Sample every batch of one pass over the seeds and write them down."),
    "plan": ("data", "Explain where every row would live and what an epoch would cost; writes nothing."),
    "pack": (
        "data",
        "Sample, plan and pack: rows in the order training will read them. Repeating the command continues.",
    ),
    "train": ("learn", "Train a model. Repeating the command continues a run that was interrupted."),
    "place": (
        "placing",
        "Profile a model and predict every way to use the devices: stages, replicas, both, or one alone.",
    ),
    "evaluate": ("learn", "Score the best weights of a run on a split, exactly where the model allows it."),
    "predict": ("learn", "Write what a run says of every node, or of a split, to a file."),
    "info": ("inspect", "Say what PATH is: identity, counts, options and files."),
    "verify": ("inspect", "Check PATH against its manifest. Exit code 6 when something is wrong."),
    "report": ("reports", "Write a page about a run, or one that compares several: curves, times, memory, options."),
    "explain": ("explain", "Say what an error code means and what to do."),
    "doctor": ("doctor", "Say what this machine and environment can do; measures the disk once, in about two seconds."),
    "demo": ("demo", "Generate a graph, pack it, train out of core, train again in memory, and compare."),
    "bench": ("measure", "Measure cases beside their peers on this machine."),
}
"""Where in `gnnsys.cli` the function of that name is, and the first words of its docstring."""

_application = partial(typer.Typer, add_completion=False, pretty_exceptions_enable=False)


class _Verbs(TyperGroup):
    """Knows a line about every verb; the one that is typed is imported, with all that it needs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _command_of(name), rest


app = _application(cls=_Verbs, no_args_is_help=True)


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error happened.")] = False,
) -> None:
    """Train graph neural networks on graphs larger than memory. Start with: gnnsys demo"""


def _command_of(verb: str) -> Any:
    alone = _application()
    alone.command(verb)(getattr(import_module(f"gnnsys.cli.{VERBS[verb][0]}"), verb))
    return typer.main.get_command(alone)


for _verb, (_, _said) in VERBS.items():
    app.command(_verb, help=_said)(lambda: None)
