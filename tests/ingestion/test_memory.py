"""The memory promise of ingest, measured from outside while ten times the memory passes through."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

MEMORY = 16 << 20
FIELDS = ("RssAnon:", "RssShmem:", "VmSwap:")

CHILD = """
import sys
from gnnsys.ingestion import ingest
small, large, out = sys.argv[1:4]
options = {name: True for name in sys.argv[5:]}
ingest(small, out + "-small", memory=int(sys.argv[4]), **options)
print("warm", flush=True)
sys.stdin.readline()
ingest(large, out, memory=int(sys.argv[4]), **options)
"""


def _counted(pid: int) -> int:
    """Anonymous + shared + swapped bytes of a process, 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(FIELDS))


def _growth(small: str, large: str, out: Path, *options: str) -> int:
    """Peak of a child that ingests `large`, less what it held after it had ingested `small`."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, small, large, str(out), str(MEMORY), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "warm\n"
    baseline = peak = _counted(child.pid)
    child.stdin.write("go\n")
    child.stdin.flush()
    while child.poll() is None:
        peak = max(peak, _counted(child.pid))
        time.sleep(0.002)
    child.communicate()
    assert child.returncode == 0
    return peak - baseline


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(8 nodes, 160 MB of edges) as sources."""
    folder = tmp_path_factory.mktemp("edges")
    rng = np.random.default_rng(0)
    np.save(folder / "small.npy", rng.integers(0, 8, (30, 2)))
    np.save(folder / "large.npy", rng.integers(0, 100_000, (10_500_000, 2)))
    return f"edges:{folder / 'small.npy'}", f"edges:{folder / 'large.npy'}"


@pytest.mark.parametrize(
    "option",
    ["", *(pytest.param(option, marks=pytest.mark.slow) for option in ("undirected", "largest_component"))],
)
def test_edges_of_ten_times_the_memory(tmp_path: Path, edges: tuple[str, str], option: str) -> None:
    assert Path(edges[1].removeprefix("edges:")).stat().st_size >= 10 * MEMORY
    assert _growth(*edges, tmp_path / "s", *filter(None, [option])) <= MEMORY


@pytest.mark.slow
def test_features_of_ten_times_the_memory(tmp_path: Path) -> None:
    sources = [f"synthetic:powerlaw:nodes={n},edges={8 * n},feat=128" for n in (8, 330_000)]
    assert 10 * MEMORY <= 330_000 * 512
    assert _growth(*sources, tmp_path / "s") <= MEMORY
