"""What tests reach of storage, checkpoints and importers, and how many lines of tests there are: `make coverage`.

python -m tests.reached COVERAGE.json     tells, and records it for docs/reliability.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.programme import measured

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("gnnsys", "storage", "samplers", "models", "bench")


def main(report: Path) -> None:
    totals = json.loads(report.read_bytes())["totals"]
    figures = {
        "lines of storage, checkpoints and importers that tests reach, %": (
            100 * totals["covered_lines"] // totals["num_statements"]
        ),
        "branches of the same, %": 100 * totals["covered_branches"] // totals["num_branches"],
        "lines of tests per 100 lines of the product": 100 * _lines("tests") // _lines(*PRODUCT),
    }
    for name, value in figures.items():
        measured(name, value)
        sys.stdout.write(f"{name}: {value}\n")


def _lines(*folders: str) -> int:
    """Of code and prose in Python files; folders that are links are counted where they are."""
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py") if not _linked(path))
    return sum(len(path.read_bytes().splitlines()) for path in files)


def _linked(path: Path) -> bool:
    return path.resolve() != path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
