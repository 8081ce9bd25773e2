"""npz sources: both forms of the benchmark collections, real files, and archives that lie."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from gnnsys.errors import ConfigError, InputDataError, MemoryBudgetError
from gnnsys.ingestion import ingest
from gnnsys.storage.store import Store

pytestmark = pytest.mark.usefixtures("tiny")

Edges = Callable[[Store], list[tuple[int, int]]]
N, F = 40, 7


def _csr_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    adj = scipy.sparse.random(N, N, 0.1, "csr", random_state=rng)
    attr = scipy.sparse.random(N, F, 0.3, "csr", dtype=np.float32, random_state=rng)
    parts = {"adj": adj, "attr": attr}
    arrays = {
        f"{name}_{field}": np.asarray(getattr(matrix, field))
        for name, matrix in parts.items()
        for field in ("data", "indices", "indptr", "shape")
    }
    return {**arrays, "labels": rng.integers(0, 3, N).astype(np.int16)}


def _save(path: Path, **arrays: Any) -> str:
    np.savez_compressed(path, **arrays)
    return f"npz:{path}"


def test_csr_rows_are_sources_and_columns_destinations(tmp_path: Path, edges_of: Edges) -> None:
    arrays = _csr_arrays()
    store = ingest(_save(tmp_path / "g.npz", **arrays), tmp_path / "s", memory=4000)
    matrix = scipy.sparse.csr_matrix((arrays["adj_data"], arrays["adj_indices"], arrays["adj_indptr"]), shape=(N, N))
    rows, columns = matrix.nonzero()
    assert edges_of(store) == sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda e: (e[1], e[0]))


@pytest.mark.parametrize("memory", [4000, "4GiB"])
def test_csr_features_become_dense_rows(tmp_path: Path, memory: int | str) -> None:
    arrays = _csr_arrays()
    store = ingest(_save(tmp_path / "g.npz", **arrays), tmp_path / "s", memory=memory)
    parts = (arrays["attr_data"], arrays["attr_indices"], arrays["attr_indptr"])
    assert np.array_equal(store.table().read(np.arange(N)), scipy.sparse.csr_matrix(parts, shape=(N, F)).toarray())
    assert np.array_equal(store.labels(), arrays["labels"])
    assert store.split_names == []


def test_given_index_splits_are_taken(tmp_path: Path) -> None:
    given = {"train_idx": np.array([5, 3], dtype=np.int32), "val_idx": np.array([1, 2]), "test_idx": np.array([9])}
    store = ingest(_save(tmp_path / "g.npz", **_csr_arrays(), **given), tmp_path / "s")
    assert {name: store.split(name).tolist() for name in store.split_names} == {
        "train": [3, 5],
        "valid": [1, 2],
        "test": [9],
    }


def _edge_arrays(fortran: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    which = rng.permuted(np.tile(np.repeat([0, 1, 2, 3], N // 4), (3, 1)), axis=1)
    masks = {f"{name}_masks": which == i for i, name in enumerate(("train", "val", "test"))}
    x = rng.normal(size=(N, F)).astype(np.float32)
    arrays = {"edges": rng.integers(0, N, (90, 2)), "node_features": x, "node_labels": rng.integers(0, 2, N), **masks}
    return {k: np.asfortranarray(v) for k, v in arrays.items()} if fortran else arrays


@pytest.mark.parametrize("fortran", [False, True])
def test_edges_features_labels_and_every_version_of_the_masks(tmp_path: Path, fortran: bool, edges_of: Edges) -> None:
    arrays = _edge_arrays(fortran)
    store = ingest(_save(tmp_path / "g.npz", **arrays), tmp_path / "s", memory=4000)
    assert edges_of(store) == sorted(map(tuple, arrays["edges"].tolist()), key=lambda e: (e[1], e[0]))
    assert np.array_equal(store.table().read(np.arange(N)), arrays["node_features"])
    assert np.array_equal(store.labels(), arrays["node_labels"])
    for k in range(3):
        for name, mask in (("train", "train_masks"), ("valid", "val_masks"), ("test", "test_masks")):
            assert store.split(f"{name}.{k}").tolist() == np.flatnonzero(arrays[mask][k]).tolist()


def test_one_version_of_the_masks_gets_plain_names(tmp_path: Path) -> None:
    arrays = _edge_arrays()
    store = ingest(_save(tmp_path / "g.npz", **arrays), tmp_path / "s", split="given:2")
    assert store.split_names == ["train", "valid", "test"]
    assert store.split("valid").tolist() == np.flatnonzero(arrays["val_masks"][2]).tolist()


def test_a_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = _save(tmp_path / "g.npz", **_edge_arrays())
    with pytest.raises(ConfigError, match=r"GS-CFG-103.*versions 0 to 2"):
        ingest(source, tmp_path / "s", split="given:3")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"adj_indices": np.zeros(3, dtype=np.int32)}, "adj_indptr"),
        ({"adj_indptr": np.zeros(N, dtype=np.int32)}, "adj_indptr"),
        ({"adj_indptr": -np.arange(N + 1)}, "adj_indptr"),
        ({"adj_shape": np.array([N, N + 1])}, "expected a square"),
        ({"adj_shape": np.array([1 << 40, 1 << 40])}, "adj_indptr"),
        ({"attr_shape": np.array([N - 1, F])}, "attr_indptr"),
        ({"attr_shape": np.array([N, 2])}, "outside the columns"),
        ({"labels": np.zeros((N, 2, 2))}, "labels"),
        ({"labels": np.zeros(N - 1, dtype=int)}, "39 rows for 40 nodes"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_named(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    source = _save(tmp_path / "g.npz", **{**_csr_arrays(), **change})
    with pytest.raises(InputDataError, match=what):
        ingest(source, tmp_path / "s")


def test_row_pointers_that_fall_are_refused(tmp_path: Path) -> None:
    arrays = _csr_arrays()
    arrays["adj_indptr"][[3, 4]] = arrays["adj_indptr"][[4, 3]] + [1, 0]
    with pytest.raises(InputDataError, match=r"GS-IN-115.*adj_indptr"):
        ingest(_save(tmp_path / "g.npz", **arrays), tmp_path / "s")


def test_an_archive_without_a_graph_lists_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-114.*holds a, b; expected"):
        ingest(_save(tmp_path / "g.npz", a=np.arange(3), b=np.arange(3)), tmp_path / "s")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-100.*gone\.npz"):
        ingest(f"npz:{tmp_path / 'gone.npz'}", tmp_path / "s")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.npz").write_bytes(content)
    with pytest.raises(InputDataError, match=r"GS-IN-113.*not a \.npz archive"):
        ingest(f"npz:{tmp_path / 'g.npz'}", tmp_path / "s")


def _npy(header: str, payload: bytes = b"", *, version: int = 1, claim: int | None = None) -> bytes:
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text) if claim is None else claim)
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + payload


PAIR = bytes(range(16))
GOOD = "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2)}"


@pytest.mark.parametrize(
    ("member", "code"),
    [
        (b"", "GS-IN-110"),
        (b"\x80\x04K\x01.", "GS-IN-110"),
        (_npy(GOOD, PAIR, version=4), "GS-IN-110"),
        (
            _npy(GOOD, PAIR, version=2, claim=1 << 31),
            "GS-IN-110",
        ),
        (_npy(GOOD[:-1], PAIR), "GS-IN-110"),
        (_npy("{'descr': '<i8', 'fortran_order': False}", PAIR), "GS-IN-110"),
        (_npy("[" * 3000, PAIR), "GS-IN-110"),
        (_npy("__import__('os').abort()", PAIR), "GS-IN-110"),
        (_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 2)}", PAIR), "GS-IN-111"),
        (_npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1, 2)}", PAIR), "GS-IN-111"),
        (_npy("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1, 2)}", PAIR), "GS-IN-111"),
        (_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, 2)}", PAIR), "GS-IN-110"),
        (_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (True, 2)}", PAIR), "GS-IN-110"),
        (_npy("{'descr': '<i8', 'fortran_order': 2, 'shape': (1, 2)}", PAIR), "GS-IN-110"),
        (_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2, 2)}", PAIR), "GS-IN-112"),
        (_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1)}", PAIR), "GS-IN-112"),
        (_npy(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({1 << 61}, {1 << 61})}}", PAIR), "GS-IN-112"),
    ],
)
def test_a_member_whose_header_lies_is_refused(tmp_path: Path, member: bytes, code: str) -> None:
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        archive.writestr("edges.npy", member)
    with pytest.raises(InputDataError, match=f"{code}.*member edges"):
        ingest(f"npz:{tmp_path / 'g.npz'}", tmp_path / "s")


def test_a_flipped_bit_in_a_member_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", edges=np.arange(40).reshape(20, 2))
    data = bytearray((tmp_path / "g.npz").read_bytes())
    data[300] ^= 1
    (tmp_path / "g.npz").write_bytes(data)
    with pytest.raises(InputDataError, match=r"GS-IN-113.*edges: cannot be unpacked"):
        ingest(f"npz:{tmp_path / 'g.npz'}", tmp_path / "s")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1 << 20, 2), dtype=np.int64))
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("edges.npy", buffer.getvalue())
    with pytest.raises(InputDataError, match=r"GS-IN-113.*'edges' is compressed beyond reason"):
        ingest(f"npz:{tmp_path / 'g.npz'}", tmp_path / "s")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        archive.writestr("edges.npy", b"one")
        archive.writestr("edges.npy", b"two")
    with pytest.raises(InputDataError, match="is there twice"):
        ingest(f"npz:{tmp_path / 'g.npz'}", tmp_path / "s")


def test_a_real_file_compressed_as_far_as_deflate_goes_is_read(
    tmp_path: Path, data_file: Callable[[str], Path]
) -> None:
    store = ingest(f"npz:{data_file('static/graphdata-amazon_cs/amazon_cs.npz')}", tmp_path / "s")
    assert (store.num_nodes, store.num_edges, store.num_classes) == (13752, 287209, 10)


def test_cora_is_what_its_page_says(tmp_path: Path, data_file: Callable[[str], Path], edges_of: Edges) -> None:
    path = data_file("static/planetoid-cora/cora.npz")
    store = ingest(f"npz:{path}", tmp_path / "s", normalize_features="row")
    assert (store.num_nodes, store.num_edges, store.num_classes, store.table_columns()) == (2708, 10556, 7, 1433)
    assert [len(store.split(name)) for name in store.split_names] == [140, 500, 1000]
    edges = set(edges_of(store))
    assert edges == {(b, a) for a, b in edges}
    # Sums of at most 1433 float32 values.
    assert np.allclose(store.table().read(np.arange(2708)).sum(axis=1), 1, atol=1e-5)


def test_the_largest_component_of_cora_is_the_one_in_the_papers(
    tmp_path: Path, data_file: Callable[[str], Path]
) -> None:
    path = data_file("static/cpf-cora/cora.npz")
    store = ingest(f"npz:{path}", tmp_path / "s", undirected=True, largest_component=True, split="per-class:20/30")
    assert (store.num_nodes, store.num_edges) == (2485, 2 * 5069)
    assert [len(store.split(name)) for name in store.split_names] == [140, 210, 2135]


def test_tolokers_gets_both_directions_and_its_ten_versions(tmp_path: Path, data_file: Callable[[str], Path]) -> None:
    store = ingest(f"npz:{data_file('static/yandex-tolokers/tolokers.npz')}", tmp_path / "s", undirected=True)
    assert (store.num_nodes, store.num_edges, len(store.split_names)) == (11758, 2 * 519_000, 30)
    assert store.manifest.counts["merged"] == 0


def test_a_member_shorter_than_the_archive_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("edges.npy", _npy("{'descr': '<i8', 'fortran_order': False, 'shape': (9, 2)}", PAIR))
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    held = struct.unpack_from("<I", data, directory + 24)[0]
    struct.pack_into("<I", data, directory + 24, held + 8 * len(PAIR))
    path.write_bytes(data)
    with pytest.raises(InputDataError, match=r"GS-IN-113.*member edges: holds less than the archive says"):
        ingest(f"npz:{path}", tmp_path / "s")


def test_a_member_of_a_codec_that_numpy_does_not_write_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("edges.npy", _npy(GOOD, PAIR))
    with pytest.raises(InputDataError, match=r"GS-IN-113.*'edges' is not stored or deflated"):
        ingest(f"npz:{tmp_path / 'g.npz'}", tmp_path / "s")


@pytest.mark.parametrize("ids", [np.array([0.5, 1.7]), np.array([True, False]), np.array([[0], [1]])])
def test_a_split_that_is_not_a_list_of_integers_is_refused(tmp_path: Path, ids: np.ndarray) -> None:
    source = _save(tmp_path / "g.npz", **_csr_arrays(), train_idx=ids)
    with pytest.raises(InputDataError, match=r"GS-IN-147: split train: .*expected node ids"):
        ingest(source, tmp_path / "s")


def test_rows_wider_than_memory_are_refused_however_few_bytes_claim_them(tmp_path: Path) -> None:
    arrays = {**_csr_arrays(), "attr_shape": np.array([N, 3_000_000])}
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-103: tables/x\.bin: a row takes 11\.4 MiB.* 4\.0 MiB"):
        ingest(_save(tmp_path / "g.npz", **arrays), tmp_path / "s", memory="32MiB", workers=2)
