"""Kernels of the ingest against slow obvious twins."""

import re

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnsys.ingestion import kernels
from gnnsys.keys import GOLDEN, mix

settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")


def _keys(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array([(d << 32) | s for s, d in pairs], dtype=np.uint64)


IDS = st.integers(0, (1 << 32) - 2)
PAIRS = st.lists(st.tuples(IDS, IDS), max_size=20)
SMALL = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)


@given(PAIRS, st.booleans())
def test_keys_hold_both_ends_of_every_edge(pairs: list[tuple[int, int]], both: bool) -> None:
    src, dst = np.array(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
    out = np.empty(2 * len(pairs), dtype=np.uint64)
    count, *left_out = kernels.pack_edges(src, dst, (1 << 32) - 1, both, True, out)
    expected = [p for s, d in pairs for p in ([(s, d), (d, s)] if both and s != d else [(s, d)])]
    assert left_out == [-1, 0, 0]
    assert out[:count].tolist() == _keys(expected).tolist()


@given(st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12)), max_size=20))
def test_edges_out_of_range_are_left_out_and_counted(pairs: list[tuple[int, int]]) -> None:
    src, dst = np.array(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
    out = np.empty(len(pairs), dtype=np.uint64)
    good = [0 <= s < 10 and 0 <= d < 10 for s, d in pairs]
    count, first_bad, bad, _ = kernels.pack_edges(src, dst, 10, False, True, out)
    assert out[:count].tolist() == _keys([p for p, g in zip(pairs, good, strict=True) if g]).tolist()
    assert (first_bad, bad) == (good.index(False) if False in good else -1, good.count(False))


@given(SMALL, st.booleans())
def test_loops_are_left_out_and_counted(pairs: list[tuple[int, int]], both: bool) -> None:
    src, dst = np.array(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
    out = np.empty(2 * len(pairs), dtype=np.uint64)
    count, *left_out = kernels.pack_edges(src, dst, 10, both, False, out)
    other = [(s, d) for s, d in pairs if s != d]
    assert (
        out[:count].tolist() == _keys([p for s, d in other for p in ([(s, d), (d, s)] if both else [(s, d)])]).tolist()
    )
    assert left_out == [-1, 0, len(pairs) - len(other)]


@given(PAIRS, st.randoms())
def test_the_sum_of_keys_does_not_depend_on_order_or_cutting(pairs: list[tuple[int, int]], random: object) -> None:
    keys = _keys(pairs)
    shuffled = keys.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    cut = len(keys) // 2
    whole, largest = kernels.key_facts(keys)
    parts = int(kernels.key_facts(shuffled[:cut])[0]) + int(kernels.key_facts(shuffled[cut:])[0])
    assert int(whole) == parts % (1 << 64) == sum(map(int, mix(keys + GOLDEN))) % (1 << 64)
    assert largest == max((i for pair in pairs for i in pair), default=-1)


@given(SMALL, st.booleans())
def test_folding_counts_repeats_and_loops(pairs: list[tuple[int, int]], unique: bool) -> None:
    keys = np.sort(_keys(pairs))
    expected = np.unique(keys) if unique else keys.copy()
    left, repeats, loops = kernels.fold_sorted(keys, unique)
    assert keys[:left].tolist() == expected.tolist()
    assert repeats == len(pairs) - len(set(pairs))
    assert loops == sum(s == d for s, d in (set(pairs) if unique else pairs))


@given(SMALL)
def test_components_equal_scipys(pairs: list[tuple[int, int]]) -> None:
    parent = np.arange(10, dtype=np.int32)
    kernels.union(parent, _keys(pairs))
    kept = kernels.number_largest(parent)
    src, dst = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    matrix = scipy.sparse.coo_matrix((np.ones(len(src)), (src, dst)), shape=(10, 10))
    _, part = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    sizes = np.bincount(part)
    first = next(p for p in part if sizes[p] == sizes.max())
    assert kept == sizes.max()
    assert parent.tolist() == [int((part[:v] == first).sum()) if part[v] == first else -1 for v in range(10)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_rows_of_positions_equal_repeat(counts: list[int], data: st.DataObject) -> None:
    indptr = np.concatenate([[0], np.cumsum(counts)])
    start = data.draw(st.integers(0, int(indptr[-1])))
    stop = data.draw(st.integers(start, int(indptr[-1])))
    out = np.empty(stop - start, dtype=np.int64)
    first = int(np.searchsorted(indptr, start, side="right")) - 1
    kernels.rows_of(indptr[first:], first, start, out)
    assert out.tolist() == np.repeat(np.arange(len(counts)), counts)[start:stop].tolist()


def test_csr_rows_equal_scipys_and_duplicates_add_up() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 6, 40), rng.integers(0, 5, 40)
    order = np.argsort(rows, kind="stable")
    values = rng.integers(1, 9, 40).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=6))]) + 1000
    out = np.zeros((6, 5), dtype=np.float32)
    assert kernels.add_rows(indptr, columns[order], values[order], out) == -1
    assert np.array_equal(out, scipy.sparse.coo_matrix((values, (rows, columns)), shape=(6, 5)).toarray())


@pytest.mark.parametrize("bad", [-1, 5])
def test_a_column_out_of_range_is_reported_by_position(bad: int) -> None:
    out = np.zeros((1, 5), dtype=np.float32)
    columns = np.array([0, 4, bad])
    assert kernels.add_rows(np.array([0, 3]), columns, np.ones(3, dtype=np.float32), out) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalised_rows_sum_to_one_and_zero_rows_stay(dtype: type) -> None:
    rows = np.random.default_rng(0).random((7, 4)).astype(dtype)
    rows[3] = 0
    out = np.empty((7, 4), dtype=np.float32)
    kernels.normalize_rows(rows, out)
    total = rows.astype(np.float64).sum(axis=1, keepdims=True)
    # Sums of four doubles in another order differ by a few last bits, far below one float32 step.
    assert np.allclose(out, rows / np.where(total == 0, 1, total), rtol=1e-6, atol=0)


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]), min_size=6, max_size=6))
def test_bad_rows_are_those_that_numpy_finds(values: list[float]) -> None:
    rows = np.array(values, dtype=np.float32).reshape(3, 2)
    bad = ~np.isfinite(rows).all(axis=1)
    assert kernels.bad_rows(rows) == (int(np.argmax(bad)) if bad.any() else -1, int(bad.sum()))


def test_noise_has_mean_zero_and_variance_one_and_is_a_function_of_the_node() -> None:
    ids = np.arange(4000)
    out = np.empty((4000, 25), dtype=np.float32)
    kernels.noise_rows(np.uint64(7), ids, out)
    some = np.empty((3, 25), dtype=np.float32)
    kernels.noise_rows(np.uint64(7), ids[[9, 2, 17]], some)
    assert np.array_equal(some, out[[9, 2, 17]])
    # 100,000 draws: the mean has deviation 0.003, the variance about 0.004; four times that.
    assert abs(float(out.mean())) < 0.0126
    assert abs(float(out.var()) - 1) < 0.018


def test_powerlaw_draws_follow_their_distribution() -> None:
    n, edges = 1000, 200_000
    src, dst = np.empty((2, edges), dtype=np.int64)
    kernels.powerlaw_edges(np.uint64(1), 0, n, 1, 0.0, (n + 1) ** (1 / 3) - 1, src, dst)
    ranks = np.arange(n + 1)
    for drawn, below in ((src, ((ranks + 1) ** (1 / 3) - 1) / ((n + 1) ** (1 / 3) - 1)), (dst, (ranks / n) ** (2 / 3))):
        found = np.searchsorted(np.sort(drawn), ranks) / edges
        # Kolmogorov-Smirnov: 1.95 / sqrt(200,000) = 0.0044 is passed by chance once in 1,000 keys.
        assert np.abs(found - below).max() < 0.0044


def test_homophilous_edges_join_equal_classes() -> None:
    src, dst = np.empty((2, 20_000), dtype=np.int64)
    kernels.powerlaw_edges(np.uint64(1), 0, 1003, 8, 0.75, 1004 ** (1 / 3) - 1, src, dst)
    # 0.75 by design and 1/8 of the rest by chance: 0.781; deviation 0.003.
    assert abs(np.mean(src % 8 == dst % 8) - 0.781) < 0.012
    assert min(src.min(), dst.min()) >= 0
    assert max(src.max(), dst.max()) < 1003


def _parse_twin(text: str, columns: int) -> list[list[int]]:
    """Rows of well-formed text by regular expressions."""
    lines = [line for line in text.split("\n") if line.strip() and line[0] not in "#%"]
    return [[int(f) for f in re.split(r"[ \t]*[,;][ \t]*|[ \t]+", line.strip())[:columns]] for line in lines]


NUMBER = st.integers(-(10**18) + 1, 10**18 - 1).map(str)
LINE = st.one_of(
    st.tuples(
        NUMBER, st.sampled_from([",", " ", "\t", " , ", ";", "  \t"]), NUMBER, st.sampled_from(["", " ", ",7", " w"])
    ),
    st.sampled_from([("", "", "", ""), ("# 1 2", "", "", ""), ("% x", "", "", ""), ("   ", "", "", "")]),
)


@given(st.lists(LINE, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 2))
def test_well_formed_text_parses_like_its_twin(
    lines: list[tuple[str, str, str, str]], ending: str, ended: bool, columns: int
) -> None:
    text = ending.join("".join(line) for line in lines) + (ending if ended else "")
    out = np.empty((len(text) + 1, columns), dtype=np.int64)
    rows, _, comments, _, error = kernels.parse_rows(np.frombuffer(text.encode(), dtype=np.uint8), True, True, out)
    assert (comments, error) == (sum(line[0][:1] in ("#", "%") for line in lines), kernels.OK)
    assert out[:rows].tolist() == _parse_twin(text.replace("\r", ""), columns)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("a,1", kernels.NOT_A_NUMBER),
        ("1,b", kernels.NOT_A_NUMBER),
        ("1.5,2", kernels.NOT_A_NUMBER),
        ("1,,2", kernels.NOT_A_NUMBER),
        ("1x,2", kernels.NOT_A_NUMBER),
        ("-,2", kernels.NOT_A_NUMBER),
        ("1|2", kernels.NOT_A_NUMBER),
        ("1", kernels.TOO_FEW),
        ("1,", kernels.TOO_FEW),
        ("1000000000000000000,2", kernels.TOO_LARGE),
        ("1,\0", kernels.NUL),
        ("1\0,2", kernels.NUL),
    ],
)
def test_a_bad_line_stops_the_parser_there(line: str, error: int) -> None:
    text = f"1,2\n\n{line}\n3,4\n"
    out = np.empty((9, 2), dtype=np.int64)
    assert kernels.parse_rows(np.frombuffer(text.encode(), dtype=np.uint8), True, True, out) == (1, 2, 0, True, error)


@given(st.one_of(st.binary(max_size=60), st.text("01,\n# ", max_size=60).map(str.encode)), st.booleans())
def test_any_bytes_end_with_an_answer(text: bytes, gaps: bool) -> None:
    out = np.empty((len(text) // 4 + 1, 2), dtype=np.int64)
    rows, lines, comments, _, error = kernels.parse_rows(np.frombuffer(text, dtype=np.uint8), True, gaps, out)
    assert 0 <= rows + comments <= lines <= text.count(b"\n") + 1
    assert error in {*range(5), kernels.PADDED, *([] if gaps else [kernels.BLANK])}


@pytest.mark.parametrize("line", ["1,2", "1 2", "1,x", "1;;2"])
def test_more_columns_stop_the_parser_when_they_are_an_error(line: str) -> None:
    out = np.empty((9, 1), dtype=np.int64)
    text = np.frombuffer(f"7\n8,\n{line}\n".encode(), dtype=np.uint8)
    assert kernels.parse_rows(text, False, True, out) == (2, 2, 0, False, kernels.TOO_MANY)
    assert kernels.parse_rows(text, True, True, out) == (3, 3, 0, False, kernels.OK)


def test_a_row_behind_a_blank_line_stops_the_parser_where_there_are_no_gaps() -> None:
    text = np.frombuffer(b"\n7\n8\n# 9\n\n", dtype=np.uint8)
    out = np.empty((9, 1), dtype=np.int64)
    assert kernels.parse_rows(text[1:], False, False, out) == (2, 4, 1, True, kernels.OK)
    assert kernels.parse_rows(text, False, False, out) == (0, 1, 0, True, kernels.BLANK)
