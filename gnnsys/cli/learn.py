"""`gnnsys train`, `evaluate` and `predict`: from a Pack or a Store to a trained model, its scores and what it says."""

from __future__ import annotations

import signal
import statistics
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

import gnnsys as gs
from gnnsys.cli.common import Json, Quiet, Stopped, StorePath, emit, parse_fanouts, progress
from gnnsys.cli.launch import start_ranks
from gnnsys.cli.ranks import is_rank, rank
from gnnsys.errors import ConfigError, InterruptedWorkError
from gnnsys.models.registry import NAMES, build, identity
from gnnsys.training.config import parse_config
from gnnsys.training.folder import Resume
from gnnsys.training.run import train_from_config
from gnnsys.training.run_file import KEYS, PATHS, explained, read_run_file
from gnnsys.units import format_score, format_size

On = Annotated[str | None, typer.Option("--on", help="Another Store with the same features to do it on.")]


def train(
    source: Annotated[
        str | None, typer.Argument(metavar="PACK|POOL|STORE", help="A Store is sampled while training.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with any of these options.")] = None,
    show_config: Annotated[bool, typer.Option(help="Print every option with its origin as such a file.")] = False,
    model: Annotated[
        str | None, typer.Option(help=f"{' | '.join(NAMES)} | my_model.py:Net; sage if not given.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Layers; one per hop when not given.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of hidden layers.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of values dropped.")] = None,
    heads: Annotated[int | None, typer.Option(help="Heads of attention of gat and gatv2.")] = None,
    residual: Annotated[bool | None, typer.Option(help="Layers add what they read, where widths are equal.")] = None,
    jk: Annotated[str | None, typer.Option(help="last | cat | max | lstm, join what all layers gave.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Greatest norm of the gradients of a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    lr_schedule: Annotated[str | None, typer.Option(help="constant | linear | cosine, over all epochs.")] = None,
    warmup_epochs: Annotated[int | None, typer.Option(help="Epochs in which the learning rate rises.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="L2 penalty of Adam.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the seeds.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Epochs between evaluations on valid.")] = None,
    patience: Annotated[int | None, typer.Option(help="Evaluations without gain before stopping; 0 = never.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="acc | rocauc, of several answers also f1; of numbers rmse | mae | r2"),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Of numbers: mse | l1")] = None,
    class_weights: Annotated[str | None, typer.Option(help="balanced: rare classes count more in the loss.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Split of a Store to train on; train when not given.")] = None,
    fanouts: Annotated[str | None, typer.Option(help="Neighbours per hop of a Store, e.g. 10,5 or -1,-1.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Seeds per batch of a Store.")] = None,
    weighted: Annotated[bool | None, typer.Option(help="Draw neighbours in a Store by the edges' weights.")] = None,
    micro_batches: Annotated[int | None, typer.Option(help="Batches whose gradients make one step.")] = None,
    pipeline: Annotated[int | None, typer.Option(help="Stages: processes that share the layers; same weights.")] = None,
    schedule: Annotated[str | None, typer.Option(help="1f1b | gpipe, of micro-batches through stages.")] = None,
    chunks: Annotated[int | None, typer.Option(help="Train on the whole graph of a Store in so many parts.")] = None,
    refresh: Annotated[int | None, typer.Option(help="Epochs between snapshots of what chunks read.")] = None,
    compensation: Annotated[float | None, typer.Option(help="Factor of gradients between chunks.")] = None,
    history: Annotated[str | None, typer.Option(help="exact | zero, what chunks read at first.")] = None,
    shuffle_chunks: Annotated[bool | None, typer.Option(help="Another order of chunks in every epoch.")] = None,
    guard_every: Annotated[int | None, typer.Option(help="Epochs between looks at the exact loss; 0 = never.")] = None,
    recompute: Annotated[bool | None, typer.Option(help="Compute activations twice rather than keep them.")] = None,
    stall_timeout: Annotated[float | None, typer.Option(help="Seconds that a stage may keep others waiting.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory training may grow by; 4GiB when not given.")] = None,
    rows: Annotated[str | None, typer.Option(help="auto | packed | direct | mapped | memory")] = None,
    precision: Annotated[str | None, typer.Option(help="f32 | bf16, of dense products.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides weights, order and dropout.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loading threads; never changes the result.")] = None,
    threads: Annotated[int | None, typer.Option(help="torch threads.")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda | cuda:1")] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints within an epoch.")] = None,
    resume: Annotated[Resume, typer.Option(help="auto continues what is in --out, never refuses it.")] = "auto",
    store: StorePath = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model. Repeating the command continues a run that was interrupted.

    Example: gnnsys train packs/cora --model gcn --hidden 64 --epochs 50 --out runs/cora
    """
    flags = {name: value for name, value in locals().items() if name in KEYS and value is not None}
    if fanouts:
        flags["fanouts"] = parse_fanouts(fanouts)
    given = {**(read_run_file(config) if config else {}), **flags}
    options = {key: value for key, value in given.items() if key not in PATHS}
    if show_config:
        parse_config(options)
        origins = {key: "a flag" if key in flags else str(config) for key in given}
        emit({"given": given, "origins": origins}, explained(given, origins), as_json)
        return
    paths = _paths(given)
    if options.get("pipeline", 1) > 1 and not is_rank():
        start_ranks(options["pipeline"], sys.argv[1:])
        return
    with progress(quiet or as_json or rank() > 0) as report, _stoppable() as stop:
        run = train_from_config(**paths, options=options, resume=resume, stop=stop, progress=report)
    if rank() == 0:
        emit(run.result, _summary(run), as_json)


def _paths(given: dict[str, Any]) -> dict[str, Any]:
    """`source`, `out` and `store`, of which the first two must be there."""
    for key, said in (("source", "what to train on, PACK|POOL|STORE,"), ("out", "the folder of the run, --out,")):
        if key not in given:
            hint = "Give it on the command line or in a file: gnnsys train -c run.toml."
            raise ConfigError("GS-CFG-882", f"{said} is missing", hint=hint)
    return {key: given.get(key) for key in PATHS}


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    split: Annotated[str, typer.Option(help="train | valid | test")] = "test",
    model: Annotated[str | None, typer.Option(help="my_model.py:Net, when the run was trained with it.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory this may grow by; as the run had when not given.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda | cuda:1")] = "auto",
    store: StorePath = None,
    on: On = None,
    as_json: Json = False,
) -> None:
    """Score the best weights of a run on a split, exactly where the model allows it.

    Example: gnnsys evaluate runs/cora --split test
    """
    run = gs.Run.open(path)
    network = _rebuilt(run, model) if model else None
    result = run.evaluate(split, model=network, store=store, on=on, memory=memory, device=device)
    scores = ", ".join(f"{name} {format_score(name, value)}" for name, value in result["metrics"].items())
    emit(result, f"{split}: {scores} ({result['evaluation']}, {result['seeds']:,} nodes{_where(result)})", as_json)


def predict(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="preds.csv, in the ids of the source, or preds.npy, in order of nodes.")],
    what: Annotated[str, typer.Option(help="class | probabilities | outputs")] = "class",
    split: Annotated[str | None, typer.Option(help="train | valid | test; all nodes when not given.")] = None,
    model: Annotated[str | None, typer.Option(help="my_model.py:Net, when the run was trained with it.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory this may grow by; as the run had when not given.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda | cuda:1")] = "auto",
    replace: Annotated[
        bool, typer.Option("--replace", help="Whatever stands in --out; else only what is the same.")
    ] = False,
    store: StorePath = None,
    on: On = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write what a run says of every node, or of a split, to a file.

    Example: gnnsys predict runs/cora --out preds.csv --what probabilities
    """
    run = gs.Run.open(path)
    network = _rebuilt(run, model) if model else None
    with progress(quiet or as_json) as report:
        result = run.predict(
            out,
            what=what,  # type: ignore[arg-type]
            split=split,
            model=network,
            store=store,
            on=on,
            memory=memory,
            device=device,
            replace=replace,
            progress=report,
        )
    emit(result, f"{out}: {what} of {result['nodes']:,} nodes ({result['evaluation']}{_where(result)})", as_json)


def _where(result: dict[str, Any]) -> str:
    return "" if result["same_graph"] else ", on another graph than it was trained on"


def _rebuilt(run: gs.Run, model: str) -> nn.Module:
    """The class `model` with the sizes that the run was trained with; warns when it is not the same code."""
    trained = run.config["decisive"]["model"]
    sizes = {key: value for key, value in trained.items() if key not in ("name", "code")}
    if "in_channels" not in sizes:
        raise ConfigError(
            "GS-CFG-705",
            f"{run.path}: was trained from Python with a {trained['name']}, whose sizes the run does not know",
            hint="Evaluate it there: gs.Run.open(path).evaluate(split, model=Net(...)).",
        )
    given = identity(model)
    if given != {key: trained.get(key) for key in given}:
        warnings.warn(
            f"GS-CFG-526: {model} is not the code that {run.path} was trained with ({trained['name']}): "
            "the scores are those of its weights in other hands",
            RuntimeWarning,
            stacklevel=1,
        )
    return build(model, **sizes)


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """First Ctrl-C or SIGTERM: finish the step, write a checkpoint, end. Second: end now."""
    stop = threading.Event()
    received: list[int] = []

    def ask(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise Stopped(number)
        received.append(number)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except InterruptedWorkError as error:
        if not received:
            raise
        raise Stopped(received[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(run: gs.Run) -> str:
    result = run.result
    scores = [
        f"  {split:<6} " + ", ".join(f"{name} {format_score(name, value)}" for name, value in values.items())
        for split, values in result["metrics"].items()
    ]
    if result.get("drifts"):
        last = result["drifts"][-1]
        scores.append(
            f"  in epoch {last['epoch'] + 1} the loss was {last['loss']:.4f}, with rows up to date {last['exact']:.4f}"
        )
    epochs, best = result["epoch_s"], result["best_epoch"] + 1
    grown = f"memory grew by {format_size(result['peak_growth_bytes'])}, read {format_size(sum(result['bytes_read']))}"
    return "\n".join(
        [
            f"{run.path}: {len(epochs)} epochs of {statistics.median(epochs):.2f} s (median); {grown}",
            f"scores of epoch {best} of {len(epochs)}, the best ({result['evaluation']}):"
            if scores
            else "not scored: there is no split with labels beside what was trained on",
            *scores,
            f"weights {result['weights_digest']}",
        ]
    )
