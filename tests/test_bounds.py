"""Kernels stay inside their arrays: their tests once more, in a process in which numba checks every index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "samplers/test_tree.py",
    "samplers/test_links.py",
    "samplers/test_draws.py",
    "storage/test_bits.py",
    "storage/test_kernels.py",
]


def test_no_kernel_reads_or_writes_outside_its_arrays(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", *(f"tests/{name}" for name in TESTS)],
        cwd=ROOT,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-3000:]
