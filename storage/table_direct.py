"""The direct table: the distinct pages under some rows, past the page cache, by many reads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gnnsys.storage import kernels
from gnnsys.storage.checksums import BLOCK_BYTES
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.files import PAGE
from gnnsys.storage.manifest import FileEntry
from gnnsys.storage.pages import page_runs
from gnnsys.storage.table_base import byte_rows
from gnnsys.storage.table_files import STAGE_PAGES, FileTable, Verify

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Fetch:
    """One read: rows in ascending order, where each goes, and the runs of pages under them."""

    ids: np.ndarray
    places: np.ndarray
    first: np.ndarray
    count: np.ndarray
    pages: np.ndarray  # (runs + 1,): pages before every run
    out: np.ndarray


class DirectTable(FileTable):
    """Rows by O_DIRECT: pages sorted, neighbours merged, read by `threads` at once.

    Every distinct page is read once per call, so the bytes read are exactly `request_bytes`. Memory: 1 MiB per
    thread. Where the file system refuses O_DIRECT the page cache serves, with one warning.

    Args:
        threads: reads in flight. They sleep in the kernel: more of them than cores is right.

    The other arguments and the errors are FileTable's.
    """

    def __init__(
        self, folder: Path, entry: FileEntry, artefact_id: str, verify: Verify = "first", threads: int = 16
    ) -> None:
        super().__init__(folder, entry, artefact_id, verify)
        self._file = DirectFile(self.path, self.num_bytes)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._made_of, self._threads)

    def _fill(self, ids: np.ndarray, out: np.ndarray) -> int:
        blocks = self._unverified(ids)
        self._in_parts(
            np.arange(len(blocks) + 1) * (BLOCK_BYTES // PAGE), lambda a, b: self._check(blocks[a:b], self._stage())
        )
        fetch = self._plan(ids, byte_rows(out))
        return sum(self._in_parts(fetch.pages, lambda a, b: self._fetch(fetch, a, b)))

    def read_raw(self, buffer: np.ndarray, offset: int) -> None:
        self._file.read(buffer, offset)

    def close(self) -> None:
        if self._pool is not None and self._pool_pid == os.getpid():
            self._pool.shutdown()
        self._pool = None
        self._file.close()
        self.num_rows = 0

    def _plan(self, ids: np.ndarray, out: np.ndarray) -> _Fetch:
        places = np.argsort(ids, kind="stable")
        first, count = page_runs(ids[places], self.row_bytes, longest=STAGE_PAGES)
        return _Fetch(ids[places], places, first, count, np.concatenate([[0], np.cumsum(count)]), out)

    def _in_parts(self, weight: np.ndarray, work: Callable[[int, int], _T]) -> list[_T]:
        """`work(begin, end)` over slices of about equal weight, at once; `weight` (n + 1,) is cumulative, in pages."""
        num_parts = int(min(self._threads, -(-int(weight[-1]) // 8)))
        cuts = np.unique(np.searchsorted(weight, np.linspace(0, weight[-1], num_parts + 1)))
        parts = list(pairwise(cuts.tolist()))
        if len(parts) == 1:
            return [work(*parts[0])]
        futures = [self._executor().submit(work, *part) for part in parts]
        wait(futures)  # all of them, before an error can free the arrays they write to
        return [future.result() for future in futures]

    def _fetch(self, fetch: _Fetch, begin: int, end: int) -> int:
        """Read runs begin .. end and copy their rows out; returns the bytes asked for."""
        stage, asked = self._stage(), 0
        while begin < end:
            stop = int(np.searchsorted(fetch.pages, fetch.pages[begin] + STAGE_PAGES, side="right")) - 1
            stop = min(stop, end)
            asked += self._read_runs(fetch, begin, stop, stage)
            kernels.copy_pieces(
                fetch.ids, fetch.places, self.row_bytes, fetch.first, fetch.count, begin, stop, PAGE, stage, fetch.out
            )
            begin = stop
        return asked

    def _read_runs(self, fetch: _Fetch, begin: int, end: int, stage: np.ndarray) -> int:
        """Runs begin .. end one after another into the stage, returning the bytes asked for; the kernel leaves odd
        cases (end of file, a refusing file system, an error) to DirectFile."""
        done, asked = begin, 0
        while done < end:
            at = int(fetch.pages[done] - fetch.pages[begin]) * PAGE
            first = done
            done = kernels.read_runs(self._file.fd, fetch.first, fetch.count, first, end, PAGE, stage[at:])
            asked += int(fetch.pages[done] - fetch.pages[first]) * PAGE
            if done < end:
                at = int(fetch.pages[done] - fetch.pages[begin]) * PAGE
                num_bytes = int(fetch.count[done]) * PAGE
                asked += self._file.read(stage[at : at + num_bytes], int(fetch.first[done]) * PAGE)
                done += 1
        return asked

    def _stage(self) -> np.ndarray:
        if not hasattr(self._local, "stage"):
            self._local.stage = aligned_buffer(STAGE_PAGES * PAGE)
        stage: np.ndarray = self._local.stage
        return stage

    def _executor(self) -> ThreadPoolExecutor:
        """The reading threads; a forked child starts its own."""
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gnnsys-direct")
                self._pool_pid = os.getpid()
            return self._pool
