"""What texts of edges and labels hold: separators, first lines, comments and blank lines are told or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnsys.errors import InputDataError
from gnnsys.ingestion import ingest

pytestmark = pytest.mark.usefixtures("tiny")


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "names", "pairs"),
    [
        ("0;1;2,5\n1;2;3,5\n", None, [[0, 1], [1, 2]]),
        ("s;t;w\n0;1;2,5\n1;2;3,5\n", None, [[0, 1], [1, 2]]),
        ("0\t1\thello, world\n1\t2\tfine, thanks\n", None, [[0, 1], [1, 2]]),
        ("0 1 2.5 3,7,9\n1 2 3.5 1,1,4\n", None, [[0, 1], [1, 2]]),
        ("0 1\t0.5\n1 2\t0.5\n", None, [[0, 1], [1, 2]]),
        ("0 1 a;b,c d\n1 2 e;f,g h\n", None, [[0, 1], [1, 2]]),
        ("Doe, J\tRoe, J\nRoe, J\tPoe, E\n", ["Doe, J", "Roe, J", "Poe, E"], [[0, 1], [1, 2]]),
        ("ann;bob;likes, loves\nbob;cat;hates, fears\n", ["ann", "bob", "cat"], [[0, 1], [1, 2]]),
        ("ann,bob,likes; loves\nbob,cat,a; b\n", ["ann", "bob", "cat"], [[0, 1], [1, 2]]),
        ("New York,Bonn\nBonn,Rome\n", ["New York", "Bonn", "Rome"], [[0, 1], [1, 2]]),
    ],
)
def test_what_separates_is_told_by_the_ids(
    tmp_path: Path, text: str, names: list[str] | None, pairs: list[list[int]]
) -> None:
    """Whatever stands in further columns, with a first line of column names or without."""
    store = ingest(f"edges:{_text(tmp_path / 'e.csv', text)}", tmp_path / "s")
    dst = np.repeat(np.arange(store.num_nodes), np.diff(store.graph.indptr))
    assert np.stack([store.graph.indices, dst], axis=1).tolist() == pairs
    assert (store.names(range(store.num_nodes)) if store.has_names else None) == names


def test_weights_stand_where_the_ids_say_that_columns_are(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "0 1 2.5 3,7,9\n1 2 3.5 1,1,4\n")
    weights = ingest(f"edges:{path}", tmp_path / "s", edge_weights=3).edge_weights()
    assert weights is not None
    assert weights.tolist() == [2.5, 3.5]


def test_names_that_two_signs_may_separate_are_refused(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "Doe, J;Roe, J\n")
    with pytest.raises(InputDataError, match=r"GS-IN-185: .*e\.csv row 1 may be cut at , and at ;"):
        ingest(f"edges:{path}", tmp_path / "s")


@pytest.mark.parametrize("head", ["source,target\n", "x,y\n"])
def test_below_the_first_row_a_name_may_begin_as_a_comment_does(tmp_path: Path, head: str) -> None:
    path = _text(tmp_path / "e.csv", f"# made by hand\n{head}#a,#b\n%c,#a\n# the end\n#b,%c")
    with pytest.warns(UserWarning, match="3 names begin with # or %, and 0 lines above"):
        store = ingest(f"edges:{path}", tmp_path / "s")
    edges, known = store.num_edges, store.names(range(store.num_nodes))
    assert known == (["#a", "#b", "%c"] if head[0] == "s" else ["x", "y", "#a", "#b", "%c"])
    assert edges == (3 if head[0] == "s" else 4)
    assert store.manifest.counts["comment_lines"] == 2


@pytest.mark.parametrize("line", ["#comment", "#####", "# section two", "#comment here now", "%"])
def test_what_has_not_as_many_fields_is_a_comment(tmp_path: Path, line: str) -> None:
    store = ingest(f"edges:{_text(tmp_path / 'e.txt', chr(10).join(['a b', line, 'b c']))}", tmp_path / "s")
    assert store.names(range(store.num_nodes)) == ["a", "b", "c"]
    assert store.manifest.counts["comment_lines"] == 1


def test_rows_above_all_others_that_begin_as_comments_are_questioned(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.txt", "#rust #go\n#go #rust\nphp go\n")
    with pytest.warns(UserWarning, match="0 names begin with # or %, and 2 lines above the first row"):
        assert ingest(f"edges:{path}", tmp_path / "s").num_edges == 1


@pytest.mark.parametrize(
    "text",
    [
        "0 1\n1\t2\n2\t0\n",
        "0 1\n1, 2\n2, 0\n",
        "0, 1\n1 2\n2;0\n",
        "0\t1\n1,2\n2 0\n",
        "0;1\n1\t2\n2,0\n",
        "0 1 0.5\n1\t2\t0.25\n2\t0\t1\n",
        "0\t1\t\n1\t2\tfriend\n2\t0\t\n",
        "src\tdst\tlabel\n0\t1\t\n1\t2\tfriend\n2\t0\n",
        "0,1\n1,2,,\n2,0,\n",
        "0 1\n1 2 # foe\n2 0\n",
        "src dst\n0\t1\n1\t2\n2 0\n",
        "a b\n0 1\n1 2\n2 0\n",
    ],
)
def test_numbers_may_be_separated_by_anything(tmp_path: Path, text: str) -> None:
    store = ingest(f"edges:{_text(tmp_path / 'e.txt', text)}", tmp_path / "s")
    dst = np.repeat(np.arange(store.num_nodes), np.diff(store.graph.indptr))
    assert np.stack([store.graph.indices, dst], axis=1).tolist() == [[2, 0], [0, 1], [1, 2]]
    assert not store.has_names


def test_weights_may_be_separated_by_anything(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "0,1,.5\n1 2 .25\n2\t0\t3\n")
    weights = ingest(f"edges:{path}", tmp_path / "s", edge_weights=3).edge_weights()
    assert weights is not None
    assert weights.tolist() == [3, 0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("benzene toluene\n1,2,4-trimethylbenzene benzene\n", ["benzene", "toluene", "1,2,4-trimethylbenzene"]),
        ("a b\n1;2;q c\nc a\n", ["a", "b", "1;2;q", "c"]),
        ("index finger 3\nring finger 2\n", ["index", "finger", "ring"]),
        ("Tom &amp; Jerry,Cartoon\nCartoon,Disney\n", ["Tom &amp; Jerry", "Cartoon", "Disney"]),
        ("http://a/b;c,http://b\nhttp://b,http://c\n", ["http://a/b;c", "http://b", "http://c"]),
        ("a,b\nb,c,,\n", ["a", "b", "c"]),
        ("a\tb\t\nb\tc\tfriend\n", ["a", "b", "c"]),
    ],
)
def test_names_are_cut_as_all_rows_may_be(tmp_path: Path, text: str, names: list[str]) -> None:
    store = ingest(f"edges:{_text(tmp_path / 'e.txt', text)}", tmp_path / "s")
    assert store.names(range(store.num_nodes)) == names


@pytest.mark.parametrize("text", ["id,target,weight\n0,1,1\n1,2,3\n", "id,cites,year\n0,1,2010\n1,2,2011\n"])
def test_a_source_may_be_called_id(tmp_path: Path, text: str) -> None:
    assert ingest(f"edges:{_text(tmp_path / 'e.csv', text)}", tmp_path / "s").num_edges == 2


def test_a_first_column_that_counts_rows_is_questioned(tmp_path: Path) -> None:
    rows = "".join(f"{i},{(7 * i) % 20},{i % 5}\n" for i in range(20))
    path = _text(tmp_path / "e.csv", f"id,follower,followee\n{rows}")
    with pytest.warns(UserWarning, match="the first column counts the rows from 0"):
        ingest(f"edges:{path}", tmp_path / "s")


def test_comments_among_numbers_are_counted(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.csv", "# a\n0,1\n#b,2\n1,0\n% c")
    store = ingest(f"edges:{path}", tmp_path / "s")
    assert (store.num_edges, store.manifest.counts["comment_lines"]) == (2, 3)


@pytest.mark.parametrize("rows", ["0,5,7\n1,6,3\n", "0,ann,bob\n1,bob,cat\n"])
@pytest.mark.parametrize("first", ["", "Unnamed: 0", "index", '"Index"'])
def test_the_index_of_pandas_is_no_source(tmp_path: Path, first: str, rows: str) -> None:
    path = _text(tmp_path / "e.csv", f"{first},follower,followee\n{rows}")
    with pytest.raises(InputDataError, match=r"GS-IN-124: .*row 1 names columns(.|\n)*index=False"):
        ingest(f"edges:{path}", tmp_path / "s")
    path.write_text(f"# {path.read_text()}")
    assert ingest(f"edges:{path}", tmp_path / "s").num_edges == 2


@pytest.mark.parametrize("letter", ["", "n"])
def test_a_list_of_neighbours_is_no_list_of_edges(tmp_path: Path, letter: str) -> None:
    rows = "0 1\n1 2 3 4\n2 0 5\n".replace(" ", f" {letter}").replace("\n", f"\n{letter}").removesuffix(letter)
    path = _text(tmp_path / "e.txt", letter + rows)
    with pytest.raises(InputDataError, match=r"GS-IN-118: .*row 2 has more columns than the first row"):
        ingest(f"edges:{path}", tmp_path / "s")


def test_a_matrix_market_file_is_told(tmp_path: Path) -> None:
    path = _text(tmp_path / "e.mtx", "%%MatrixMarket matrix coordinate pattern symmetric\n5 5 2\n2 1\n3 1\n")
    with pytest.raises(InputDataError, match=r"GS-IN-186: .*e\.mtx is a MatrixMarket file"):
        ingest(f"edges:{path}", tmp_path / "s")


@pytest.mark.parametrize("memory", [4000, "4GiB"])
@pytest.mark.parametrize("before", [1, 400])
def test_a_blank_line_among_labels_moves_none(tmp_path: Path, before: int, memory: Any) -> None:
    """Row i is that of node i: what a blank line stands for is not known."""
    edges = _text(tmp_path / "e.csv", f"0,{before}\n")
    labels = _text(tmp_path / "y.txt", "1\n" * before + "\n" * 300 + "0\n")
    with pytest.raises(InputDataError, match=rf"GS-IN-188: .*row {before + 301} stands behind a blank line: '0'"):
        ingest(f"edges:{edges}", tmp_path / "s", labels=labels, memory=memory)
    labels.write_text("\n" + "1\n" * before + "0\n")
    with pytest.raises(InputDataError, match=r"GS-IN-188: .*row 2 stands behind a blank line: '1'"):
        ingest(f"edges:{edges}", tmp_path / "s", labels=labels, memory=memory)
    labels.write_text("1\n" * before + "0\n\n \n\n")
    found = ingest(f"edges:{edges}", tmp_path / "s", labels=labels, memory=memory).labels()
    assert found is not None
    assert found.tolist() == [1] * before + [0]
