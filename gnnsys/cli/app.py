"""The verbs of the `gnnsys` command in one typer application. Importing this loads torch and everything else."""

from __future__ import annotations

from typing import Annotated

import typer

from gnnsys.cli import data, demo, doctor, explain, inspect, learn, measure, placing, reports

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error happened.")] = False,
) -> None:
    """Train graph neural networks on graphs larger than memory. Start with: gnnsys demo"""


app.command("ingest")(data.ingest)
app.command("add")(data.add)
app.command("sample")(data.sample)
app.command("plan")(data.plan)
app.command("pack")(data.pack)
app.command("train")(learn.train)
app.command("place")(placing.place)
app.command("evaluate")(learn.evaluate)
app.command("predict")(learn.predict)
app.command("info")(inspect.info)
app.command("verify")(inspect.verify)
app.command("report")(reports.report)
app.command("explain")(explain.explain)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("bench")(measure.bench)
