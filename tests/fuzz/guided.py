"""Coverage-guided runs of one target: `python -m tests.fuzz.guided TARGET -runs=100000`, see `make fuzz-guided`.

Options are libFuzzer's. A finding ends the run with its bytes in a file `crash-..` in the current folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

_WATCHED = ["gnnsys.ingestion", "gnnsys.storage", "gnnsys.training", "zipfile", "tomllib", "json"]
_COMPILED = [f"gnnsys.{name}" for name in ("ingestion.kernels", "storage.kernels", "storage.bits", "training.kernels")]
"""What numba compiles does not bear being watched."""

with atheris.instrument_imports(include=_WATCHED, exclude=_COMPILED):
    from gnnsys.errors import GnnsysError
    from tests.fuzz.targets import TARGETS, make_room


def main(name: str, options: list[str]) -> None:
    target, room = TARGETS[name], make_room(Path(tempfile.mkdtemp()))
    os.fsync = os.fdatasync = lambda _fd: None
    corpus = room / "corpus"
    corpus.mkdir()
    for number, sample in enumerate(target.samples(room / "golden")):
        (corpus / str(number)).write_bytes(sample)

    def run(data: bytes) -> None:
        with suppress(GnnsysError):
            target.parse(data, room)

    atheris.Setup([sys.argv[0], *options, str(corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
