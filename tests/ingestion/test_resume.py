"""Kill anywhere, repeat, and the same bytes come out: every moment at which ingest reports progress is tried."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.ingestion import ArraySource, ingest
from gnnsys.storage.store import Store
from tests.graphs import ingest_arrays

pytestmark = pytest.mark.usefixtures("tiny")


class Killed(BaseException):
    """Stands for the end of the process."""


def _killer(calls: int) -> Callable[[str, float, float], None]:
    """Progress that dies at call number `calls`."""
    left = iter(range(calls))

    def report(_stage: str, _done: float, _total: float) -> None:
        if next(left, None) is None:
            raise Killed

    return report


def _files(folder: Path) -> dict[str, Any]:
    """Sources of every kind in `folder`, with the options that reach every step."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 40, (300, 2))
    x = rng.random((40, 6)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savetxt(folder / "y.txt", rng.integers(0, 2, 40), fmt="%d")
    for name, letter in (("names.csv", "n"), ("e.csv", "")):
        rows = (f"{letter}{a},{letter}{b}\n" + "# a comment\n\n" * int(a == b) for a, b in pairs)
        (folder / name).write_text("".join(rows))
    named = [f"n{node}" for node in rng.permutation(np.unique(pairs))]
    (folder / "rows.csv").write_text("".join(f"{name},{i},.5\n" for i, name in enumerate(named)))
    (folder / "classes.csv").write_text("".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(named)))
    masks = rng.permuted(np.tile(np.repeat([0, 1, 2, 3], 10), (2, 1)), axis=1)
    splits = {f"{name}_masks": masks == i for i, name in enumerate(("train", "val", "test"))}
    np.savez_compressed(folder / "e.npz", edges=pairs, node_features=x, node_labels=rng.integers(0, 3, 40), **splits)
    return {
        "synthetic": ("synthetic:powerlaw:nodes=60,edges=500,feat=6,classes=4", {"largest_component": True}),
        "npz": (f"npz:{folder / 'e.npz'}", {"undirected": True, "normalize_features": "row", "split": "given:1"}),
        "csv": (
            f"edges:{folder / 'e.csv'}",
            {"features": folder / "x.npy", "labels": folder / "y.txt", "split": "per-class:2/3"},
        ),
        "rows": (
            f"edges:{folder / 'names.csv'}",
            {"features": folder / "rows.csv", "labels": folder / "classes.csv", "split": "random:40/30/30"},
        ),
        "names": (f"edges:{folder / 'names.csv'}", {"largest_component": True}),
    }


KINDS = ["synthetic", "npz", "csv", "rows", "names"]


@pytest.fixture
def case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, Any], Store]:
    """(source, options, the Store that an uninterrupted ingest made)."""
    monkeypatch.setattr("gnnsys.ingestion.text_names._NAME_BYTES", 1)
    (tmp_path / "in").mkdir()
    source, options = _files(tmp_path / "in")[request.param]
    return source, options, ingest(source, tmp_path / "golden", **options)


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_a_kill_at_any_moment_leaves_the_same_store(case: tuple[str, dict[str, Any], Store], tmp_path: Path) -> None:
    source, options, golden = case
    for calls in range(1000):
        out = tmp_path / str(calls)
        try:
            ingest(source, out, memory=4000, workers=1, progress=_killer(calls), **options)
            break
        except Killed:
            # Continue with other memory and workers: neither may show.
            assert ingest(source, out, memory=6000, workers=2, **options).digest == golden.digest
    assert calls > 10


@pytest.mark.parametrize("case", KINDS, indirect=True)
@pytest.mark.parametrize("calls", [1, 2, 3, 7])
def test_a_chain_of_kills_leaves_the_same_store(
    case: tuple[str, dict[str, Any], Store], calls: int, tmp_path: Path
) -> None:
    source, options, golden = case
    out, kills = tmp_path / "out", 0
    while kills < 12:
        try:
            ingest(source, out, memory=4000, workers=1, progress=_killer(calls + kills), **options)
            break
        except Killed:
            kills += 1
    store = ingest(source, out, memory=4000, **options)
    assert store.digest == golden.digest
    assert store.verify(deep=True) == []
    assert kills > 0


@pytest.mark.parametrize("report", range(6, 11))
def test_a_blank_line_at_the_end_of_a_unit_is_not_forgotten(tmp_path: Path, report: int) -> None:
    """Units of labels are 1,162 bytes here; the row behind the blank line is read by another process."""
    (tmp_path / "e.csv").write_text("0,699\n")
    (tmp_path / "y.txt").write_text("0\n" * 579 + "10\n" + "\n" + "0\n" * 120)
    kill = _killer(report)

    def in_labels(stage: str, done: float, total: float) -> None:
        if stage == "read y.txt":
            kill(stage, done, total)

    options = {"labels": tmp_path / "y.txt", "memory": 4000, "workers": 1}
    with pytest.raises((Killed, InputDataError)):
        ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s", progress=in_labels, **options)
    with pytest.raises(InputDataError, match=r"GS-IN-188: .*row 582 stands behind a blank line"):
        ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s", **options)


def test_a_finished_ingest_repeated_reads_no_edge(tmp_path: Path) -> None:
    source = ArraySource((np.array([0, 1]), np.array([1, 0])))
    first = ingest(source, tmp_path)

    def untouchable(*_: object) -> Any:
        raise AssertionError("the source was read again")

    source.edges = untouchable  # type: ignore[method-assign]
    assert ingest(source, tmp_path, memory="1GiB", workers=3).digest == first.digest


@pytest.mark.parametrize("mend", ["option", "file"])
def test_a_refused_first_try_does_not_stand_in_the_way_of_the_second(tmp_path: Path, mend: str) -> None:
    edges = tmp_path / "e.csv"
    edges.write_text("0,1\n1,-2\n")
    with pytest.raises(InputDataError, match="--on-bad-edge drop"):
        ingest(f"edges:{edges}", tmp_path / "s")
    if mend == "file":
        edges.write_text("0,1\n1,2\n")
    store = ingest(f"edges:{edges}", tmp_path / "s", on_bad_edge="error" if mend == "file" else "drop")
    assert store.verify(deep=True) == []


def test_nothing_of_a_refused_first_try_stays_behind(tmp_path: Path) -> None:
    src, dst, y = np.array([0, 1]), np.array([1, 0]), np.array([0, -7])
    with pytest.raises(InputDataError, match="GS-IN-130"):
        ingest_arrays(tmp_path, src, dst, x=np.ones((2, 1)), y=y)
    ingest_arrays(tmp_path, src, dst)
    assert {p.parent.name for p in tmp_path.rglob("*.bin*")} == {"graph"}


def test_another_input_is_refused_with_the_difference(tmp_path: Path) -> None:
    ingest_arrays(tmp_path, np.array([0, 1]), np.array([1, 0]))
    with pytest.raises(ConfigError, match="GS-CFG-010"):
        ingest_arrays(tmp_path, np.array([0, 1]), np.array([1, 1]))
    with pytest.raises(ConfigError, match="undirected was False, now True"):
        ingest_arrays(tmp_path, np.array([0, 1]), np.array([1, 0]), undirected=True)
