"""Pool: open the batches that were sampled ahead and read any one of them with one direct read, verified.

Nothing here trusts a number from disk: the index columns are hashed against the manifest, then every offset and
size in them must be the one that the counts imply, before the first batch is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnnsys.errors import ConfigError, CorruptStoreError
from gnnsys.storage.bits import MAX_BITS
from gnnsys.storage.blob import (
    LABELS,
    Coding,
    PoolBatch,
    decode,
    num_sections,
    ring,
    ring_ids,
    section_hash,
    section_name,
)
from gnnsys.storage.direct import DirectFile, aligned_buffer, page_span
from gnnsys.storage.manifest import FileEntry, Manifest, read_manifest
from gnnsys.storage.pool_index import MEND, check_index, read_index, summary

FORMAT = "gnnsys-pool"
VERSION = 1
PARTS = ("shards", "index")
"""Folders of a Pool."""
VERIFY = ("first", "always", "off")


def shard_path(number: int) -> str:
    """Where shard `number` lies inside a Pool."""
    return f"shards/blobs-{number:05d}.bin"


class Pool:
    """A finished Pool. Make one with `gnnsys.sample`; safe to share between threads.

    Shapes: K batches, L hops, S = 2L + 3 sections.

    Attributes:
        fanouts: per hop, seed side first.
        order: `shuffle` or `fixed`.
        shard: (K,) uint32.  num_nodes: (K, L + 1) int64, cumulative.  num_edges: (K, L) int64.
        num_pairs: (K,) int64.  offset, bytes: (K, S) int64.  hash: (K, S) uint64.
        coding: how the blobs are coded.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.id = manifest.id
        self.digest = manifest.digest
        try:
            self._describe(manifest.parameters)
            id_bits, degree_bits = (int(manifest.counts[key]) for key in ("id_bits", "degree_bits"))
            label_columns = int(manifest.counts.get("label_columns", 0))
            self.coding = Coding(tuple(self.fanouts), id_bits, degree_bits, label_columns)
            if label_columns < 0 or not all(0 < bits <= MAX_BITS for bits in (id_bits, degree_bits)):
                raise ValueError("possible widths of ids, degrees and labels")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStoreError("GS-STORE-001", f"{path}: the manifest lacks {error}", hint=MEND) from error
        index = read_index(path, manifest, self.num_batches, self.hops)
        shards = _shards(path, manifest)
        check_index(path, index, self.coding, [entry.size for entry in shards])
        if summary(index, sum(entry.size for entry in shards), self.coding) != manifest.counts:
            raise CorruptStoreError("GS-STORE-007", f"{path}: index and counts of the manifest disagree", hint=MEND)
        self.shard, self.num_nodes, self.num_edges = index.shard, index.num_nodes, index.num_edges
        self.num_pairs, self.offset, self.bytes, self.hash = index.num_pairs, index.offset, index.bytes, index.hash
        self._files = [DirectFile(path / entry.path, entry.size) for entry in shards]
        self._verified = np.zeros(self.hash.shape, dtype=bool)

    @classmethod
    def open(cls, path: str | Path) -> Pool:
        """The Pool in folder `path`; its manifest and index are read and verified.

        Raises:
            InputDataError: no finished Pool is there.
            CorruptStoreError: manifest or index are damaged, or a shard is missing or of another size.
            VersionError: a newer gnnsys wrote it.
        """
        path = Path(path)
        return cls(path, read_manifest(path, FORMAT, VERSION))

    def __repr__(self) -> str:
        return f"Pool({str(self.path)!r}, batches={self.num_batches}, fanouts={self.fanouts}, order={self.order!r})"

    def __len__(self) -> int:
        return self.num_batches

    @property
    def id_dtype(self) -> np.dtype:
        """Type of node ids on disk where they are not packed."""
        return self.coding.id_dtype

    @property
    def store_id(self) -> str:
        """Id of the Store that was sampled."""
        return str(self.manifest.inputs["store"])

    @property
    def drawn(self) -> dict[str, Any]:
        """How it was sampled, but from which seeds and by which number."""
        parameters = self.manifest.parameters
        return {what: value for what, value in parameters.items() if what not in ("seed", "seeds")}

    def blob_bytes(self, k: int, hops: int | None = None, labels: bool = True) -> int:
        """Bytes that `read` with the same arguments requests: one contiguous run of pages."""
        start, stop = self._span(k, *self._sections(hops, labels))
        return stop - start

    def read(
        self,
        k: int,
        hops: int | None = None,
        labels: bool = True,
        buffer: np.ndarray | None = None,
        *,
        verify: str = "first",
    ) -> PoolBatch:
        """Batch k, or its inner `hops` hops.

        Args:
            k: number of the batch, in [0, K).
            hops: how many hops to deliver, in [0, L]; all when None. Only these are read.
            labels: also read labels and pairs; without, both are None.
            buffer: page-aligned uint8 of at least `blob_bytes(k, hops, labels)` to read into, reused by the caller;
                nothing in the batch points into it. Made per call when None.
            verify: hash sections on their `first` read through this object, `always`, or `off`.

        Raises:
            CorruptStoreError: a section is not what was written; names shard, batch and section.
            ConfigError: `hops` or `verify` is none of the above.
            IndexError, ValueError: there is no batch k; `buffer` is too small.
        """
        first, last = self._sections(hops, labels)
        start, stop = self._span(k, first, last)
        data = aligned_buffer(stop - start) if buffer is None else buffer[: stop - start]
        if len(data) < stop - start:
            raise ValueError(f"the buffer has {len(data)} bytes, batch {k} needs {stop - start}")
        sections, asked = self._fetch(k, first, last, start, data, verify)
        depth = (last - ring(0)) // 2
        try:
            return decode(
                sections,
                index=k,
                num_nodes=self.num_nodes[k, : depth + 1],
                num_edges=self.num_edges[k, :depth],
                num_pairs=int(self.num_pairs[k]),
                coding=self.coding,
                bytes_read=asked,
            )
        except CorruptStoreError as error:
            raise CorruptStoreError(error.code, f"{self._where(k)}: {error.message}", hint=MEND) from error

    def ids(self, k: int, hops: int | None = None, *, verify: str = "first") -> np.ndarray:
        """(n,) int64 ids of the nodes of batch k, or of those within its inner `hops` (0: the seeds); reads the rings
        only."""
        rings = np.diff(self.num_nodes[k], prepend=0)[: None if hops is None else hops + 1]
        parts = []
        for r, count in enumerate(rings):
            start, stop = self._span(k, ring(r), ring(r))
            sections, _ = self._fetch(k, ring(r), ring(r), start, aligned_buffer(stop - start), verify)
            parts.append(ring_ids(sections[ring(r)], int(count), self.coding))
        return np.concatenate(parts)

    def seed_ids(self) -> np.ndarray | None:
        """(n,) int64 nodes that were sampled for, None for pairs; reads the first ring of every batch."""
        if self._of_pairs:
            return None
        return np.concatenate([self.ids(k, 0) for k in range(self.num_batches)])

    def verify(self, deep: bool = False) -> list[str]:
        """Problems found, one sentence each; `deep` reads every batch again and checks what it says."""
        return [problem for k in range(self.num_batches) for problem in self._problems(k)] if deep else []

    def close(self) -> None:
        """Close the shards."""
        for file in self._files:
            file.close()

    def _describe(self, parameters: Any) -> None:
        self.fanouts = [int(f) for f in parameters["fanouts"]]
        self.hops = len(self.fanouts)
        self.batch_size = int(parameters["batch_size"])
        self.order = str(parameters["order"])
        self.seed = int(parameters["seed"])
        self.pool_index = int(parameters["pool_index"])
        self._of_pairs = parameters["pairs"] is not None
        self.num_batches = int(self.manifest.counts["batches"])
        str(self.manifest.inputs["store"])
        if self.manifest.counts["hops"] != self.hops or self.num_batches < 1:
            raise ValueError("a batch, or counts hops other than it has fanouts")

    def _sections(self, hops: int | None, labels: bool) -> tuple[int, int]:
        """First and last section of a read."""
        depth = self.hops if hops is None else hops
        if not 0 <= depth <= self.hops:
            raise ConfigError("GS-CFG-210", f"hops is {hops}; this pool has {self.hops} ({self.path})")
        return (LABELS if labels else ring(0)), ring(depth)

    def _span(self, k: int, first: int, last: int) -> tuple[int, int]:
        """Page-aligned byte range in the shard that holds sections first .. last of batch k."""
        if not 0 <= k < self.num_batches:
            raise IndexError(f"batch {k} of {self.num_batches}")
        return page_span(int(self.offset[k, first]), int(self.offset[k, last] + self.bytes[k, last]))

    def _fetch(
        self, k: int, first: int, last: int, start: int, data: np.ndarray, verify: str
    ) -> tuple[dict[int, np.ndarray], int]:
        """Read sections first .. last into `data` and verify them; views by number, and the bytes asked for."""
        if verify not in VERIFY:
            raise ConfigError("GS-CFG-211", f"verify is {verify!r}; it must be one of {', '.join(VERIFY)}")
        asked = self._files[int(self.shard[k])].read(data, start)
        begins = (self.offset[k, first : last + 1] - start).tolist()
        sizes = self.bytes[k, first : last + 1].tolist()
        sections = {
            number: data[begin : begin + size]
            for number, begin, size in zip(range(first, last + 1), begins, sizes, strict=True)
        }
        for number, section in sections.items():
            if verify == "always" or (verify == "first" and not self._verified[k, number]):
                self._check(k, number, section)
        return sections, asked

    def _check(self, k: int, number: int, section: np.ndarray) -> None:
        if section_hash(section, k) != int(self.hash[k, number]):
            raise CorruptStoreError(
                "GS-STORE-004", f"{self._where(k)}: {section_name(number)} fails its checksum", hint=MEND
            )
        self._verified[k, number] = True

    def _where(self, k: int) -> str:
        return f"{self.path / shard_path(int(self.shard[k]))}: batch {k}"

    def _problems(self, k: int) -> list[str]:
        start, stop = self._span(k, LABELS, num_sections(self.hops) - 1)
        data = aligned_buffer(stop - start)
        try:
            batch = self.read(k, buffer=data, verify="always")
        except CorruptStoreError as error:
            return [error.message]
        found = []
        for offset, size in zip(self.offset[k] - start, self.bytes[k], strict=True):
            data[offset : offset + size] = 0
        if data.any():
            found.append(f"{self._where(k)}: a gap between sections is not zero")
        if len(np.unique(batch.ids)) != len(batch.ids):
            found.append(f"{self._where(k)}: a node is listed twice")
        if not self._edges_follow(batch):
            found.append(f"{self._where(k)}: a node has not as many edges as degree and fanout say")
        return found

    def _edges_follow(self, batch: PoolBatch) -> bool:
        """Every node has min(degree, fanout) edges, with replacement the fanout when it has any; weights of 0, which
        are not known here, may leave it fewer."""
        sampled, parameters = np.diff(batch.indptr), self.manifest.parameters
        degree = batch.degree[: len(sampled)].astype(np.int64)
        fanout = np.repeat(np.array(self.fanouts, dtype=np.int64), np.diff(batch.num_nodes[:-1], prepend=0))
        chosen = np.where(degree > 0, fanout, 0) if parameters.get("replace") else np.minimum(fanout, degree)
        expected = np.where(fanout < 0, degree, chosen)
        return bool((sampled <= expected if parameters.get("weights") else sampled == expected).all())


def _shards(folder: Path, manifest: Manifest) -> list[FileEntry]:
    """Entries of the shards in order."""
    entries = [entry for entry in manifest.files if entry.role == "shard"]
    if [entry.path for entry in entries] != [shard_path(number) for number in range(len(entries))]:
        raise CorruptStoreError("GS-STORE-007", f"{folder}: a shard is not listed in the manifest", hint=MEND)
    return entries
