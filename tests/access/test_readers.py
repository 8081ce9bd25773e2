"""All readers give the rows of the table, bit by bit, and refuse ids that it does not have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnsys.access import probe
from gnnsys.access.ahead import gather_ahead
from gnnsys.access.probe import open_reader
from gnnsys.access.readers import CachedReader, CpuReader, FeatureReader, StagedReader, ZeroCopyReader
from gnnsys.access.ring import Ring
from gnnsys.errors import ConfigError, InputDataError

ROWS = 50
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.float64]
CPU = torch.device("cpu")


def table(dtype: torch.dtype, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(columns)
    return torch.randint(-100, 100, (ROWS, columns), generator=generator).to(dtype)


def cached(rows: Tensor) -> FeatureReader:
    return CachedReader(rows, torch.tensor([3, 49, 0, 7]), CPU, CpuReader(rows))


@pytest.mark.parametrize("make", [CpuReader, cached])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 32, 129])
def test_rows_are_those_asked_for(make: Callable[[Tensor], FeatureReader], dtype: torch.dtype, columns: int) -> None:
    rows = table(dtype, columns)
    reader = make(rows)
    for ids in ([], [7], [3, 3, 49, 0, 12, 3], list(range(ROWS))):
        found = reader.gather(torch.tensor(ids, dtype=torch.int32))
        expected = torch.stack([rows[i] for i in ids]) if ids else rows[:0]
        assert found.dtype == dtype
        assert torch.equal(found, expected)
        out = torch.empty(len(ids), columns, dtype=dtype)
        assert reader.gather(torch.tensor(ids, dtype=torch.int64), out=out) is out
        assert torch.equal(out, expected)
    reader.close()


@pytest.mark.parametrize("make", [CpuReader, cached])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([1, -1]), "row -1 is asked for, the table has 50"),
        (torch.tensor([50]), "row 50 is asked for"),
        (torch.tensor([1.0]), "torch.float32; row ids are"),
        (torch.tensor([[1]]), r"shape \(1, 1\)"),
        (torch.tensor([True]), "torch.bool"),
    ],
)
def test_other_ids_are_refused(make: Callable[[Tensor], FeatureReader], ids: Tensor, message: str) -> None:
    with pytest.raises(InputDataError, match=message):
        make(table(torch.float32, 4)).gather(ids)


@pytest.mark.parametrize("make", [CpuReader, cached])
@pytest.mark.parametrize(
    "out",
    [torch.empty(1, 4), torch.empty(2, 3), torch.empty(2, 4, dtype=torch.float64), torch.empty(4, 2).T],
    ids=["rows", "columns", "dtype", "layout"],
)
def test_an_out_that_does_not_fit_is_refused(make: Callable[[Tensor], FeatureReader], out: Tensor) -> None:
    with pytest.raises(InputDataError, match="GS-IN-821"):
        make(table(torch.float32, 4)).gather(torch.tensor([1, 2]), out=out)


class Broken(CpuReader):
    """Opens, and fails when it is used."""

    closed = 0

    def gather(self, ids: Tensor, out: Tensor | None = None, stream: Any = None) -> Tensor:
        raise RuntimeError("the compiler is not there")

    def close(self) -> None:
        Broken.closed += 1


def test_a_reader_that_fails_when_tried_is_passed_over_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.synchronize", lambda *_: None)
    monkeypatch.setattr(probe, "_PROBE_S", 0.0)
    rows = table(torch.float32, 4)
    assert type(probe._fastest(rows, torch.device("cpu"), [lambda: Broken(rows), lambda: CpuReader(rows)])) is CpuReader
    assert Broken.closed == 1
    with pytest.raises(ConfigError, match="the compiler is not there"):
        probe._fastest(rows, torch.device("cpu"), [lambda: Broken(rows)])


def test_hot_rows_do_not_come_from_the_host() -> None:
    rows = table(torch.float32, 8)
    reader = cached(rows)
    reader.gather(torch.tensor([3, 49, 0, 7, 7]))
    assert reader.nbytes_moved == 0
    reader.gather(torch.tensor([3, 1, 1, 2]))
    assert reader.nbytes_moved == 3 * 8 * 4


def test_a_cpu_reads_by_itself() -> None:
    rows = table(torch.float32, 8)
    assert isinstance(open_reader(rows), CpuReader)
    assert isinstance(open_reader(rows, hot=torch.tensor([1])), CachedReader)
    for backend in ("staged", "uva"):
        with pytest.raises(ConfigError, match=f"'{backend}' is not for cpu"):
            open_reader(rows, "cpu", backend)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch without CUDA")
def test_a_gpu_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-820.*no CUDA device"):
        open_reader(table(torch.float32, 8), "cuda")


def test_rows_come_ahead_in_order() -> None:
    rows = table(torch.float32, 8)
    asked = [torch.tensor([i, i + 1]) for i in range(5)]
    found = list(gather_ahead(CpuReader(rows), asked, CPU))
    assert all(torch.equal(each, rows[ids]) for each, ids in zip(found, asked, strict=True))


class Slow:
    """A device that reads buffers one after another, later than it was told to."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._last: threading.Thread | None = None

    def read(self, buffer: list[int]) -> Slow._Done:
        before = self._last

        def work() -> None:
            if before is not None:
                before.join()
            time.sleep(0.002)
            self.seen.append(buffer[0])

        self._last = threading.Thread(target=work)
        self._last.start()
        return Slow._Done(self._last)

    class _Done:
        def __init__(self, thread: threading.Thread) -> None:
            self._thread = thread

        def synchronize(self) -> None:
            self._thread.join()


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_a_buffer_is_not_written_while_it_is_read(buffers: int) -> None:
    device, ring = Slow(), Ring([[0] for _ in range(buffers)])
    for number in range(20):
        buffer = ring.take()
        buffer[0] = number
        done = device.read(buffer)
        ring.give(done)
    done.synchronize()
    assert device.seen == list(range(20))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", [StagedReader, ZeroCopyReader])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 32, 129, 300])
def test_a_gpu_gives_the_same_bits(kind: type, dtype: torch.dtype, columns: int) -> None:
    rows, device = table(dtype, columns), torch.device("cuda")
    reader = kind(rows, device)
    ids = torch.randint(ROWS, (1000,))
    assert torch.equal(reader.gather(ids).cpu(), rows[ids])
    assert torch.equal(reader.gather(ids.to(device)).cpu(), rows[ids])
    for ahead in gather_ahead(reader, [ids] * 5, device):
        assert torch.equal(ahead.cpu(), rows[ids])
    assert reader.gather(ids[:0]).shape == (0, columns)
    reader.close()
