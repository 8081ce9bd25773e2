"""What the accuracy scripts share: where the data is, and a small JSON for the generated table of docs/accuracy.md."""

import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def arguments(argv: Sequence[str], default: str) -> tuple[Path, Path]:
    """The data file (first argument, or below $GNNSYS_DATA) and a folder to work in (second, or a new one)."""
    data = Path(argv[1]) if len(argv) > 1 else Path(os.environ.get("GNNSYS_DATA", BESIDE)) / default
    work = Path(argv[2]) if len(argv) > 2 else Path(tempfile.mkdtemp(prefix="gnnsys-example-"))
    return data, work


def mean_and_deviation(values: Sequence[float]) -> str:
    """Such as `82.64% ± 0.62%`; of one value there is no deviation."""
    if len(values) < 2:
        return f"{values[0]:.2%}" if values else "none"
    return f"{statistics.mean(values):.2%} ± {statistics.stdev(values):.2%}"


def save(
    script: str, *, name: str, setting: str, goal: str, values: Sequence[float], seconds: float, variant: str = ""
) -> None:
    """Print mean and deviation and keep them beside the script.

    Args:
        variant: part of the file's name, for scripts with several results.
    """
    print(f"{name}: {mean_and_deviation(values)} over {len(values)} runs, {seconds:.0f} s (goal {goal})", flush=True)
    path = Path(script).resolve()
    result = {
        "name": name,
        "script": path.name,
        "setting": setting,
        "goal": goal,
        "values": list(values),
        "mean": statistics.mean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "seconds": round(seconds, 1),
    }
    (path.parent / "results" / f"{path.stem}{'-' * bool(variant)}{variant}.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )
