"""Features and labels of nodes from texts whose rows begin with the id of a node."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys import Store, ingest
from gnnsys.errors import InputDataError, MemoryBudgetError
from gnnsys.ingestion.edges import EdgeListSource
from gnnsys.ingestion.job import write_scratch

NAMED, NUMBERED = "a,b\nc,d\nd,e\n", "0,1\n2,3\n3,4\n"


def _ingest(folder: Path, edges: str, memory: Any = "16MiB", **files: Any) -> Store:
    """A Store of texts; `labels` and `features` are their contents, or paths."""
    (folder / "e.csv").write_text(edges)
    for role in ("features", "labels"):
        if isinstance(files.get(role), str):
            (folder / f"{role}.csv").write_text(files[role])
            files[role] = folder / f"{role}.csv"
    return ingest(f"edges:{folder / 'e.csv'}", folder / "s", memory=memory, **files)


def _rows(store: Store) -> dict[str, list[float]]:
    table = store.table("x").read(np.arange(store.num_nodes)).tolist()
    return dict(zip(store.names(range(store.num_nodes)), table, strict=True))


@pytest.mark.parametrize("name", ["y.csv", "y.tsv.gz"])
def test_classes_of_named_nodes_stand_in_any_order(tmp_path: Path, name: str) -> None:
    classes = [("node", "class"), ("d", 1), ("a", 0), ("c", -1), ("b", 2)]
    text = "".join(f"{node}\t{label}\r\n" for node, label in classes)
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.replace("\t", ",").encode())
    store = _ingest(tmp_path, NAMED, labels=file)
    named = dict(zip(store.names(range(store.num_nodes)), store.labels().tolist(), strict=True))
    assert named == {"a": 0, "b": 2, "c": -1, "d": 1, "e": -1}
    assert store.manifest.counts["header_lines"] == 1


def test_classes_of_numbered_nodes_stand_in_any_order_and_tell_of_nodes_without_edges(tmp_path: Path) -> None:
    store = _ingest(tmp_path, NUMBERED, labels="id,label\n6,1\n0,2\n4,0\n")
    assert store.labels().tolist() == [2, -1, -1, -1, 0, -1, 1]
    assert store.num_edges == 3


def test_features_go_to_the_nodes_that_their_rows_name(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "c,b\na,c\n", features="id,height,width\na,1,-2\nb,3e0,.5\nc,5,6\n")
    assert _rows(store) == {"c": [5, 6], "b": [3, 0.5], "a": [1, -2]}
    assert store.table("x").dtype == np.float32


def test_features_of_numbered_nodes_tell_how_many_there_are(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "0,1\n", features="2 2.5\n0 .5\n1 1.5\n", labels="1,7\n")
    assert store.table("x").read(np.arange(3)).tolist() == [[0.5], [1.5], [2.5]]
    assert store.labels().tolist() == [-1, 7, -1]


@pytest.mark.usefixtures("tiny")
def test_shuffled_rows_make_the_same_table_as_an_array_in_order_a_block_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, order = rng.standard_normal((3000, 7), dtype=np.float32), rng.permutation(3000)
    text = "".join(f"{node},{','.join(map(repr, x[node].tolist()))}\n" for node in order)
    blocks: list[int] = []

    def spied(path: Path, pieces: Iterable[np.ndarray]) -> None:
        found = list(pieces)
        blocks.extend(piece.nbytes for piece in found if piece.dtype == np.float32)
        write_scratch(path, found)

    monkeypatch.setattr("gnnsys.ingestion.node_text.write_scratch", spied)
    store = _ingest(tmp_path, "0,2999\n", features=text, memory=400_000, workers=1)
    assert np.array_equal(store.table("x").read(np.arange(3000)), x)
    assert sum(blocks) == x.nbytes
    assert max(blocks) <= 400_000 // 24 // 2 + x[0].nbytes


def test_the_rows_follow_their_nodes_into_the_largest_component(tmp_path: Path) -> None:
    features = "".join(f"{name},{number}\n" for number, name in enumerate("edcba"))
    store = _ingest(tmp_path, NAMED, features=features, labels="e,4\na,0\n", largest_component=True)
    assert _rows(store) == {"c": [2], "d": [1], "e": [0]}
    assert store.labels().tolist() == [-1, -1, 4]


def test_labels_may_be_several_answers_or_numbers_with_empty_cells(tmp_path: Path) -> None:
    store = _ingest(tmp_path, NUMBERED, labels="0,1,0\n3,,1\n")
    assert np.array_equal(store.labels()[[0, 1, 3]], [[1, 0], [np.nan, np.nan], [np.nan, 1]], equal_nan=True)
    assert store.label_kind == "multilabel"
    (tmp_path / "r").mkdir()
    store = _ingest(tmp_path / "r", NAMED, labels="a,1.25\ne,-3\n", label_kind="regression")
    assert np.array_equal(store.labels()[[0, 4]], [[1.25], [-3]])


def test_an_empty_cell_of_features_is_a_nan(tmp_path: Path) -> None:
    text = "a,1\nb,\n"
    with pytest.raises(InputDataError, match=r"GS-IN-120: .*the first is row 1"):
        _ingest(tmp_path, "a,b\n", features=text)
    (tmp_path / "z").mkdir()
    assert _rows(_ingest(tmp_path / "z", "a,b\n", features=text, on_nan="zero")) == {"a": [1], "b": [0]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,0\nz,1\n", "row 2 is of node 'z', which no edge has"),
        ("a,0\n\nz,x\n", "row 3 is of node 'z', which no edge has"),
        ("z,1\na,0\n", "row 1 is of node 'z', which no edge has"),
        ("h,i\nj,k\na,0\n", "row 2 is of node 'j', which no edge has"),
        ("b,2\na,x\n", "row 2 has no number in column 2: 'x'"),
        ("a,1,x\n", "row 1 has no number in column 3: 'x'"),
        ("b,1\na,1_0\n", "row 2 has no number in column 2: '1_0'"),
        ("a,0\nb,1,2\n", "row 2 has 3 columns, expected 2"),
        ("a,0\nb\n", "row 2 has 1 columns, expected 2"),
        ("node,x\n# by hand\na,0\nb,1\na,0\n", "row 5 is of the same node as row 3"),
    ],
)
@pytest.mark.parametrize("role", ["features", "labels"])
def test_a_row_that_belongs_to_no_node_or_is_not_of_numbers_is_refused(
    tmp_path: Path, role: str, text: str, problem: str
) -> None:
    with pytest.raises(InputDataError, match=rf"GS-IN-179: .*{role}\.csv {problem}"):
        _ingest(tmp_path, "a,b\n", **{role: text})


def test_rows_without_ids_are_answered_with_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-179: .*row 1 is of node '0\.5'") as caught:
        _ingest(tmp_path, NUMBERED, features="0.5,1\n")
    assert "a .npy array, row i for node i" in caught.value.hint


@pytest.mark.parametrize(
    ("edges", "header"),
    [("0,1", "id,2020"), ("0,1", ",x"), ("0,1", "node,x"), ("0,1", "# 0,1"), ("a,b", ",x"), ("a,b", "node,x")],
)
def test_a_first_line_of_column_names_is_skipped(tmp_path: Path, edges: str, header: str) -> None:
    first, second = edges.split(",")
    store = _ingest(tmp_path, edges, features=f"{header}\n{first},1\n{second},2\n")
    assert store.table("x").read([0, 1]).tolist() == [[1], [2]]


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 2)))
    with pytest.raises(InputDataError, match=r"GS-IN-109: .*x\.npz row 1 holds a NUL byte"):
        _ingest(tmp_path, "0,1\n", features=tmp_path / "x.npz")


@pytest.mark.parametrize("node", ["-1", "1.0", "x", "01", "1234567890123456789"])
def test_what_is_no_whole_number_is_no_numbered_node(tmp_path: Path, node: str) -> None:
    with pytest.raises(InputDataError, match=f"GS-IN-179: .*row 2 is of node '{node}', expected a whole number from 0"):
        _ingest(tmp_path, NUMBERED, labels=f"0,1\n{node},1\n")


def test_a_label_of_a_node_that_the_features_do_not_have_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 1)))
    with pytest.raises(InputDataError, match=r"GS-IN-179: .*has a row of node 5, there are 5 nodes"):
        _ingest(tmp_path, NUMBERED, features=tmp_path / "x.npy", labels="5,0\n")


@pytest.mark.parametrize(
    ("edges", "text", "node"),
    [("a,b\nb,c\n", "c,1\na,1\n", "'b'$"), (NUMBERED, "4,1\n1,1\n0,1\n", "2 and 1 others$")],
)
def test_every_node_needs_features(tmp_path: Path, edges: str, text: str, node: str) -> None:
    with pytest.raises(InputDataError, match=rf"(?m)GS-IN-180: .*features\.csv has no row of node {node}"):
        _ingest(tmp_path, edges, features=text)


def test_a_label_with_an_id_far_beyond_the_edges_is_refused_before_so_many_nodes_are_made(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-125: .*largest node id is 99,000,000,000"):
        _ingest(tmp_path, NUMBERED, labels="0,1\n99000000000,1\n")


def test_bad_edges_do_not_tell_how_many_nodes_there_are(tmp_path: Path) -> None:
    store = _ingest(tmp_path, f"0,1\n{1 << 40},1\n-5,2\n", labels="2,0\n", on_bad_edge="drop")
    assert (store.num_nodes, store.num_edges) == (3, 1)


def test_edges_of_an_array_may_have_texts_beside_them(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 3], [1, 2]]).T)
    (tmp_path / "y.csv").write_text("3,1\n")
    assert ingest(f"edges:{tmp_path / 'e.npy'}", tmp_path / "s", labels=tmp_path / "y.csv").labels().tolist() == [
        *[-1] * 3,
        1,
    ]


@pytest.mark.usefixtures("tiny")
def test_more_rows_than_memory_can_put_in_order_are_refused(tmp_path: Path) -> None:
    text = "".join(f"{node},1\n" for node in range(5000))
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-002: node ids of labels\.csv needs"):
        _ingest(tmp_path, "0,1\n", labels=text, memory=100_000)


@pytest.mark.parametrize(
    ("labels", "code", "problem"),
    [
        ("0,1,1,0\n", "GS-IN-183", "has one row, of 4 columns"),
        ("0 1.5 2.5 0.25\n", "GS-IN-183", "has one row, of 4 columns"),
        ("1\r0\r1\r", "GS-IN-182", "row 1 holds a carriage return inside: '1"),
        ("id,y\r0,1\r1,0\r", "GS-IN-182", "row 1 holds a carriage return inside"),
        ("0,\n1,\n2,\n", "GS-IN-183", "has no label in column 2"),
        ("0,1,\n1,0,\n", "GS-IN-183", "has no label in column 3"),
        ("id,label\n", "GS-IN-183", "has no rows"),
        ("O,1\n1,2\n2,0\n", "GS-IN-179", "row 1 is of node 'O', expected a whole number from 0"),
        ('"0",1\n1,2\n', "GS-IN-179", "row 1 is of node '\"0\"'"),
        ('"0","x"\n1,2\n', "GS-IN-179", "row 1 is of node '\"0\"'"),
        ("\u200b0,x\n1,y\n", "GS-IN-179", "row 1 is of node '\\u200b0'"),
    ],
)
def test_a_text_that_is_hardly_what_it_is_taken_for_is_refused(
    tmp_path: Path, labels: str, code: str, problem: str
) -> None:
    with pytest.raises(InputDataError, match=rf"{code}: .*labels\.csv {re.escape(problem)}"):
        _ingest(tmp_path, "0,1\n1,2\n", labels=labels)


def test_a_header_over_one_column_may_have_two_words(tmp_path: Path) -> None:
    assert _ingest(tmp_path, "0,1\n1,2\n", labels="paper label\n0\n1\n2\n").labels().tolist() == [0, 1, 2]


def test_texts_that_pandas_writes_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.arange(6.0).reshape(3, 2), index=["b", "a", "c"])
    for name, options in (("csv", {}), ("tsv", {"sep": "\t"}), ("named.csv", {"index_label": "id"})):
        frame.to_csv(tmp_path / f"x.{name}", **options)
        (tmp_path / name).mkdir()
        store = _ingest(tmp_path / name, "a,b\nb,c\n", features=tmp_path / f"x.{name}")
        assert _rows(store) == {"a": [2, 3], "b": [0, 1], "c": [4, 5]}


def test_an_empty_last_cell_between_tabs_is_a_cell(tmp_path: Path) -> None:
    store = _ingest(tmp_path, NUMBERED, labels="0\t1\t0\n3\t\t1\n4\t1\t\n")
    assert np.array_equal(store.labels()[[0, 3, 4]], [[1, 0], [np.nan, 1], [1, np.nan]], equal_nan=True)


def test_a_name_may_begin_as_a_comment_does(tmp_path: Path) -> None:
    labels = "# node,class\na,0\n#cat,1\n#dog,1\nb,2\n"
    with pytest.warns(UserWarning, match="1 names begin with # or %"):
        store = _ingest(tmp_path, "a,#cat\nb,#cat\nb,a\n", labels=labels)
    assert dict(zip(store.names(range(3)), store.labels().tolist(), strict=True)) == {"a": 0, "#cat": 1, "b": 2}


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "u8", "i1", "i8"])
def test_edges_of_any_integers_tell_how_many_nodes_there_are(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 3], [1, 2], [7, 0]], dtype=kind))
    (tmp_path / "y.csv").write_text("3,1\n")
    store = ingest(f"edges:{tmp_path / 'e.npy'}", tmp_path / "s", labels=tmp_path / "y.csv")
    assert (store.num_nodes, store.labels()[3]) == (8, 1)


def test_ids_that_no_node_can_have_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 3], [1 << 63, 2]], dtype=np.uint64))
    (tmp_path / "y.csv").write_text("3,1\n")
    source, labels = f"edges:{tmp_path / 'e.npy'}", tmp_path / "y.csv"
    assert ingest(source, tmp_path / "s", labels=labels, on_bad_edge="drop").num_nodes == 4
    with pytest.raises(InputDataError, match="GS-IN-101"):
        ingest(source, tmp_path / "t", labels=labels)


def test_numbers_beyond_float32_are_infinities_which_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"GS-IN-120: .*the first is row 1"):
        _ingest(tmp_path, "a,b\n", features="a,1\nb,1e39\n")


@pytest.mark.usefixtures("tiny")
def test_a_row_that_memory_cannot_take_apart_is_refused(tmp_path: Path) -> None:
    text = f"0,{','.join(['1'] * 2000)}\n"
    with pytest.raises(InputDataError, match=r"GS-IN-117: .*row 1 is longer than 3125 bytes(?s:.*)--memory"):
        _ingest(tmp_path, "0,0\n", features=text, memory=200_000)


@pytest.mark.usefixtures("tiny")
def test_names_count_beside_the_rows(tmp_path: Path) -> None:
    edges = "".join(f"name{i},name{i + 1}\n" for i in range(400))
    features = "".join(f"name{i},1\n" for i in range(401))
    with pytest.raises(MemoryBudgetError, match=r"GS-MEM-002: node ids of features\.csv needs .*names of nodes"):
        _ingest(tmp_path, edges, features=features * 10, memory=200_000)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_the_disk_is_asked_for_what_the_rows_take_unpacked(tmp_path: Path, suffix: str) -> None:
    """Within a factor of what they turn out to take."""
    text = "".join(f"{node},{'0.25,' * 9}0.5\n" for node in range(3000)).encode()
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(text, 1) if suffix == ".csv.gz" else text)
    np.save(tmp_path / "e.npy", np.zeros((1, 2), dtype=np.int64))
    told = EdgeListSource(tmp_path / "e.npy", path).input_bytes()
    taken = 3000 * (8 + 8 + 4 * 10)
    assert taken <= told * (20 if suffix == ".csv.gz" else 1)
    assert told <= 4 * taken


@pytest.mark.parametrize("first", ["", "index", "Unnamed: 0"])
@pytest.mark.parametrize("second", ["id", "user_id", "Node"])
@pytest.mark.parametrize("role", ["features", "labels"])
def test_the_index_of_pandas_is_not_taken_for_the_ids(tmp_path: Path, role: str, first: str, second: str) -> None:
    text = f"{first},{second},f\n0,2,.2\n1,0,0\n2,1,.1\n"
    with pytest.raises(
        InputDataError, match=rf"GS-IN-179: .*row 1 names an index in column 1 and ids in column 2: '{second}'"
    ):
        _ingest(tmp_path, "0,1\n1,2\n", **{role: text})


def test_columns_that_have_names_are_told_by_them(tmp_path: Path) -> None:
    store = _ingest(tmp_path, "a,b\n", features="id,width,height\nb,1,2\na,3,4\n")
    assert store.feature_names == ("width", "height")
    (tmp_path / "plain").mkdir()
    assert _ingest(tmp_path / "plain", "a,b\n", features="b,1,2\na,3,4\n").feature_names is None
