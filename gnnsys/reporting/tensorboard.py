"""What a run wrote down as TensorBoard events, for those who look at everything there."""

from __future__ import annotations

from pathlib import Path

from gnnsys.errors import MissingDependencyError
from gnnsys.reporting.facts import RunFacts

_OURS = ".gnnsys"
"""How names of our event files end: those of an earlier time are replaced, others stay."""


def write_tensorboard(run: RunFacts, folder: Path) -> None:
    """Event files in `folder/<name of the run>`: `train/loss`, `train/lr`, `eval/valid/<metric>`,
    `final/<split>/<metric>`, `perf/epoch_s`, `perf/wait_frac`, `perf/seeds_per_s`, `perf/<stage>_s`,
    `mem/growth_bytes`, `io/read_bytes`.

    Those of an earlier call are replaced.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "GS-DEP-004", "TensorBoard events need the package tensorboard", hint='pip install "gnnsys[report]"'
        ) from error
    for earlier in (folder / run.name).glob(f"events.out.tfevents.*{_OURS}"):
        earlier.unlink()
    with SummaryWriter(str(folder / run.name), filename_suffix=_OURS) as writer:
        for epoch in run.epochs:
            writer.add_scalar("train/loss", epoch.loss, epoch.number)
            writer.add_scalar("perf/epoch_s", epoch.seconds, epoch.number)
            if epoch.valid is not None:
                writer.add_scalar(f"eval/valid/{run.metric}", epoch.valid, epoch.number)
            if epoch.waited is not None and epoch.seconds:
                writer.add_scalar("perf/wait_frac", epoch.waited / epoch.seconds, epoch.number)
            if epoch.growth is not None:
                writer.add_scalar("mem/growth_bytes", epoch.growth, epoch.number)
            for key, value in epoch.told.items():
                writer.add_scalar("train/lr" if key == "lr" else f"perf/{key}", value, epoch.number)
        for number, count in enumerate((run.result or {}).get("bytes_read", [])):
            writer.add_scalar("io/read_bytes", count, number)
        for split, metrics in (run.result or {}).get("metrics", {}).items():
            for name, value in metrics.items():
                writer.add_scalar(f"final/{split}/{name}", value, len(run.epochs))
