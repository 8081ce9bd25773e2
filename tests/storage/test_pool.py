"""A pool is read by whole runs of pages, hop by hop when asked, and nothing in it is believed unchecked."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.samplers.sample import sample
from gnnsys.samplers.seeds import Seeds
from gnnsys.storage.blob import PAIRS, Coding, decode, expected_bytes, hop, ring, section_name
from gnnsys.storage.direct import DirectFile, aligned_buffer
from gnnsys.storage.pool import Pool, shard_path
from gnnsys.storage.pool_index import PoolIndex, check_index, columns
from gnnsys.storage.store import Graph
from tests.storage.test_bits import packed_of

FIELDS = ("num_nodes", "ids", "degree", "indptr", "indices", "labels", "pairs", "pair_label", "t")
FANOUTS = [5, -1, 2]


@dataclass
class MemoryStore:
    """300 nodes with in-degrees 0 .. 15, all labelled."""

    id: str = "xxh3-128:memory"
    path: Path = Path("memory")
    num_nodes: int = 300
    max_degree: int = 15

    @property
    def num_edges(self) -> int:
        return len(self.graph.indices)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        degrees = rng.integers(0, 16, 300)
        self.graph = Graph(np.append(0, np.cumsum(degrees)), rng.integers(0, 300, degrees.sum()).astype(np.int32))

    def labels(self) -> np.ndarray:
        return np.arange(300) % 7

    def is_added(self, path: str) -> bool:
        return False

    def split(self, name: str) -> np.ndarray:
        return np.arange(0, 300, 3)


def make(folder: Path, kind: str = "nodes") -> Pool:
    rng = np.random.default_rng(0)
    events = Seeds.links(rng.integers(0, 300, (60, 2)), negatives=1, exclude="none", t=np.arange(60), order="fixed")
    return sample(MemoryStore(), folder, seeds="train" if kind == "nodes" else events, fanouts=FANOUTS, batch_size=24)


@pytest.fixture(scope="module", params=["nodes", "events"])
def pool(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return make(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def own_pool(tmp_path: Path) -> Path:
    """A pool that the test may damage."""
    make(tmp_path, "events").close()
    return tmp_path


def assert_equal(a: Any, b: Any, fields: tuple[str, ...] = FIELDS) -> None:
    for name in fields:
        expected, found = getattr(a, name), getattr(b, name)
        assert (expected is None) == (found is None), name
        if expected is not None:
            assert np.array_equal(expected, found), name


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_fewer_hops_are_a_prefix_of_all_hops(pool: Pool, hops: int) -> None:
    for k in range(pool.num_batches):
        whole, inner = pool.read(k), pool.read(k, hops)
        nodes = int(whole.num_nodes[hops])
        into = int(whole.num_nodes[hops - 1]) if hops else 0
        cut = replace(
            whole,
            num_nodes=whole.num_nodes[: hops + 1],
            ids=whole.ids[:nodes],
            degree=whole.degree[:nodes],
            indptr=whole.indptr[: into + 1],
            indices=whole.indices[: whole.indptr[into]],
        )
        assert_equal(cut, inner)


def test_fewer_hops_ask_for_fewer_bytes(pool: Pool) -> None:
    wanted = [pool.blob_bytes(0, hops) for hops in range(pool.hops + 1)]
    assert wanted == sorted(set(wanted))
    assert pool.blob_bytes(0, 1, labels=False) < pool.blob_bytes(0, 1)


@pytest.mark.parametrize("hops", [0, 1, 2, 3, None])
@pytest.mark.parametrize("labels", [True, False])
def test_a_read_is_one_request_of_exactly_the_bytes_foretold(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, hops: int | None, labels: bool
) -> None:
    asked: list[int] = []
    read = DirectFile.read

    def counting(file: DirectFile, out: np.ndarray, offset: int) -> int:
        assert offset % 4096 == out.ctypes.data % 4096 == len(out) % 4096 == 0
        asked.append(len(out))
        return read(file, out, offset)

    monkeypatch.setattr(DirectFile, "read", counting)
    batch = pool.read(1, hops, labels)
    assert asked == [batch.bytes_read] == [pool.blob_bytes(1, hops, labels)]


def test_without_labels_neither_labels_nor_pairs_are_delivered(pool: Pool) -> None:
    whole, bare = pool.read(0), pool.read(0, labels=False)
    assert_equal(replace(whole, labels=None, pairs=None, pair_label=None, t=None), bare)


def test_a_batch_outlives_the_buffer_it_was_read_into(pool: Pool) -> None:
    buffer = aligned_buffer(max(pool.blob_bytes(k) for k in range(pool.num_batches)))
    first = pool.read(0, buffer=buffer)
    pool.read(1, buffer=buffer)
    buffer[:] = 255
    assert_equal(pool.read(0), first)


def test_a_buffer_that_is_too_small_is_refused(pool: Pool) -> None:
    with pytest.raises(ValueError, match="batch 0 needs"):
        pool.read(0, buffer=aligned_buffer(4096))


def test_ids_are_those_of_the_batch(pool: Pool) -> None:
    for k in range(pool.num_batches):
        assert pool.ids(k).tolist() == pool.read(k).ids.tolist()
        assert pool.ids(k, 0).tolist() == pool.read(k, 0).ids.tolist()


def unpacked(data: bytes, parts: list[tuple[int, int]]) -> list[np.ndarray]:
    """(count, bits) after (count, bits) of packed integers, with numpy alone."""
    arrays, at = [], 0
    for count, bits in parts:
        size = -(-count * bits // 64) * 8
        flat = np.unpackbits(np.frombuffer(data, np.uint8, size, at), bitorder="little")[: count * bits]
        arrays.append(flat.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits)))
        at += size + 8 * (size > 0)
    assert at == len(data)
    return arrays


def test_the_documented_format_is_enough_to_read_a_pool(pool: Pool) -> None:
    """docs/formats.md with numpy and json alone."""
    manifest = json.loads((pool.path / "manifest.json").read_text())
    types = {"U32": "<u4", "I64": "<i8", "U64": "<u8"}
    index = {
        Path(f["path"]).stem: np.fromfile(pool.path / f["path"], types[f["dtype"]]).reshape(f["shape"])
        for f in manifest["files"]
        if f["role"] == "index"
    }
    for k in range(manifest["counts"]["batches"]):
        shard = (pool.path / f"shards/blobs-{index['shard'][k]:05d}.bin").read_bytes()
        places = zip(index["offset"][k], index["bytes"][k], strict=True)
        sections = [shard[start : start + size] for start, size in places]
        hashes = [xxhash.xxh3_64_intdigest(s, seed=k) for s in sections]
        assert hashes == index["hash"][k].tolist()
        assert (index["offset"][k] % 4096 == 0).all()
        batch, rings = pool.read(k), np.diff(index["num_nodes"][k], prepend=0)
        widths = [manifest["counts"]["id_bits"], manifest["counts"]["degree_bits"]]
        coded = [unpacked(s, [(n, b) for b in widths]) for s, n in zip(sections[2::2], rings, strict=True)]
        ids, degrees = zip(*coded, strict=True)
        counts, sources = [], []
        for h, fanout in enumerate(manifest["parameters"]["fanouts"], start=1):
            nodes, edges = int(index["num_nodes"][k, h]), int(index["num_edges"][k, h - 1])
            parts = [(rings[h - 1], widths[1] if fanout < 0 else fanout.bit_length()), (edges, 1)]
            parts.append((edges - rings[h], (nodes - 1).bit_length()))
            found, new, old = unpacked(sections[1 + 2 * h], parts)
            counts.append(found)
            of_edges = np.empty(edges, dtype=np.int64)
            of_edges[new == 1] = np.arange(nodes - rings[h], nodes)
            of_edges[new == 0] = old
            sources.append(of_edges)
        assert np.concatenate(ids).tolist() == batch.ids.tolist()
        assert np.concatenate(degrees).tolist() == batch.degree.tolist()
        assert np.concatenate(counts).tolist() == np.diff(batch.indptr).tolist()
        assert np.concatenate(sources).tolist() == batch.indices.tolist()
        if batch.labels is not None:
            assert np.frombuffer(sections[0], "<i8").tolist() == batch.labels.tolist()
        if batch.pairs is not None and batch.pair_label is not None and batch.t is not None:
            pairs = int(index["num_pairs"][k])
            assert np.frombuffer(sections[1], "<i4", 2 * pairs).tolist() == batch.pairs.reshape(-1).tolist()
            assert np.frombuffer(sections[1], "|u1", pairs, 8 * pairs).tolist() == batch.pair_label.tolist()
            assert np.frombuffer(sections[1], "<i8", offset=9 * pairs).tolist() == batch.t.tolist()


def test_a_pool_names_its_parts(pool: Pool) -> None:
    assert (pool.hops, pool.fanouts, pool.batch_size, pool.seed, pool.pool_index) == (3, FANOUTS, 24, 0, 0)
    assert pool.store_id == "xxh3-128:memory"
    assert pool.num_nodes[:, -1].max() == pool.manifest.counts["max_nodes"]
    assert len(pool) == pool.num_batches == (5 if pool.order == "shuffle" else 3)


def test_threads_can_share_a_pool(pool: Pool) -> None:
    expected = [pool.read(k) for k in range(pool.num_batches)]
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            for k in [*range(pool.num_batches)] * 10:
                assert_equal(expected[k], pool.read(k, verify="always"))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_in_every_section_and_named(own_pool: Path) -> None:
    pool = Pool.open(own_pool)
    shard = own_pool / shard_path(0)
    for section in np.flatnonzero(pool.bytes[1]).tolist():
        for place in (0, int(pool.bytes[1, section]) - 1):
            flip(shard, int(pool.offset[1, section]) + place)
            damaged = Pool.open(own_pool)
            with pytest.raises(CorruptStoreError) as caught:
                damaged.read(1)
            expected = f"{shard}: batch 1: {section_name(section)} fails its checksum"
            assert (caught.value.code, caught.value.message) == ("GS-STORE-004", expected)
            assert damaged.verify(deep=True) == [expected]
            flip(shard, int(pool.offset[1, section]) + place)
    assert pool.verify(deep=True) == []


def test_damage_in_an_outer_hop_does_not_stop_a_reader_of_the_inner_ones(own_pool: Path) -> None:
    pool = Pool.open(own_pool)
    flip(own_pool / shard_path(0), int(pool.offset[0, hop(3)]))
    assert pool.read(0, 2).hops == 2
    with pytest.raises(CorruptStoreError, match="hop 3"):
        pool.read(0)


def test_damage_in_a_ring_stops_a_reader_of_ids(own_pool: Path) -> None:
    pool = Pool.open(own_pool)
    flip(own_pool / shard_path(0), int(pool.offset[0, ring(2)]))
    with pytest.raises(CorruptStoreError, match="ring 2"):
        pool.ids(0)


def test_sections_are_hashed_on_their_first_read_always_or_never(own_pool: Path) -> None:
    pool = Pool.open(own_pool)
    pool.read(0)
    # A degree: wrong, and harmless to decode.
    flip(own_pool / shard_path(0), int(pool.offset[0, ring(0)] + pool.bytes[0, ring(0)] - 4))
    assert pool.read(0).hops == 3
    assert Pool.open(own_pool).read(0, verify="off").hops == 3
    with pytest.raises(CorruptStoreError, match="ring 0"):
        pool.read(0, verify="always")


def test_blobs_that_changed_places_are_found(own_pool: Path) -> None:
    """Equal sizes, right hashes, wrong batch: the number of the batch is in the hash."""
    pool = Pool.open(own_pool)
    data = bytearray((own_pool / shard_path(0)).read_bytes())
    size = int(pool.bytes[0, 1])
    assert size == pool.bytes[1, 1]
    first, second = int(pool.offset[0, 1]), int(pool.offset[1, 1])
    data[first : first + size], data[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )
    (own_pool / shard_path(0)).write_bytes(data)
    with pytest.raises(CorruptStoreError, match="pairs fails its checksum"):
        Pool.open(own_pool).read(0)


def test_a_truncated_shard_is_found_at_open(own_pool: Path) -> None:
    shard = own_pool / shard_path(0)
    shard.write_bytes(shard.read_bytes()[:-4096])
    with pytest.raises(CorruptStoreError, match=r"blobs-00000.bin: \d+ bytes, its manifest says"):
        Pool.open(own_pool)


@pytest.mark.parametrize("name", [shard_path(0), *(f"index/{c}.bin" for c in columns(1, 1))])
def test_a_missing_file_is_found_at_open(own_pool: Path, name: str) -> None:
    (own_pool / name).unlink()
    with pytest.raises(CorruptStoreError, match=rf"{name}: the file is missing"):
        Pool.open(own_pool)


@pytest.mark.parametrize("name", columns(1, 1))
def test_a_flipped_bit_in_a_column_is_found_at_open(own_pool: Path, name: str) -> None:
    flip(own_pool / f"index/{name}.bin", 3)
    with pytest.raises(CorruptStoreError, match=f"{name}.bin: fails its checksum"):
        Pool.open(own_pool)


def test_the_column_of_another_pool_is_found_at_open(own_pool: Path, tmp_path_factory: Any) -> None:
    other = make(tmp_path_factory.mktemp("other"))
    (own_pool / "index/num_nodes.bin").write_bytes((other.path / "index/num_nodes.bin").read_bytes())
    with pytest.raises(CorruptStoreError):
        Pool.open(own_pool)


def index_of(pool: Pool) -> PoolIndex:
    return PoolIndex(**{name: getattr(pool, name).copy() for name in columns(1, 1)})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([c for c in columns(1, 1) if c != "hash"]), st.data())
def test_an_index_whose_numbers_do_not_agree_is_refused(pool: Pool, name: str, data: st.DataObject) -> None:
    """Any other value in any place, also one that overflows, though its checksum were right."""
    index = index_of(pool)
    column = getattr(index, name).reshape(-1)
    place = data.draw(st.integers(0, len(column) - 1))
    near = st.integers(int(column[place]) - 9, int(column[place]) + 9)
    info = np.iinfo(column.dtype)
    value = data.draw((near | st.integers(info.min, info.max)).filter(lambda v: info.min <= v <= info.max))
    shard_bytes = [pool.manifest.counts["bytes"]]
    before = expected_bytes(index.num_nodes, index.num_edges, index.num_pairs, pool.coding)
    column[place] = value
    check = partial(check_index, pool.path, index, pool.coding, shard_bytes)
    if all(np.array_equal(getattr(index, other), getattr(pool, other)) for other in columns(1, 1)):
        check()
        return
    try:
        check()
    except CorruptStoreError as error:
        assert error.code == "GS-STORE-007"
    else:  # other counts that take just as much room: nothing outside a section will be read
        assert name in ("num_nodes", "num_edges")
        after = expected_bytes(index.num_nodes, index.num_edges, index.num_pairs, pool.coding)
        assert (before == after)[pool.bytes > 0].all()


def test_blobs_beyond_the_end_of_their_shard_are_refused(pool: Pool) -> None:
    with pytest.raises(CorruptStoreError, match="offset"):
        check_index(pool.path, index_of(pool), pool.coding, [pool.manifest.counts["bytes"] - 4096])


CODING = Coding(fanouts=(2,), id_bits=5, degree_bits=3)


def sections_of_one_hop(counts: list[int], flags: list[int], old: list[int]) -> dict[int, np.ndarray]:
    """Three seeds; edges by their counts, which of them are flagged as new, and the sources of the others."""
    seeds = np.concatenate(
        [packed_of(np.array([10, 11, 12]), CODING.id_bits), packed_of(np.array([3, 3, 3]), CODING.degree_bits)]
    )
    body = np.concatenate([packed_of(np.array(counts), 2), packed_of(np.array(flags), 1), packed_of(np.array(old), 2)])
    return {ring(0): seeds, hop(1): body, ring(1): np.empty(0, np.uint8)}


@pytest.mark.parametrize(
    ("counts", "flags", "old", "message"),
    [
        ([1, 1, 2], [0, 0, 0], [0, 1, 2], "do not add up to its 3 edges"),
        ([0, 1, 1], [0, 0, 0], [0, 1, 2], "do not add up to its 3 edges"),
        ([1, 1, 1], [0, 0, 0], [0, 1, 3], "beyond the 3"),
        ([1, 1, 1], [0, 1, 0], [0, 1, 2], "do not lead to 0 new nodes"),
    ],
)
def test_a_hop_that_does_not_add_up_is_refused_though_its_hash_were_right(
    counts: list[int], flags: list[int], old: list[int], message: str
) -> None:
    with pytest.raises(CorruptStoreError, match=message):
        decode(
            sections_of_one_hop(counts, flags, old),
            index=0,
            num_nodes=np.array([3, 3]),
            num_edges=np.array([3]),
            num_pairs=0,
            coding=CODING,
            bytes_read=0,
        )


@pytest.mark.parametrize("position", [-1, 3])
def test_a_pair_that_is_not_among_the_seeds_is_refused_though_its_hash_were_right(position: int) -> None:
    pair = np.array([0, position], dtype="<i4").tobytes() + b"\x01"
    with pytest.raises(CorruptStoreError, match="not among the 3 seeds"):
        decode(
            {**sections_of_one_hop([0, 0, 0], [], []), PAIRS: np.frombuffer(pair, np.uint8)},
            index=0,
            num_nodes=np.array([3, 3]),
            num_edges=np.array([0]),
            num_pairs=1,
            coding=CODING,
            bytes_read=0,
        )


def test_a_folder_without_a_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="no pool there"):
        Pool.open(tmp_path)


@pytest.mark.parametrize("k", [-1, 5])
def test_a_batch_that_is_not_there_is_an_index_error(pool: Pool, k: int) -> None:
    with pytest.raises(IndexError):
        pool.read(k)


@pytest.mark.parametrize("options", [{"hops": -1}, {"hops": 4}, {"verify": "sometimes"}])
def test_reading_options_out_of_range_are_refused(pool: Pool, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        pool.read(0, **options)


def test_deep_verification_finds_a_flipped_bit_in_a_gap(own_pool: Path) -> None:
    pool = Pool.open(own_pool)
    gap = int(pool.offset[0, 2] + pool.bytes[0, 2])
    flip(own_pool / shard_path(0), gap)
    assert "batch 0: a gap between sections is not zero" in " ".join(Pool.open(own_pool).verify(deep=True))
