"""Seeds are checked before anything is sampled, and cut into the same batches for the same key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.samplers.batches import seed_batches
from gnnsys.samplers.seeds import Seeds, as_seeds
from tests.graphs import ingest_arrays

PAIRS = np.array([[0, 1], [2, 3], [0, 3], [4, 4], [5, 1]])


def links(**options: Any) -> Seeds:
    return Seeds.links(PAIRS, **options).within(50)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([1, 2, 1], "GS-IN-202"),
        ([[0, 1]], "GS-IN-200"),
        ([0.5], "GS-IN-200"),
        ([True, False], "GS-IN-200"),
        ([], "GS-IN-201"),
        ([5, 200], "GS-IN-204"),
        ([-1], "GS-IN-204"),
        (np.array([2**64 - 1], dtype=np.uint64), "GS-IN-204"),
    ],
)
def test_node_ids_that_cannot_be_seeds_are_refused(random_store: Any, given: Any, code: str) -> None:
    with pytest.raises(InputDataError) as caught:
        as_seeds(random_store, given)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("given", "options", "error"),
    [
        ([0, 1], {}, InputDataError),
        ([[0, 1, 2]], {}, InputDataError),
        ([[0, 200]], {}, InputDataError),
        (np.empty((0, 2), dtype=np.int64), {}, InputDataError),
        ([[0, 1]], {"pair_label": [1, 0]}, InputDataError),
        ([[0, 1]], {"pair_label": [2]}, InputDataError),
        ([[0, 1]], {"t": [1, 2]}, InputDataError),
        ([[0, 1]], {"negatives": -1}, ConfigError),
        ([[0, 1]], {"exclude": "all"}, ConfigError),
        ([[0, 1]], {"order": "random"}, ConfigError),
    ],
)
def test_pairs_and_options_that_do_not_fit_are_refused(
    random_store: Any, given: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        as_seeds(random_store, Seeds.links(given, **options))


def test_the_error_names_the_value_and_where_it_is(random_store: Any) -> None:
    with pytest.raises(InputDataError, match=r"node 777 at position 2 is outside \[0, 200\)"):
        as_seeds(random_store, [1, 2, 777, 888])


def test_the_name_of_a_split_stands_for_its_ids(random_store: Any) -> None:
    seeds = as_seeds(random_store, "train")
    assert (seeds.ids.tolist(), seeds.name) == (list(range(0, 200, 2)), "train")  # type: ignore[union-attr]


def test_equal_seeds_have_equal_digests_and_others_do_not() -> None:
    assert Seeds.nodes([1, 2]).digest == Seeds.nodes(np.array([1, 2], dtype=np.int32), name="other").digest
    assert len({Seeds.nodes([1, 2]).digest, Seeds.nodes([2, 1]).digest, Seeds.links([[1, 2]]).digest}) == 3
    assert Seeds.links([[1, 2]], t=[5]).digest != Seeds.links([[1, 2]], t=[6]).digest


def test_shuffled_batches_cover_the_seeds_once_and_the_last_is_short() -> None:
    batches = seed_batches(Seeds.nodes(np.arange(3, 53)).within(60), 16, seed=1)
    assert [len(b.ids) for b in batches] == [16, 16, 16, 2]
    assert sorted(np.concatenate([b.ids for b in batches]).tolist()) == list(range(3, 53))


def test_fixed_batches_are_consecutive() -> None:
    batches = seed_batches(Seeds.nodes([5, 3, 9, 1], order="fixed").within(10), 3, seed=1)
    assert [b.ids.tolist() for b in batches] == [[5, 3, 9], [1]]


def test_a_batch_larger_than_the_seeds_holds_them_all() -> None:
    batches = seed_batches(Seeds.nodes([5, 3, 9]).within(10), 1000, seed=1)
    assert (len(batches), sorted(batches[0].ids.tolist())) == (1, [3, 5, 9])


@pytest.mark.parametrize("other", [{"seed": 2}, {"pool_index": 1}])
def test_another_seed_or_pass_gives_another_order(other: dict[str, int]) -> None:
    seeds = Seeds.nodes(np.arange(100)).within(100)
    first = seed_batches(seeds, 100, seed=1, pool_index=0)
    again = seed_batches(seeds, 100, seed=1, pool_index=0)
    changed = seed_batches(seeds, 100, **{"seed": 1, "pool_index": 0, **other})
    assert first[0].ids.tolist() == again[0].ids.tolist() != changed[0].ids.tolist()


def test_seeds_of_a_link_batch_are_its_endpoints_in_order_of_first_appearance() -> None:
    batch = seed_batches(links(negatives=0, order="fixed"), 3, seed=0)[0]
    assert batch.ids.tolist() == [0, 1, 2, 3]
    assert batch.pairs is not None
    assert batch.ids[batch.pairs].tolist() == PAIRS[:3].tolist()


def test_negatives_follow_the_pairs_and_keep_their_sources_and_times() -> None:
    batch = seed_batches(links(negatives=2, order="fixed", t=[1, 2, 3, 4, 5]), 2, seed=0)[0]
    assert batch.pairs is not None
    assert batch.pair_label is not None
    assert batch.t is not None
    assert batch.pair_label.tolist() == [1, 1, 0, 0, 0, 0]
    assert batch.ids[batch.pairs[:, 0]].tolist() == [0, 2, 0, 0, 2, 2]
    assert batch.t.tolist() == [1, 2, 1, 1, 2, 2]


def test_negatives_are_drawn_for_pairs_with_label_1_only() -> None:
    batch = seed_batches(links(negatives=1, order="fixed", pair_label=[1, 0, 1, 0, 0]), 5, seed=0)[0]
    assert batch.pairs is not None
    assert batch.ids[batch.pairs[5:, 0]].tolist() == [0, 0]


def test_negative_destinations_are_uniform_over_the_nodes() -> None:
    batch = seed_batches(Seeds.links(np.zeros((500, 2)).astype(int), negatives=20).within(10), 500, seed=0)[0]
    assert batch.pairs is not None
    found = np.bincount(batch.ids[batch.pairs[500:, 1]], minlength=10)
    # 10,000 draws: 9 degrees of freedom, 4 standard deviations, fixed key.
    assert ((found - 1000) ** 2 / 1000).sum() < 9 + 4 * np.sqrt(18)


def test_negatives_differ_between_batches_and_repeat_for_equal_keys() -> None:
    seeds = Seeds.links(np.zeros((40, 2)).astype(int), negatives=3, order="fixed").within(1000)
    batches, again = seed_batches(seeds, 20, seed=5), seed_batches(seeds, 20, seed=5)
    assert batches[0].ids.tolist() != batches[1].ids.tolist()
    assert batches[1].ids.tolist() == again[1].ids.tolist()


def test_batches_of_seeds_that_were_not_checked_are_refused() -> None:
    with pytest.raises(ConfigError, match="as_seeds"):
        seed_batches(Seeds.links(PAIRS), 2, seed=0)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"seed": -1}, {"pool_index": -1}, {"seed": 1 << 63}])
def test_batching_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        seed_batches(links(), **{"batch_size": 2, "seed": 0, **options})


def test_slices_of_batches_are_lists_and_bad_numbers_index_errors() -> None:
    batches = seed_batches(links(), 2, seed=0)
    assert [b.index for b in batches[1:]] == [1, 2]
    with pytest.raises(IndexError):
        batches[3]


def test_a_mask_of_all_nodes_marks_seeds(tmp_path: Path) -> None:
    store = ingest_arrays(tmp_path / "s", np.arange(5), np.arange(5), 5)
    mask = np.array([True, False, False, True, True])
    for given in (mask, torch.from_numpy(mask), mask.tolist()):
        found = as_seeds(store, given)
        assert found.ids is not None
        assert found.ids.tolist() == [0, 3, 4]
    with pytest.raises(InputDataError, match=r"GS-IN-200: seeds: a mask of shape \(4,\), expected \(5,\)"):
        as_seeds(store, mask[1:])
    with pytest.raises(InputDataError, match="GS-IN-201"):
        as_seeds(store, np.zeros(5, dtype=bool))
