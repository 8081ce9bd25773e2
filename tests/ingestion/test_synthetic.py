"""Generated graphs: the same everywhere, learnable from neighbours and hardly from a row alone."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from gnnsys.errors import ConfigError, MemoryBudgetError
from gnnsys.ingestion import ingest
from gnnsys.ingestion.synthetic import PowerLawSource, parse_powerlaw

TEXT = "nodes=6e3,edges=120e3,feat=32,classes=8"


def _source(text: str = TEXT) -> PowerLawSource:
    return PowerLawSource(parse_powerlaw(text))


def test_numbers_may_be_written_with_an_exponent() -> None:
    spec = parse_powerlaw("nodes=1e6,edges=2e7,feat=128,classes=16,train=0.2,homophily=0.5,seed=3")
    assert (spec.nodes, spec.edges, spec.feat, spec.classes, spec.seed) == (1_000_000, 20_000_000, 128, 16, 3)
    assert (spec.train, spec.homophily) == (0.2, 0.5)


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("nodes=9,edges=9,clases=3", "GS-CFG-110", r"unknown key 'clases'(?s:.*)Did you mean classes\?"),
        ("nodes=9,edges=9,zzz=3", "GS-CFG-110", r"unknown key 'zzz'\n  Keys are nodes, edges"),
        ("nodes=many,edges=9", "GS-CFG-111", "nodes='many'"),
        ("nodes=1.5,edges=9", "GS-CFG-111", "nodes='1.5'"),
        ("nodes=9", "GS-CFG-112", "edges missing"),
        ("", "GS-CFG-112", "nodes and edges missing"),
        ("nodes=0,edges=0", "GS-CFG-113", "nodes must be"),
        ("nodes=5e9,edges=0", "GS-CFG-113", "nodes must be"),
        ("nodes=9,edges=-1", "GS-CFG-113", "must not be negative"),
        ("nodes=9,edges=9,classes=0", "GS-CFG-113", "classes must be"),
        ("nodes=9,edges=9,homophily=1.1", "GS-CFG-113", "homophily must be"),
        ("nodes=9,edges=9,train=0.9,valid=0.2", "GS-CFG-113", "sum to at most 1"),
        ("nodes=inf,edges=9", "GS-CFG-111", "nodes='inf'"),
        ("nodes=9,edges=9,seed=1e30", "GS-CFG-113", "seed must be less"),
        ("nodes=9,edges=9,feat=1e10", "GS-CFG-113", "feat and classes must be less"),
    ],
)
def test_a_mistake_in_the_text_is_named(text: str, code: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"{code}: .*{what}"):
        parse_powerlaw(text)


@pytest.mark.parametrize("what", ["edges", "rows", "labels"])
def test_any_part_is_generated_alone(what: str) -> None:
    source = _source()
    assert source.labels is not None
    read = {
        "edges": lambda a, b: np.stack(source.edges(a, b), axis=1),
        "rows": source.tables["x"].read,
        "labels": source.labels.read,
    }[what]
    assert np.array_equal(np.concatenate([read(0, 7), read(7, 8), read(8, 500)]), read(0, 500))


@pytest.mark.parametrize("nodes", [1, 2, 3, 10, 97, 4096, 10_007])
def test_ranks_are_scattered_over_all_ids(nodes: int) -> None:
    scatter = _source(f"nodes={nodes},edges=0")._scatter
    ids = scatter.ids(np.arange(nodes))
    assert np.array_equal(np.sort(ids), np.arange(nodes))
    assert np.array_equal(scatter.ranks(ids), np.arange(nodes))


def test_splits_are_disjoint_and_as_large_as_asked() -> None:
    (splits,) = _source("nodes=40e3,edges=0,train=0.3,valid=0.1,test=0.05").splits
    every = np.concatenate(list(splits.values()))
    assert len(np.unique(every)) == len(every)
    # Binomial: the deviation of the largest is 92 nodes, of the smallest 44; four times that.
    for name, share in (("train", 0.3), ("valid", 0.1), ("test", 0.05)):
        assert abs(len(splits[name]) - 40_000 * share) < 4 * 92


@pytest.mark.parametrize("nodes", [8, 50, 1000])
def test_no_split_of_a_small_graph_is_empty(nodes: int) -> None:
    (splits,) = _source(f"nodes={nodes},edges=0").splits
    assert {name: len(ids) for name, ids in splits.items()} == {
        name: max(1, round(share * nodes)) for name, share in (("train", 0.1), ("valid", 0.05), ("test", 0.05))
    }


def test_evaluation_splits_of_a_large_graph_are_capped() -> None:
    spec = parse_powerlaw("nodes=1e9,edges=0")
    assert spec.fraction("valid") * spec.nodes == spec.fraction("test") * spec.nodes == 10_000


def test_another_seed_is_another_graph() -> None:
    one, two = _source(), _source(TEXT + ",seed=1")
    assert one.fingerprint() != two.fingerprint()
    assert not np.array_equal(one.edges(0, 50), two.edges(0, 50))


@pytest.mark.usefixtures("tiny")
def test_the_store_holds_what_was_asked_for(tmp_path: Path) -> None:
    store = ingest(f"synthetic:powerlaw:{TEXT}", tmp_path, memory="1MiB")
    assert (store.num_nodes, store.num_edges, store.num_classes, store.table_columns()) == (6000, 120_000, 8, 32)
    assert store.verify(deep=True) == []


@pytest.mark.usefixtures("tiny")
def test_zero_features_means_no_table(tmp_path: Path) -> None:
    assert ingest("synthetic:powerlaw:nodes=9,edges=20,feat=0", tmp_path).table_names == []


@pytest.mark.usefixtures("tiny")
def test_the_bytes_of_a_generated_store_are_pinned(tmp_path: Path) -> None:
    """What a source string means never changes: another generator needs another name in the fingerprint."""
    store = ingest("synthetic:powerlaw:nodes=50,edges=300,feat=3,classes=4,seed=5", tmp_path)
    assert store.digest == "sha256:e9d80e7f0b1285e252c1d1f3f9ae4585bec0ad9e22b66bd5f7b9436bbef224ea"


def _nearest(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.argmax(rows @ centroids.T - 0.5 * (centroids**2).sum(axis=1), axis=1)


def test_neighbours_tell_the_class_and_a_row_alone_does_not() -> None:
    """The best classifier of a row knows the true centroids; two hops of plain means do far better than it."""
    source = _source("nodes=2e4,edges=4e5,feat=128,classes=16")
    assert source.labels is not None
    nodes = 20_000
    x, y = source.tables["x"].read(0, nodes), source.labels.read(0, nodes)[:, 0]
    src, dst = source.edges(0, source.num_edges)
    alone = np.mean(_nearest(x, source._centroids) == y)
    # At most five in-neighbours of every node: what a sampler with small fanouts sees.
    order = np.argsort(dst, kind="stable")
    starts = np.searchsorted(dst[order], np.arange(nodes))
    keep = order[np.arange(len(order)) - starts[dst[order]] < 5]
    matrix = scipy.sparse.csr_matrix((np.ones(len(keep)), (dst[keep], src[keep])), shape=(nodes, nodes))
    mean = matrix.multiply(1 / np.maximum(matrix.sum(axis=1), 1)).tocsr()
    hop1 = mean @ x
    together = np.mean(_nearest(0.2 * x + hop1 + 0.5 * (mean @ hop1), source._centroids) == y)
    assert alone < 0.6
    assert together > 0.9


def test_whole_numbers_keep_every_digit() -> None:
    assert parse_powerlaw("nodes=9,edges=9,seed=9007199254740993").seed == 9007199254740993


def test_centroids_beyond_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="centroids of the classes needs 38"):
        ingest("synthetic:powerlaw:nodes=8,edges=8,feat=1000,classes=1e5", tmp_path, memory="64MiB")
