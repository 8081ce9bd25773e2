"""How many changes to the core of storage its tests notice: `make mutants`.

python -m tests.mutants STATS.json     tells, and records it for docs/reliability.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.programme import measured


def main(stats: Path) -> None:
    counts = json.loads(stats.read_bytes())
    noticed = counts["killed"] + counts["timeout"] + counts["segfault"] + counts["suspicious"]
    measured("changes to the core of storage", counts["total"])
    measured("mutation score of the core of storage, %", 100 * noticed // counts["total"])
    sys.stdout.write(
        f"{noticed:,} of {counts['total']:,} changes noticed; {counts['no_tests']:,} are reached by no test\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
