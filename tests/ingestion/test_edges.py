"""Edge lists: the same graph from npy, csv, tsv, blanks and gz; names mapped; every bad row named."""

import gc
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gnnsys.errors import ConfigError, CorruptStoreError, GnnsysError, InputDataError, MemoryBudgetError
from gnnsys.ingestion import ingest
from gnnsys.ingestion.text import MAX_LINE
from gnnsys.storage.store import Store

pytestmark = pytest.mark.usefixtures("tiny")

Edges = Callable[[Store], list[tuple[int, int]]]
PAIRS = np.random.default_rng(0).integers(0, 30, (120, 2))
SORTED = sorted(map(tuple, PAIRS.tolist()), key=lambda e: (e[1], e[0]))


def _ingest(folder: Path, text: str, **options: Any) -> Store:
    """The Store of a file of edges with this text."""
    return ingest(f"edges:{_text(folder / 'e.csv', text)}", folder / "s", **options)


def _lines(separator: str, ending: str = "\n", tail: str = "") -> str:
    return "".join(f"{a}{separator}{b}{tail}{ending}" for a, b in PAIRS)


def _text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


TEXTS = {
    "csv": _lines(","),
    "tsv": _lines("\t"),
    "blanks": _lines("  "),
    "windows": _lines(", ", "\r\n"),
    "more columns": _lines(",", tail=",0.5,word"),
    "header": "source,target\n" + _lines(","),
    "quoted header": '"from","to"\n' + _lines(","),
    "header of any words": "paper;cites\n" + _lines(";"),
    "comments": "# a graph\n% of 30 nodes\n\n" + _lines(" ") + "# end",
    "no last newline": _lines(",")[:-1],
    "byte order mark": "\ufeff" + _lines(","),
}


@pytest.mark.parametrize("memory", [4000, "4GiB"])
@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_every_kind_gives_the_same_graph(tmp_path: Path, kind: str, memory: Any, edges_of: Edges) -> None:
    store = ingest(f"edges:{_text(tmp_path / 'e.csv', TEXTS[kind])}", tmp_path / "s", memory=memory)
    assert edges_of(store) == SORTED
    assert store.num_nodes == PAIRS.max() + 1


def test_gz_is_unpacked_on_the_way(tmp_path: Path, edges_of: Edges) -> None:
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(TEXTS["header"].encode()))
    assert edges_of(ingest(f"edges:{tmp_path / 'e.csv.gz'}", tmp_path / "s", memory=4000)) == SORTED


def test_a_cut_off_gz_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(TEXTS["csv"].encode())[:-20])
    with pytest.raises(InputDataError, match=r"GS-IN-108.*e\.csv\.gz"):
        ingest(f"edges:{tmp_path / 'e.csv.gz'}", tmp_path / "s")


@pytest.mark.parametrize(
    "array",
    [PAIRS, PAIRS.T, PAIRS.astype(">i4"), np.asfortranarray(PAIRS), PAIRS.astype(np.uint8), PAIRS.T.astype("<u8")],
    ids=["E2", "2E", "big-endian", "fortran", "u1", "u8"],
)
def test_npy_of_every_form_gives_the_same_graph(tmp_path: Path, array: np.ndarray, edges_of: Edges) -> None:
    np.save(tmp_path / "e.npy", array)
    assert edges_of(ingest(f"edges:{tmp_path / 'e.npy'}", tmp_path / "s", memory=4000)) == SORTED


@pytest.mark.parametrize("array", [PAIRS.astype(float), PAIRS.ravel(), np.zeros((4, 3), dtype=int)])
def test_npy_that_is_no_edge_list_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(InputDataError, match=r"GS-IN-104.*expected integers \(E, 2\) or \(2, E\)"):
        ingest(f"edges:{tmp_path / 'e.npy'}", tmp_path / "s")


def test_an_empty_file_is_an_empty_graph(tmp_path: Path) -> None:
    store = ingest(f"edges:{_text(tmp_path / 'e.csv', '')}", tmp_path / "s")
    assert (store.num_nodes, store.num_edges) == (0, 0)


@pytest.mark.parametrize(
    ("row", "code", "what"),
    [
        ("7,-4", "GS-IN-101", r"e\.csv row 122: node id -4 is negative"),
        ("x7,4", "GS-IN-103", r"e\.csv row 122 is not a row of integers: 'x7,4'"),
        ("1.5,4", "GS-IN-103", "row 122"),
        ("7", "GS-IN-106", r"row 122 has too few columns, or an empty one: '7'"),
        ("9999999999999999999,1", "GS-IN-107", "row 122 holds a number of more than 18 digits"),
        ("7,\0", "GS-IN-109", "row 122 holds a NUL byte"),
        ("7,", "GS-IN-106", r"row 122 has too few columns, or an empty one: '7,'"),
        ("7,04", "GS-IN-184", "row 122 holds a number with leading zeros: '7,04'"),
        ("-07,4", "GS-IN-184", "row 122 holds a number with leading zeros"),
        ('"7","4"', "GS-IN-119", "row 122 holds a quoted id"),
        (f"{1 << 32},0", "GS-IN-102", "row 122: node id 4294967296 is outside"),
        ("1," * MAX_LINE, "GS-IN-117", f"row 122 is longer than {MAX_LINE} bytes"),
    ],
)
@pytest.mark.parametrize("memory", [4000, "4GiB"])
def test_a_bad_row_is_named(tmp_path: Path, row: str, code: str, what: str, memory: Any) -> None:
    path = _text(tmp_path / "e.csv", f"a,b\n{_lines(',')}{row}\n1,2\n")
    with pytest.raises(InputDataError, match=rf"{code}: .*{what}"):
        ingest(f"edges:{path}", tmp_path / "s", memory=memory)


def test_the_row_of_a_bad_id_is_the_line_an_editor_shows(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "\ufeff# ids\n\nsrc,dst\n0,1\n\n% more\n1,0\n-5,1\n")
    with pytest.raises(InputDataError, match=r"GS-IN-101: .*e\.csv row 8: node id -5 is negative"):
        ingest(f"edges:{path}", tmp_path / "s")


@pytest.mark.parametrize("header", ["user,item", "Source,Target,weight", '"id1","id2"', "u v"])
def test_column_names_above_names_are_no_edge(tmp_path: Path, header: str) -> None:
    separator = "," if "," in header else " "
    store = _ingest(tmp_path, f"{header}\nalice{separator}bob\n")
    assert store.names(range(store.num_nodes)) == ["alice", "bob"]
    assert store.manifest.counts["header_lines"] == 1


@pytest.mark.parametrize("first", ["alice,bob", "user,bob", "user,user", "anna,user,friend"])
def test_a_first_line_of_names_is_an_edge(tmp_path: Path, first: str) -> None:
    store = _ingest(tmp_path, f"{first}\nbob,carol\n")
    assert (store.num_edges, store.manifest.counts["header_lines"]) == (2, 0)


@pytest.mark.parametrize("rows", ["5,0,1", "x,alice,bob"])
@pytest.mark.parametrize("header", ["weight,src,dst", "src,weight,dst", '"w","U","V"'])
def test_column_names_in_other_places_are_refused(tmp_path: Path, header: str, rows: str) -> None:
    path = _text(tmp_path / "e.csv", f"{header}\n{rows}\n")
    with pytest.raises(InputDataError, match=r"GS-IN-124: .*row 1 names columns, but source and destination"):
        ingest(f"edges:{path}", tmp_path / "s")


def test_a_header_alone_is_an_empty_graph(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "src,dst\n")
    assert (store.num_nodes, store.num_edges) == (0, 0)


def test_quotes_beyond_the_first_two_columns_do_no_harm(tmp_path: Path) -> None:
    store = _ingest(tmp_path, 'alice,bob,"met, once"\n')
    assert store.names(range(store.num_nodes)) == ["alice", "bob"]


def _named(pairs: Any) -> str:
    return "".join(f"Knoten ü{a},n{b}\n" for a, b in pairs)


@pytest.mark.parametrize("memory", [40_000, "4GiB"])
@pytest.mark.parametrize("header", ["", "source,target\n"])
def test_names_are_numbered_in_order_of_first_appearance(
    tmp_path: Path, memory: Any, header: str, edges_of: Edges
) -> None:
    store = ingest(f"edges:{_text(tmp_path / 'e.csv', header + _named(PAIRS))}", tmp_path / "s", memory=memory)
    names = store.names(range(store.num_nodes))
    assert names == list(dict.fromkeys(name for a, b in PAIRS for name in (f"Knoten ü{a}", f"n{b}")))
    assert sorted((names[a], names[b]) for a, b in edges_of(store)) == sorted(
        (f"Knoten ü{a}", f"n{b}") for a, b in PAIRS
    )


def test_names_come_in_the_order_of_the_ids_asked_for(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "ann,Zo\u00eb\nann,bob\n")
    assert store.names(np.array([2, 0, 1, 2], dtype=np.int32)) == ["bob", "ann", "Zo\u00eb", "bob"]
    assert store.names([]) == []


@pytest.mark.parametrize("bad", [-1, 2])
def test_a_name_of_no_node_is_refused(tmp_path: Path, bad: int) -> None:
    with pytest.raises(InputDataError, match=rf"GS-IN-024: .*node {bad} is outside \[0, 2\)"):
        _ingest(tmp_path, "ann,bob\n").names([0, bad])


def test_a_store_of_numbers_has_no_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-022: .*the nodes have no names"):
        _ingest(tmp_path, "0,1\n").names([0])


@pytest.mark.parametrize("file", ["bytes", "offsets"])
def test_names_that_changed_on_disk_are_not_given_out(tmp_path: Path, file: str) -> None:
    store = _ingest(tmp_path, "ann,bob\n")
    path = store.path / f"names/{file}.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(CorruptStoreError, match=f"GS-STORE-004: .*names/{file}.bin"):
        store.names([0])


def test_row_i_of_the_files_beside_names_is_that_of_the_name_that_appeared_as_number_i(tmp_path: Path) -> None:
    labels = _text(tmp_path / "y.txt", "5\n6\n7\n")
    store = _ingest(tmp_path, "cy,bo\nal,cy\n", labels=labels)
    assert dict(zip(store.names(range(3)), store.labels(), strict=True)) == {"cy": 5, "bo": 6, "al": 7}


def test_names_follow_their_nodes_into_the_largest_component(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "a b\nc d\nd e\nf f\n")
    store = ingest(f"edges:{path}", tmp_path / "s", largest_component=True)
    assert store.names(range(store.num_nodes)) == ["c", "d", "e"]


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        (b"a,b\nc\n", "GS-IN-106", "row 2 has too few"),
        (b"a,b\n,d\n", "GS-IN-106", "row 2 has too few"),
        (b"a,b\nc,\0d\n", "GS-IN-109", "row 2 holds a NUL"),
        (b"a,b\nc,\xff\n", "GS-IN-116", "not UTF-8 at byte 6"),
        (b'a,b\n"Smith, J",b\n', "GS-IN-119", "row 2 holds a quoted id"),
        (b'a,"Smith, J"\n', "GS-IN-119", "row 1 holds a quoted id"),
    ],
)
def test_a_bad_row_of_names_is_named(tmp_path: Path, text: bytes, code: str, what: str) -> None:
    (tmp_path / "e.csv").write_bytes(text)
    with pytest.raises(InputDataError, match=f"{code}.*{what}"):
        ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s")


def test_more_names_than_memory_holds_are_refused_with_the_numbers(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "".join(f"a{i} b{i}\n" for i in range(500)))
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-102.*names need"):
        ingest(f"edges:{path}", tmp_path / "s", memory=100_000)


def test_feature_and_label_files_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(31, 3)), rng.integers(-1, 4, 31)
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "y.csv", y, fmt="%d", header="label")
    source = f"edges:{_text(tmp_path / 'e.csv', TEXTS['csv'])}"
    store = ingest(source, tmp_path / "s", features=tmp_path / "x.npy", labels=tmp_path / "y.csv", memory=4000)
    assert store.num_nodes == 31
    assert np.array_equal(store.table().read(np.arange(31)), x)
    assert np.array_equal(store.labels(), y)


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("1\n0 1\n", "GS-IN-118", "row 2 has more columns than the first row"),
        ("cat\ndog\n", "GS-IN-103", "row 1 is not a row of integers: 'cat'"),
    ],
)
def test_a_label_file_is_one_column_of_numbers(tmp_path: Path, text: str, code: str, what: str) -> None:
    with pytest.raises(InputDataError, match=rf"{code}: .*y\.csv {what}") as caught:
        ingest(f"edges:{_text(tmp_path / 'e.csv', '0,1')}", tmp_path / "s", labels=_text(tmp_path / "y.csv", text))
    assert "Row i is the class of node i" in caught.value.hint


def test_a_node_beyond_the_feature_rows_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((29, 2)))
    with pytest.raises(InputDataError, match=r"GS-IN-102.*node id 29 is outside \[0, 29\)"):
        ingest(f"edges:{_text(tmp_path / 'e.csv', TEXTS['csv'])}", tmp_path / "s", features=tmp_path / "x.npy")


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((30, 2)))
    np.save(tmp_path / "y.npy", np.zeros(31, dtype=int))
    source = f"edges:{_text(tmp_path / 'e.csv', TEXTS['csv'])}"
    with pytest.raises(InputDataError, match="GS-IN-122: labels has 31 rows for 30 nodes"):
        ingest(source, tmp_path / "s", features=tmp_path / "x.npy", labels=tmp_path / "y.npy")


def test_features_beside_another_kind_of_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GS-CFG-105.*go with edges:FILE"):
        ingest("synthetic:powerlaw:nodes=8,edges=9", tmp_path / "s", features=tmp_path / "x.npy")


@pytest.mark.parametrize("role", ["edges", "features", "labels"])
def test_an_absent_file_is_named(tmp_path: Path, role: str) -> None:
    np.save(tmp_path / "edges.npy", PAIRS)
    paths = {name: tmp_path / f"{'gone' if name == role else name}.npy" for name in ("edges", "features", "labels")}
    np.save(tmp_path / "features.npy", np.zeros((30, 1)))
    with pytest.raises(InputDataError, match=r"GS-IN-100.*gone\.npy: no such file"):
        ingest(f"edges:{paths['edges']}", tmp_path / "s", features=paths["features"], labels=paths["labels"])


def test_weights_by_the_name_of_a_column_are_told_how(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("src,dst,weight\n0,1,2.0\n")
    with pytest.raises(InputDataError, match=r"GS-IN-100.*weight: no such file\n.*--edge-weights 3"):
        ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s", edge_weights="weight")


def test_random_bytes_never_end_in_anything_but_a_store_or_an_error_of_ours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(60):
        text = rng.choice(np.frombuffer(b'0123456789,, \t\n\n-#a"\xc3', dtype=np.uint8), rng.integers(0, 60)).tobytes()
        (tmp_path / f"{i}.csv").write_bytes(text)
        try:
            assert ingest(f"edges:{tmp_path / f'{i}.csv'}", tmp_path / f"s{i}").verify(deep=True) == []
        except GnnsysError as error:
            assert error.code.startswith("GS-IN-1")


@pytest.mark.parametrize("row", ["0.0,1.0", "1e3 2e3", "s,d\n0.5,1.5"])
def test_float_ids_are_not_taken_for_names(tmp_path: Path, row: str) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-103: .*is not a row of integers"):
        ingest(f"edges:{_text(tmp_path / 'e.csv', row)}", tmp_path / "s")


def test_blanks_separate_whatever_stands_in_further_columns(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.txt", "src dst weight tags\n0 1 2.5 3,7,9\n1 2 3.5 1,1,4\n")
    store = ingest(f"edges:{path}", tmp_path / "s", edge_weights=3)
    weights = store.edge_weights()
    assert weights is not None
    assert weights.tolist() == [2.5, 3.5]
    assert ingest(f"edges:{path}", tmp_path / "again", edge_weights="3").digest == store.digest
    assert store.manifest.counts["ignored_columns"] == 1


def test_a_first_row_whose_names_never_come_again_is_questioned(tmp_path: Path) -> None:
    pairs = "".join(f"n{i},n{i + 1}\n" for i in range(20))
    with pytest.warns(UserWarning, match="read as an edge from 'follower' to 'followed', which no other row has"):
        store = _ingest(tmp_path, f"follower,followed\n{pairs}")
    assert store.num_nodes == 23
    (tmp_path / "no").mkdir()
    assert _ingest(tmp_path / "no", f"n5,n6\n{pairs}").num_nodes == 21


@pytest.mark.parametrize("name", ["e.csv", "e.txt", "e.npy"])
def test_a_file_without_its_kind_is_answered_with_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"GS-CFG-104: (?s:.*)Write edges:.*{name}"):
        ingest(str(tmp_path / name), tmp_path / "s", labels=tmp_path / "y.csv")


@pytest.mark.parametrize(
    ("edges", "role", "text"),
    [
        ("0,1\nx,2\n", "", ""),
        ("a,b\nc\n", "", ""),
        ("a,b\n", "features", "a,1\nb,x\n"),
        ("a,b\n", "labels", "a,1\na,1\n"),
        ("0,1\n", "labels", "0\nx\n"),
        ("0,1\n", "features", "0,1\n1,nan\n"),
    ],
)
def test_what_is_refused_leaves_no_file_open(tmp_path: Path, edges: str, role: str, text: str) -> None:
    files = {role: _text(tmp_path / "r.csv", text)} if role else {}
    for _ in range(3):
        with pytest.raises(GnnsysError):
            ingest(f"edges:{_text(tmp_path / 'e.csv', edges)}", tmp_path / "s", **files)
        gc.collect()
        before = psutil.Process().num_fds()
    with pytest.raises(GnnsysError):
        ingest(f"edges:{tmp_path / 'e.csv'}", tmp_path / "s", **files)
    gc.collect()
    assert psutil.Process().num_fds() == before
