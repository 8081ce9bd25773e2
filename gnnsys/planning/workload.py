"""Workload: what one epoch asks for, as arrays over the batches; of whole batches or of their inner hops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnnsys.storage.aggregates import KEEP_OWN, sum_dtype
from gnnsys.storage.manifest import numpy_dtype
from gnnsys.storage.pool import Pool
from gnnsys.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one epoch asks for. Shapes: K batches.

    Attributes:
        num_nodes, row_bytes, columns: the feature table: N, r, F. r is 0 where no rows are read.
        sum_bytes: of an aggregate that comes with every node; 0 where there are none.
        id_bytes: width of a node id on disk.
        nodes, edges: (K,) int64 of every batch.
        inner_nodes: (K,) int64 destinations of the first layer: of a folded one all nodes that are left.
        seeds: (K,) int64.
        pool_bytes: (K,) int64 that reading the blob requests.
    """

    num_nodes: int
    row_bytes: int
    columns: int
    sum_bytes: int = 0
    id_bytes: int
    nodes: np.ndarray
    edges: np.ndarray
    inner_nodes: np.ndarray
    seeds: np.ndarray
    pool_bytes: np.ndarray

    @property
    def table_bytes(self) -> int:
        return self.num_nodes * self.row_bytes

    @property
    def requests(self) -> int:
        """T: nodes whose rows an epoch delivers."""
        return int(self.nodes.sum())

    @property
    def need_bytes(self) -> int:
        """Bytes of rows and aggregates that an epoch delivers."""
        return self.requests * (self.row_bytes + self.sum_bytes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sizes:
    """Sizes of K batches of L hops, from which a workload of any number of hops follows.

    Attributes:
        num_nodes: (K, L + 1) int64 cumulative; num_edges: (K, L) int64 per hop.
        blob_bytes: (K, L + 1) int64 that reading the blob up to every hop requests.
    """

    num_nodes: np.ndarray
    num_edges: np.ndarray
    blob_bytes: np.ndarray

    @classmethod
    def of_pool(cls, pool: Pool) -> Sizes:
        blobs = [[pool.blob_bytes(k, hops) for hops in range(pool.hops + 1)] for k in range(pool.num_batches)]
        return cls(num_nodes=pool.num_nodes, num_edges=pool.num_edges, blob_bytes=np.array(blobs, dtype=np.int64))

    @property
    def hops(self) -> int:
        return self.num_edges.shape[1]

    def repeated(self, count: int) -> Sizes:
        """Sizes of `count` batches, these over and over."""
        values = {name: np.resize(a, (count, *a.shape[1:])) for name, a in vars(self).items()}
        return Sizes(**values)

    def workload(self, store: Store) -> Workload:
        """Of all hops, from the table `x` of `store`."""
        return self._workload(store, self.hops, store.row_bytes(), 0)

    def folded(self, store: Store, how: str) -> Workload:
        """Of all hops but the outermost, which was folded: aggregates, and rows where the layer reads them."""
        dtype = store.table_dtype()
        sum_bytes = store.table_columns() * numpy_dtype(sum_dtype(dtype, how)).itemsize
        row_bytes = store.row_bytes() if KEEP_OWN[how] else 0
        return self._workload(store, self.hops - 1, row_bytes, sum_bytes)

    def _workload(self, store: Store, hops: int, row_bytes: int, sum_bytes: int) -> Workload:
        return Workload(
            num_nodes=store.num_nodes,
            row_bytes=row_bytes,
            columns=store.table_columns(),
            sum_bytes=sum_bytes,
            id_bytes=store.id_dtype.itemsize,
            nodes=self.num_nodes[:, hops],
            edges=self.num_edges[:, :hops].sum(axis=1),
            inner_nodes=self.num_nodes[:, max(self.hops - 1, 0)],
            seeds=self.num_nodes[:, 0],
            pool_bytes=self.blob_bytes[:, hops],
        )
